"""Chat messages to a prompt, by the model's own Jinja template.

What transformers does with messages before it renders them is done here too, so that the prompt is
the same: what is null is left out, and reasoning is known by each of its names. Beyond that, a
template that can only read content as text, or only as a list of parts, is given what it can read.
Which of them it can is found out when it is loaded, by rendering a few messages.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from streamtok.errors import ContextTooLong, InvalidRequest, ModelError
from streamtok.text.template import DEFAULT, ChatTemplate, Message, PromptOptions
from streamtok.text.templates.files import Source, named_tokens, read_templates
from streamtok.text.templates.special import SpecialTokens
from streamtok.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from jinja2 import Template

RESERVED = frozenset({"messages", "tools", "add_generation_prompt", "continue_final_message"})
REASONING = ("reasoning_content", "thinking", "reasoning")  # the first is what templates read
END = "CONTINUE_FINAL_MESSAGE_TAG "  # its space shows whether the template trims
WORD = "sesquipedalian"  # stands nowhere in a template


class JinjaTemplate(ChatTemplate):
    """The chat template of a model; a plain one for models that have none.

    Raises:
        ModelError: the template is not valid Jinja.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self.special_tokens = SpecialTokens(tokenizer.backend)
        self._names = named_tokens(tokenizer.settings)
        sources = read_templates(tokenizer.folder, tokenizer.settings)
        self.source = sources["default"].text
        self._sources = {name: source.text for name, source in sources.items()}
        self._templates = {name: _compiled(source) for name, source in sources.items()}
        self._reads_text = self._reads("user", WORD) or not self._reads("user", _parts(WORD))
        self._reads_parts = frozenset(
            role
            for role in ("system", "user", "assistant", "tool")
            if self._reads(role, _parts(WORD))
        )

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Message] = (),
        options: PromptOptions = DEFAULT,
    ) -> str:
        """See `ChatTemplate.render`."""
        return self._prompt(*self.prepared(messages, tools), options) + options.begun

    def encode(
        self,
        messages: Sequence[Message],
        tools: Sequence[Message] = (),
        options: PromptOptions = DEFAULT,
    ) -> tuple[int, ...]:
        """See `ChatTemplate.encode`."""
        given = [list(messages), list(tools), dict(options.variables), options.begun]
        marks = (
            None
            if options.parse_special
            else self.special_tokens.marks(given, "".join(self._sources.values()))
        )
        if marks is None:
            return self._tokenizer.encode(self._short(messages, tools, options), special=False)
        messages, tools, variables, begun = self.special_tokens.marked(given, marks)
        options = replace(options, variables=variables, begun=begun)
        return self.special_tokens.encode(self._short(messages, tools, options), marks)

    def _short(
        self, messages: Sequence[Message], tools: Sequence[Message], options: PromptOptions
    ) -> str:
        """Return the prompt, if it is not too long to be tokenised."""
        prompt, most = self.render(messages, tools, options), options.most_characters
        if most is not None and len(prompt) > most:
            raise ContextTooLong(
                f"the prompt has {len(prompt)} characters; the model's context holds {most} at most"
            )
        return prompt

    def prepared(
        self, messages: Sequence[Message], tools: Sequence[Message]
    ) -> tuple[Sequence[Message], Sequence[Message]]:
        """Return the messages and tools that the template is given for these."""
        return messages, tools

    def _prompt(
        self, messages: Sequence[Message], tools: Sequence[Message], options: PromptOptions
    ) -> str:
        for name in RESERVED & options.variables.keys():
            place = f"chat_template_kwargs.{name}"
            raise InvalidRequest(f"{place}: use the field {name} of the request", param=place)
        chat = [self._readable(message) for message in messages]
        name = "tool_use" if tools and "tool_use" in self._templates else "default"
        continued = options.continue_final_message
        last = _left_open(chat, continued, self._sources[name]) if continued else ""
        variables = {
            "documents": None,
            **self._names,
            **options.variables,
            "add_generation_prompt": options.add_generation_prompt and not continued,
        }
        prompt = self._rendered(name, chat, tools, variables)
        return _cut(prompt, last) if continued else prompt

    def _rendered(
        self,
        name: str,
        messages: Sequence[Message],
        tools: Sequence[Message],
        variables: Mapping[str, Any],
    ) -> str:
        """Return what the template `name` makes of this, and nothing else is done with it."""
        given = {**variables, "messages": list(messages), "tools": list(tools) or None}
        try:
            return self._templates[name].render(given)
        except Exception as error:  # a template is a program and may raise anything
            raise InvalidRequest(
                f"the model's chat template cannot render these messages: {error}",
                param="messages",
            ) from error

    def _readable(self, message: Message) -> dict[str, Any]:
        """Return a message as the template can read it."""
        chat = {key: value for key, value in message.items() if value is not None}
        if name := next((name for name in REASONING if name in chat), None):
            chat = {"thinking": chat[name], **chat, REASONING[0]: chat[name]}
        content = chat.get("content")
        if isinstance(content, list) and chat.get("role") not in self._reads_parts:
            chat["content"] = "".join(str(part.get("text") or "") for part in content)
        elif isinstance(content, str) and not self._reads_text:
            chat["content"] = _parts(content)
        return chat

    def _reads(self, role: str, content: str | list[dict[str, str]]) -> bool:
        """Whether the template shows `content` in a message of this role, and nothing around it."""
        chat = _chat_with(role, content)
        try:
            prompt = self._rendered("default", chat, (), {"documents": None, **self._names})
        except InvalidRequest:
            return False
        return WORD in prompt and "'type'" not in prompt and '"type"' not in prompt


def _compiled(source: Source) -> "Template":
    # Imported here since a server does this while its engine generates the first tokens
    from jinja2 import TemplateError

    from streamtok.text.templates.jinja import compile_template

    try:
        return compile_template(source.text)
    except TemplateError as error:
        raise ModelError(f"{source.place}: {error}") from error


def _parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def _chat_with(role: str, content: str | list[dict[str, str]]) -> list[dict[str, Any]]:
    """Return a chat in which a message of `role` has this content."""
    roles = {"assistant": ("user", "assistant", "user"), "tool": ("user", "assistant", "tool")}
    chat: list[dict[str, Any]] = [
        {"role": other, "content": content if other == role else "a"}
        for other in roles.get(role, dict.fromkeys((role, "user")))
    ]
    if role == "tool":
        call = {"id": "call00000", "type": "function", "function": {"name": "f", "arguments": {}}}
        chat[1] = {"role": "assistant", "tool_calls": [call]}
        chat[2] |= {"tool_call_id": call["id"], "name": "f"}
    return chat


def _left_open(chat: list[dict[str, Any]], continued: bool | str, source: str) -> str:
    """Put an end in the last message, where the answer goes on; return the text before it.

    Raises:
        InvalidRequest: there is no such text.
    """
    field_name = continued if isinstance(continued, str) else "content"
    last = chat[-1]
    text = last.get(field_name)
    if isinstance(text, list):
        part = next((part for part in reversed(text) if "text" in part), None)
        if part is not None:
            last[field_name] = [p | {"text": p["text"] + END} if p is part else p for p in text]
            return str(part["text"])
    elif isinstance(text, str):
        same = [name for name in REASONING if last.get(name) == text]
        names = same if field_name in REASONING else [field_name]
        if any(name in source for name in names):
            last.update(dict.fromkeys(names, text + END))
            return text
    raise _not_continued(f"the last message has no {field_name} that the chat template continues")


def _cut(prompt: str, last: str) -> str:
    """Return `prompt` up to the end that was put into it, after the text `last`.

    Raises:
        InvalidRequest: the template has left them out.
    """
    if last.strip() not in prompt or END.strip() not in prompt:
        raise _not_continued("the chat template does not show the last message as it is")
    prompt, _, rest = prompt.rpartition(END.strip())
    return prompt if rest.startswith(" ") else prompt.rstrip()


def _not_continued(problem: str) -> InvalidRequest:
    return InvalidRequest(f"continue_final_message: {problem}", param="continue_final_message")
