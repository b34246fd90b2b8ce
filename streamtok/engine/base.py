"""The engine's protocol, and the stream through which its events reach one request.

An engine takes token ids and gives token ids. It runs wherever it likes; its events arrive in a
`TokenStream` on the event loop. Read next: `streamtok.engine.client`, which hands them out.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from streamtok.messages import EngineStats, Event, Failed, Finished, SequenceRequest, Waiting

HIGH_WATER = 64  # unread events at which a request's sequences are paused
LOW_WATER = 16  # unread events at which they go on
TOLD_EVERY = 16  # events after which the engine is told that they were read; not above LOW_WATER
ENDS = (Finished, Failed)


class TokenStream:
    """The events of one request, in order, for one reader on the event loop.

    One event for each token comes this way, so that it is the least a queue can be: a deque, and a
    future where the reader waits.
    Iteration ends when every sequence has had its one terminal event. `tell` is told now and then
    how many events have been read in all.
    """

    def __init__(self, sequences: int, tell: Callable[[int], None]) -> None:
        self.produced = 0
        self.consumed = 0
        self._events: deque[Event | Waiting] = deque()
        self._arrived: asyncio.Future[None] | None = None  # what the reader waits for
        self._open = sequences
        self._tell = tell

    @property
    def unread(self) -> int:
        """How many events have come that the reader has not taken."""
        return self.produced - self.consumed

    def deliver(self, event: Event) -> None:
        """Append an event of the engine's."""
        self.produced += 1
        self._append(event)

    def _append(self, event: Event | Waiting) -> None:
        self._events.append(event)
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def nudge(self) -> None:
        """Let the reader have `Waiting`, after what it has not read yet."""
        self.consumed -= 1  # the engine does not count it
        self._append(Waiting())

    def __aiter__(self) -> "TokenStream":
        return self

    async def __anext__(self) -> Event | Waiting:
        if not self._open:
            raise StopAsyncIteration
        while not self._events:
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        event = self._events.popleft()
        self.consumed += 1
        if self.consumed % TOLD_EVERY == 0:
            self._tell(self.consumed)
        if isinstance(event, ENDS):
            self._open -= 1
        return event


class Engine(Protocol):
    """What the server needs of an engine. All methods are called on the event loop."""

    @property
    def context(self) -> int:
        """How many tokens prompt and answer may have together."""

    @property
    def vocab(self) -> int:
        """How many token ids there are."""

    @property
    def width(self) -> int:
        """How many numbers an embedding has."""

    @property
    def streams(self) -> int:
        """How many sequences it generates at once."""

    @property
    def fingerprint(self) -> str:
        """A string that changes whenever the same request might give other tokens."""

    @property
    def ready(self) -> bool:
        """Whether it computes: False while it is being restarted, and after its end."""

    def submit(self, request_id: str, sequences: Sequence[SequenceRequest]) -> TokenStream:
        """Queue a request; its events arrive in the stream that is returned.

        Raises:
            Unavailable: there is no room in the queue, or the engine is closing.
        """

    def cancel(self, request_id: str, index: int | None = None) -> None:
        """End a request, or one sequence of it, before the next step: Finished("cancelled").

        Idempotent; what has ended already is left alone.
        """

    def stats(self) -> EngineStats:
        """Return how many sequences run and wait."""

    async def close(self) -> None:
        """Stop; what still runs or waits ends with Failed(Unavailable)."""
