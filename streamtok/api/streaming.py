"""A streamed answer: each piece of text becomes a chunk, in the framing that the client accepts.

Knows neither the engine nor sockets. Read next: `streamtok.http.framings`.
"""

import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from msgspec import UNSET

from streamtok.api import answers
from streamtok.api.answers import Envelope, PromptDetails, UsageBody
from streamtok.api.generation import Generation, Piece
from streamtok.api.requests import StreamOptions
from streamtok.errors import RequestError
from streamtok.http.framings import Framing
from streamtok.http.request import HeaderList, Request

USAGE_TRAILERS = ("x-usage-prompt-tokens", "x-usage-completion-tokens", "x-usage-total-tokens")

# With obfuscation every JSON text has a multiple of this size, so that who sees an encrypted stream
# cannot tell words by their lengths.
OBFUSCATED_BYTES = 64


class Shape(Protocol):
    """The JSON of one endpoint, for one request: it may count what has passed."""

    prefix: str
    streamed: str
    whole: str

    def opening(self, index: int) -> Any | None:
        """Return the choice of the chunk before any text, if there is one."""

    def part(self, piece: Piece) -> Any:
        """Return the choice of a chunk that carries a piece's text."""

    def end(self, index: int, finish_reason: str) -> Any:
        """Return the choice of the chunk after the last text."""

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

    async def chunks(self, started: bool) -> AsyncGenerator[bytes, None]:
        """Yield the chunks; `started` says whether the generation has left the queue.

        Once this has begun the status is out, so that an error can only be told in a chunk.

        Raises:
            BrokenOff: it failed, and the framing has no place for an error.
        """
        try:
            async with aclosing(self._parts(started)) as parts:
                async for part in parts:
                    if part:
                        yield part
        except RequestError as error:
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

    async def _parts(self, started: bool) -> AsyncGenerator[bytes, None]:
        generation, shape = self._generation, self._shape
        while not started:
            yield self._framing.ping
            started = await generation.started()
        for sequence in generation.job.sequences:
            if (opening := shape.opening(sequence.index)) is not None:
                yield self._chunk("", opening)
        async with aclosing(generation.pieces()) as pieces:
            async for piece in pieces:
                if piece is None:
                    yield self._framing.ping
                    continue
                if piece.text or piece.tokens:
                    yield self._chunk(piece.text, shape.part(piece))
                if piece.finish_reason is not None:
                    yield self._chunk("", shape.end(piece.index, piece.finish_reason))
        if self._options.include_usage:
            self._envelope.usage = usage(generation)
            yield self._framing.chunk("", lambda: self._encode([]))

    def _chunk(self, text: str, choice: Any) -> bytes:
        return self._framing.chunk(text, lambda: self._encode([choice]))

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
