"""OpenAI's dialect: what completions and chats are made of, in chunks and as a whole.

The two differ in the shape of their JSON. Read next: `streamtok.http.framings`.
"""

import secrets
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from msgspec import UNSET, UnsetType

from streamtok.answer.choice import Piece, split
from streamtok.answer.dialect import Occasion, Pieces, Told
from streamtok.answer.generation import Generation
from streamtok.api.openai import answers
from streamtok.api.openai.answers import Envelope, usage
from streamtok.api.openai.types import StreamOptions
from streamtok.errors import RequestError
from streamtok.http.request import HeaderList, Request

USAGE_TRAILERS = ("x-usage-prompt-tokens", "x-usage-completion-tokens", "x-usage-total-tokens")

# With obfuscation every JSON text has a multiple of this size, so that who sees an encrypted stream
# cannot tell words by their lengths.
OBFUSCATED_BYTES = 64


class Shape(Protocol):
    """The JSON of one endpoint, for one request: it may remember what has passed.

    `prompt_token_ids` are told once, where they were asked for and belong to no single choice.
    """

    streamed: str
    whole: str

    @property
    def prompt_token_ids(self) -> list[int] | UnsetType:
        """The ids of the one prompt, if they are to be told."""

    def opening(self, index: int) -> Any | None:
        """Return the choice of the chunk before any text, if there is one."""

    def part(self, piece: Piece) -> Any:
        """Return the choice of a chunk that carries a piece's text."""

    def end(self, piece: Piece) -> Any:
        """Return the choice of the chunk after the last text, which says why it ended."""

    def choice(self, index: int, pieces: Sequence[Piece]) -> Any:
        """Return the whole of a choice."""


class Obfuscated(Protocol):
    """What has the field `obfuscation`."""

    obfuscation: str | UnsetType


class Chunks:
    """One answer in OpenAI's order: a role per choice, text, a finish reason per choice, usage."""

    def __init__(self, occasion: Occasion, shape: Shape, options: StreamOptions) -> None:
        self._generation = occasion.generation
        self._shape = shape
        self._options = options
        job = occasion.generation.job
        self._envelope: Envelope[Any] = Envelope(
            id=job.id,
            object=shape.streamed if job.stream else shape.whole,
            created=occasion.now,
            model=job.model,
            system_fingerprint=occasion.fingerprint,
            choices=[],
            usage=None if options.include_usage else UNSET,
            prompt_token_ids=shape.prompt_token_ids,
        )

    def opening(self) -> Iterator[Told]:
        """See `Dialect.opening`."""
        for sequence in self._generation.job.sequences:
            if (opening := self._shape.opening(sequence.index)) is not None:
                yield self._told("", opening)

    def piece(self, piece: Piece) -> Sequence[Told]:
        """See `Dialect.piece`."""
        if piece.finish_reason is None:
            return (self._told(piece.text, self._shape.part(piece)),)
        body, end = split(piece)
        has_text = bool(body.text or body.tokens or body.calls)
        text = (self._told(body.text, self._shape.part(body)),) if has_text else ()
        return (*text, self._told("", self._shape.end(end)))

    async def closing(self) -> Sequence[Told]:
        """See `Dialect.closing`."""
        if not self._options.include_usage:
            return ()
        self._envelope.usage = usage(self._generation)
        return (("", "", lambda: self._encode([])),)

    def failure(self, error: RequestError) -> tuple[str, bytes]:
        """See `Dialect.failure`."""
        return "", answers.error_body(error)

    async def whole(self, choices: Sequence[Pieces]) -> bytes:
        """See `Dialect.whole`."""
        envelope = self._envelope
        envelope.choices = [self._shape.choice(i, pieces) for i, pieces in enumerate(choices)]
        envelope.usage = usage(self._generation)
        return answers.encode(envelope)

    def _told(self, text: str, choice: Any) -> Told:
        return text, "", lambda: self._encode([choice])

    def _encode(self, choices: list[Any]) -> bytes:
        envelope = self._envelope
        envelope.choices = choices
        if self._options.continuous_usage_stats:
            envelope.usage = usage(self._generation)
        if self._options.include_obfuscation:
            obfuscate(envelope)
        encoded = answers.encode(envelope)
        envelope.prompt_token_ids = UNSET  # they are told once
        return encoded


def obfuscate(body: Obfuscated) -> None:
    """Give the JSON text of `body` one of few lengths, by a field without a meaning."""
    body.obfuscation = ""
    missing = -len(answers.encode(body)) % OBFUSCATED_BYTES
    body.obfuscation = secrets.token_urlsafe(OBFUSCATED_BYTES)[:missing]


def usage_trailers(generation: Generation) -> HeaderList:
    """Return the usage, for a client that understands trailers."""
    counts = usage(generation)
    values = (counts.prompt_tokens, counts.completion_tokens, counts.total_tokens)
    return tuple(zip(USAGE_TRAILERS, map(str, values), strict=True))


def takes_trailers(request: Request) -> bool:
    """Return whether the client wants trailers and can get them (RFC 9110 section 10.1.4)."""
    codings = [coding.strip().lower() for coding in (request.header("te") or "").split(",")]
    return request.http_version != "1.0" and "trailers" in codings
