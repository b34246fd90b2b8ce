"""How an answer is told: the same pieces of text, in the words of one API or another.

Every API has a dialect: what it says before the text, with each piece, at the end, when it fails,
and as a whole. What they share is here: the order of things, signs of life while nothing comes, and
that a generation is closed in the end. Knows neither the engine nor sockets.

Read next: `streamtok.api.openai.streaming`, OpenAI's chunks; `streamtok.http.framings`.
"""

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from streamtok.answer.choice import Piece
from streamtok.answer.generation import Generation
from streamtok.clock import Clock
from streamtok.errors import RequestError
from streamtok.http.framings import Framing

Pieces = Sequence[Piece]  # of one choice, in order
Told = tuple[str, str, Callable[[], bytes]]  # a chunk: bare text, the event's name, JSON


@dataclass(frozen=True, slots=True)
class Occasion:
    """What a dialect needs to know of the one answer it tells."""

    generation: Generation
    clock: Clock
    fingerprint: str

    @property
    def now(self) -> int:
        """The time in seconds since 1970."""
        return int(self.clock.wall_s())


class Whole(Protocol):
    """The words of one API for one answer that is not streamed."""

    async def whole(self, choices: Sequence[Pieces]) -> bytes:
        """Return the JSON of the answer."""


@runtime_checkable
class Dialect(Whole, Protocol):
    """The words of one API for one answer; it is asked in this order, and may remember."""

    def opening(self) -> Iterable[Told]:
        """Return the chunks before any text."""

    def piece(self, piece: Piece) -> Iterable[Told]:
        """Return the chunks of a piece: its text, and why its choice ended if it did."""

    async def closing(self) -> Iterable[Told]:
        """Return the chunks behind the last piece."""

    def failure(self, error: RequestError) -> tuple[str, bytes]:
        """Return the name and the JSON of the event that tells of `error`, at any point."""


async def chunks(
    generation: Generation, dialect: Dialect, framing: Framing, started: bool
) -> AsyncGenerator[bytes, None]:
    """Yield the chunks of a stream; `started` says whether the generation has left the queue.

    Once this has begun the status is out, so that an error can only be told in a chunk. Before the
    first text there may be heartbeats, each in a chunk of its own too.

    Raises:
        BrokenOff: it failed, and the framing has no place for an error.
    """
    try:
        while not started:
            yield framing.ping
            started = await generation.started()
        for told in dialect.opening():
            if chunk := framing.chunk(*told):  # bare text has none where there is no text
                yield chunk
        async for piece in generation:
            if piece is None:
                yield framing.ping
                continue
            for told in dialect.piece(piece):
                if chunk := framing.chunk(*told):
                    yield chunk
        for told in await dialect.closing():
            if chunk := framing.chunk(*told):
                yield chunk
    except RequestError as error:
        generation.close(failed=True)
        yield framing.error(*dialect.failure(error))
    finally:
        generation.close()
    if framing.end:
        yield framing.end
