"""Chat messages to a prompt; here in a plain form, for models that bring no template.

`streamtok.app` plugs in `streamtok.text.templates`, which renders the model's own Jinja template.

Read next: `streamtok.text.tokenizer`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from streamtok.text.tokenizer import Tokenizer

Message = Mapping[str, Any]


class PromptOptions(Struct, frozen=True):
    """How messages become a prompt.

    `continue_final_message` leaves the last message open, at its end or at that of the field it
    names. `variables` are further names for the template. The prompt ends in what is `begun` of
    the answer. With `parse_special`, special tokens in messages are no text, but tokens. A prompt
    of more than `most_characters` is not tokenised.
    """

    add_generation_prompt: bool = True
    continue_final_message: bool | str = False
    variables: Mapping[str, Any] = field(default_factory=dict)
    begun: str = ""
    parse_special: bool = False
    most_characters: int | None = None


DEFAULT = PromptOptions()


class ChatTemplate:
    """How messages become a prompt: here a line for each, and the beginning of the answer's."""

    source = ""  # in Jinja, where there is one

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Message] = (),
        options: PromptOptions = DEFAULT,
    ) -> str:
        """Return the prompt for `messages`, up to where the assistant's answer begins.

        Raises:
            InvalidRequest: the template refuses the messages, or fails on them.
        """
        lines = [f"{message['role']}: {message['content']}\n" for message in messages]
        return "".join(lines) + "assistant:" * options.add_generation_prompt

    def encode(
        self,
        messages: Sequence[Message],
        tools: Sequence[Message] = (),
        options: PromptOptions = DEFAULT,
    ) -> tuple[int, ...]:
        """Return the token ids of the prompt that `render` returns.

        Raises:
            InvalidRequest: as `render`.
            ContextTooLong: the prompt has more characters than `options` allow.
        """
        return self._tokenizer.encode(self.render(messages, tools, options), special=False)
