"""An answer of a script as an engine says it: token ids, and what of their text is a call.

Calls stand in the text in the form of Hermes, so that tokens and usage are like a model's. They
are not looked for there: it is known where they are, whatever the content and the arguments say.
Pure. Read next: `streamtok.script.engine`.
"""

import json
from collections.abc import Sequence

from msgspec import UNSET, Struct

from streamtok.errors import ConfigError
from streamtok.messages import FinishReason
from streamtok.script.rules import Answer, Call
from streamtok.text.detokenizer import Detokenizers
from streamtok.text.templates.special import SpecialTokens
from streamtok.text.tokenizer import Tokenizer
from streamtok.text.tool_calls.reader import CLOSE, OPEN, CallPart


class Span(Struct, frozen=True):
    """A part of an answer's text: content, or of the call `number` its arguments or what is around.

    The name of a call is known at the end of what stands before its arguments.
    """

    text: str
    number: int | None = None
    name: str = ""
    is_arguments: bool = False
    ends: bool = False


class Line(Struct, frozen=True):
    """What an engine is to say: tokens, and when; `finish` is why it ends."""

    ids: tuple[int, ...]
    spans: tuple[Span, ...]
    finish: FinishReason
    first_token_s: float
    tokens_per_s: float | None

    @property
    def has_calls(self) -> bool:
        """Whether tools are called."""
        return self.spans[-1].number is not None


def spans(answer: Answer) -> tuple[Span, ...]:
    """Return the parts of an answer's text, in order."""
    content = answer.text or ""
    if answer.json is not UNSET:
        content = json.dumps(answer.json, ensure_ascii=False)
    made = [Span(content)]
    for number, call in enumerate(answer.tool_calls or ()):
        made += _call(number, call, between="\n" if content or number else "")
    return tuple(made)


def _call(number: int, call: Call, between: str) -> Sequence[Span]:
    arguments = call.arguments
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    head = f'{between}{OPEN}\n{{"name": {json.dumps(call.name)}, "arguments": '
    return (
        Span(head, number, name=call.name),
        Span(arguments, number, is_arguments=True),
        Span(f"}}\n{CLOSE}", number, ends=True),
    )


class SpanReader:
    """Tells calls from content in a text that consists of `parts`; see `answer.choice`."""

    def __init__(self, parts: Sequence[Span]) -> None:
        self.made = 0
        self._parts = [part for part in parts if part.text or part.is_arguments]
        self._read = 0  # characters of the first part

    def feed(self, text: str) -> tuple[str, Sequence[CallPart]]:
        """Return what is new of the content, and then of calls."""
        content, calls = "", []
        while self._parts and (text or not self._parts[0].text):
            part = self._parts[0]
            new = text[: len(part.text) - self._read]
            text = text[len(new) :]
            self._read += len(new)
            if part.number is None:
                content += new
            elif part.is_arguments and new:
                calls.append(CallPart(part.number, arguments=new))
            if self._read < len(part.text):
                break
            if part.name and part.number is not None:
                calls.append(CallPart(part.number, name=part.name))
            self.made += part.ends
            self._parts.pop(0)
            self._read = 0
        return content, calls


class Writer:
    """Writes answers as tokens of one model."""

    def __init__(self, tokenizer: Tokenizer, detokenizers: Detokenizers) -> None:
        self._tokenizer = tokenizer
        self._detokenizers = detokenizers
        self._special = SpecialTokens(tokenizer.backend)

    def ids(self, text: str) -> tuple[int, ...]:
        """Return tokens whose text is `text`, behind any prompt.

        Special tokens in it are text, as in messages.

        Raises:
            ConfigError: there are none.
        """
        # What a tokenizer puts before a text, such as a space, is not what continues a prompt
        for before in ("", "a", "\n", "a\n"):
            start = self._encode(before) if before else ()
            ids = self._encode(before + text)
            if ids[: len(start)] == start and self._text(start, ids[len(start) :]) == text:
                return ids[len(start) :]
        raise ConfigError(f"the model's tokenizer has no tokens for the text {text!r}")

    def _encode(self, text: str) -> tuple[int, ...]:
        marks = self._special.marks(text, "")
        if marks is None:
            return self._tokenizer.encode(text, special=False)
        return self._special.encode(self._special.marked(text, marks), marks)

    def _text(self, start: Sequence[int], ids: Sequence[int]) -> str:
        detokenizer = self._detokenizers.make(start or self._encode("a"))
        return "".join(map(detokenizer.feed, ids)) + detokenizer.flush()
