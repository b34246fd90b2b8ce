"""OpenAI's dialect: the JSON of completions and chats, streamed and complete.

The two APIs differ in the `Shape` of a choice.

Read next: `streamtok.api.openai.answers`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import shake_128
from typing import Any, Protocol

from msgspec import UNSET, UnsetType

from streamtok.answer.complete import CompleteAnswer, CompleteChoice
from streamtok.answer.events import (
    AnswerEvent,
    Began,
    ChoiceEnded,
    ChoiceEvent,
    Echo,
    Ended,
    Failed,
    TextDelta,
    ToolCallBegan,
    ToolCallDelta,
    Usage,
)
from streamtok.answer.render import Chunk
from streamtok.api.openai import answers
from streamtok.api.openai.answers import Envelope
from streamtok.api.openai.types import StreamOptions
from streamtok.http.request import HeaderList, Request

USAGE_TRAILERS = ("x-usage-prompt-tokens", "x-usage-completion-tokens", "x-usage-total-tokens")

# With obfuscation every JSON text has a multiple of this size, so that an eavesdropper on
# an encrypted stream cannot infer words from their lengths.
OBFUSCATED_BYTES = 64


class Shape(Protocol):
    """The JSON of one endpoint, for one request; it may keep state between events.

    `streamed` and `whole` are the names of its objects. `prompt_token_ids` are reported once, where
    they were asked for and belong to no single choice.
    """

    streamed: str
    whole: str

    @property
    def is_plain(self) -> bool:
        """Whether the text is all that differs between the chunks of a choice's text."""

    @property
    def prompt_token_ids(self) -> list[int] | UnsetType:
        """The ids of the one prompt, if they are to be reported."""

    def opening(self, index: int) -> Any | None:
        """Return the choice of the chunk before any text, if there is one."""

    @property
    def parts(self) -> Mapping[type[ChoiceEvent], Callable[[Any], Any]]:
        """What makes the choice of a chunk of an event, by its type."""

    def complete(self, index: int, choice: CompleteChoice) -> Any:
        """Return all of a choice."""


class Obfuscated(Protocol):
    """What has the field `obfuscation`."""

    obfuscation: str | UnsetType


class Chunks:
    """One answer in OpenAI's order: a role per choice, text, a finish reason per choice, usage."""

    def __init__(self, shape: Shape, options: StreamOptions | None) -> None:
        self._shape = shape
        self._options = options or StreamOptions()
        self._envelope: Envelope[Any] | None = None
        self._parts = shape.parts
        varies = self._options.include_obfuscation or self._options.continuous_usage_stats
        self.is_plain = shape.is_plain and not varies
        self._table: Mapping[type[AnswerEvent], Callable[[Any], Iterable[Chunk]]] = {
            Began: self._began,
            Echo: self._text,
            TextDelta: self._text,
            ToolCallBegan: self._part,
            ToolCallDelta: self._part,
            ChoiceEnded: self._part,
            Failed: self._failed,
        }

    def chunks(self, event: AnswerEvent) -> Iterable[Chunk]:
        """See `Dialect.chunks`."""
        return self._table[type(event)](event)

    async def end(self, event: Ended) -> Sequence[Chunk]:
        """See `Dialect.end`."""
        if not self._options.include_usage:
            return ()
        return (("", "", self._encode([], event.usage)),)

    async def complete(self, answer: CompleteAnswer) -> bytes:
        """See `Dialect.complete`."""
        envelope = self._head(answer.began, self._shape.whole)
        envelope.choices = [self._shape.complete(i, c) for i, c in enumerate(answer.choices)]
        envelope.usage = answers.usage_body(answer.usage)
        return answers.encode(envelope)

    def _began(self, event: Began) -> Iterator[Chunk]:
        self._envelope = self._head(event, self._shape.streamed)
        usage = event.usage if self._options.continuous_usage_stats else None
        for index in range(event.choices):
            if (opening := self._shape.opening(index)) is not None:
                yield "", "", self._encode([opening], usage)

    def _text(self, event: Echo | TextDelta) -> Sequence[Chunk]:
        choice = self._parts[type(event)](event)
        return ((event.text, "", self._encode([choice], event.usage)),)

    def _part(self, event: ToolCallBegan | ToolCallDelta | ChoiceEnded) -> Sequence[Chunk]:
        choice = self._parts[type(event)](event)
        return (("", "", self._encode([choice], event.usage)),)

    def _failed(self, event: Failed) -> Sequence[Chunk]:
        return (("", "", answers.error_body(event.error)),)

    def _head(self, began: Began, kind: str) -> Envelope[Any]:
        return Envelope(
            id=began.id,
            object=kind,
            created=began.created,
            model=began.model,
            system_fingerprint=began.fingerprint,
            choices=[],
            usage=None if self._options.include_usage else UNSET,
            prompt_token_ids=self._shape.prompt_token_ids,
        )

    def _encode(self, choices: list[Any], usage: Usage | None) -> bytes:
        envelope = self._envelope
        assert envelope is not None
        envelope.choices = choices
        if usage is not None:
            envelope.usage = answers.usage_body(usage)
        if self._options.include_obfuscation:
            obfuscate(envelope)
        encoded = answers.encode(envelope)
        envelope.prompt_token_ids = UNSET  # they are reported once
        return encoded


def obfuscate(body: Obfuscated) -> None:
    """Give the JSON text of `body` one of few lengths, by a field without a meaning."""
    body.obfuscation = ""
    missing = -len(encoded := answers.encode(body)) % OBFUSCATED_BYTES
    # Of the text alone, so that it is the same where a stream is computed again
    body.obfuscation = shake_128(encoded).hexdigest(OBFUSCATED_BYTES)[:missing]


def usage_trailers(usage: Usage) -> HeaderList:
    """Return the usage, for a client that understands trailers."""
    counts = (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)
    return tuple(zip(USAGE_TRAILERS, map(str, counts), strict=True))


def takes_trailers(request: Request) -> bool:
    """Return whether the client wants trailers and can get them (RFC 9110 section 10.1.4)."""
    codings = [coding.strip().lower() for coding in (request.header("te") or "").split(",")]
    return request.http_version != "1.0" and "trailers" in codings
