"""A streamed answer: each piece of text becomes a chunk, in the framing that the client accepts.

Knows neither the engine nor sockets. Read next: `streamtok.http.framings`.
"""

import secrets
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from msgspec import UNSET, UnsetType

from streamtok.api import answers
from streamtok.api.answers import Envelope, PromptDetails, UsageBody
from streamtok.api.choice import Piece, split
from streamtok.api.generation import Generation
from streamtok.api.requests import StreamOptions
from streamtok.errors import RequestError
from streamtok.http.framings import Framing
from streamtok.http.request import HeaderList, Request

USAGE_TRAILERS = ("x-usage-prompt-tokens", "x-usage-completion-tokens", "x-usage-total-tokens")

# With obfuscation every JSON text has a multiple of this size, so that who sees an encrypted stream
# cannot tell words by their lengths.
OBFUSCATED_BYTES = 64


class Shape(Protocol):
    """The JSON of one endpoint, for one request: it may remember what has passed.

    `prompt_token_ids` are told once, where they were asked for and belong to no single choice.
    """

    prefix: str
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


class Stream:
    """The chunks of one answer, in OpenAI's order, and its trailers.

    The order: a role per choice, text, a finish reason per choice, usage, the framing's end. Before
    the first text there may be heartbeats, each in a chunk of its own too.
    """

    def __init__(
        self,
        generation: Generation,
        shape: Shape,
        envelope: Envelope,
        framing: Framing,
        options: StreamOptions,
    ) -> None:
        self._generation = generation
        self._shape = shape
        self._envelope = envelope
        self._framing = framing
        self._options = options
        envelope.usage = None if options.include_usage else UNSET
        envelope.prompt_token_ids = shape.prompt_token_ids

    async def chunks(self, started: bool) -> AsyncGenerator[bytes, None]:
        """Yield the chunks; `started` says whether the generation has left the queue.

        Once this has begun the status is out, so that an error can only be told in a chunk.

        Raises:
            BrokenOff: it failed, and the framing has no place for an error.
        """
        try:
            while not started:
                yield self._framing.ping
                started = await self._generation.started()
            for chunk in filter(None, self._openings()):
                yield chunk
            async with aclosing(self._generation.pieces()) as pieces:
                async for piece in pieces:
                    for chunk in self._chunks(piece):
                        if chunk:  # bare text has none where there is no text
                            yield chunk
            if self._options.include_usage:
                self._envelope.usage = usage(self._generation)
                if chunk := self._framing.chunk("", lambda: self._encode([])):
                    yield chunk
        except RequestError as error:
            self._generation.close(failed=True)
            yield self._framing.error(answers.error_body(error))
        finally:
            self._generation.close()
        if self._framing.end:
            yield self._framing.end

    def trailers(self) -> HeaderList:
        """Return the usage, for a client that understands trailers."""
        counts = usage(self._generation)
        values = (counts.prompt_tokens, counts.completion_tokens, counts.total_tokens)
        return tuple(zip(USAGE_TRAILERS, map(str, values), strict=True))

    def _openings(self) -> Iterator[bytes]:
        for sequence in self._generation.job.sequences:
            if (opening := self._shape.opening(sequence.index)) is not None:
                yield self._chunk("", opening)

    def _chunks(self, piece: Piece | None) -> Sequence[bytes]:
        """Return the chunks of a piece: its text, and why the choice ended if it did."""
        if piece is None:
            return (self._framing.ping,)
        if piece.finish_reason is None:
            return (self._chunk(piece.text, self._shape.part(piece)),)
        body, end = split(piece)
        has_text = bool(body.text or body.tokens)
        text = (self._chunk(body.text, self._shape.part(body)),) if has_text else ()
        return (*text, self._chunk("", self._shape.end(end)))

    def _chunk(self, text: str, choice: Any) -> bytes:
        chunk = self._framing.chunk(text, lambda: self._encode([choice]))
        self._envelope.prompt_token_ids = UNSET
        return chunk

    def _encode(self, choices: list[Any]) -> bytes:
        envelope = self._envelope
        envelope.choices = choices
        if self._options.continuous_usage_stats:
            envelope.usage = usage(self._generation)
        if not self._options.include_obfuscation:
            return answers.encode(envelope)
        envelope.obfuscation = ""
        missing = -len(answers.encode(envelope)) % OBFUSCATED_BYTES
        envelope.obfuscation = secrets.token_urlsafe(OBFUSCATED_BYTES)[:missing]
        return answers.encode(envelope)


def usage(generation: Generation) -> UsageBody:
    """Return what `generation` has cost so far."""
    prompt, completion = generation.job.prompt_tokens, generation.completion_tokens
    cached = PromptDetails(generation.cached_tokens)
    return UsageBody(prompt, completion, prompt + completion, cached)


def takes_trailers(request: Request) -> bool:
    """Return whether the client wants trailers and can get them (RFC 9110 section 10.1.4)."""
    codings = [coding.strip().lower() for coding in (request.header("te") or "").split(",")]
    return request.http_version == "1.1" and "trailers" in codings
