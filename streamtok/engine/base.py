"""The engine's protocol, and the queue through which its events reach one request.

An engine takes and returns token ids. It may run in a thread or a process; its events arrive in a
`TokenStream` on the event loop. Read next: `streamtok.engine.client`, which dispatches them.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from streamtok.messages import (
    EngineStats,
    Event,
    Failed,
    Finished,
    SequenceRequest,
    TokenEvent,
    Waiting,
)

HIGH_WATER = 64  # unread events of a request above which its sequences are paused
LOW_WATER = 16  # unread events at which they go on
READ_EVERY = 16  # events after which a Read command goes to the engine; not above LOW_WATER
STEP_TOKENS = 8  # that one step may add to one sequence, where guesses were right
STEP_EVENTS = STEP_TOKENS + 8  # besides: its start, scores of its prompt, its end, a heartbeat
ENDS = (Finished, Failed)


class TokenStream:
    """The events of one request, in order: a bounded `asyncio.Queue` between engine and writer.

    The engine cannot wait for one reader, since it computes all sequences in one step: it puts
    events in without waiting, and leaves out the sequences of a request whose queue might not hold
    what another step brings. So the queue is never full when an event comes, and a slow
    reader stops its own sequences and no others.

    Iteration ends when every sequence has had its one terminal event. `on_read` is called now and
    then with how many events have been taken in total: that is how the engine, which may run in
    another process, knows what is in the queue.
    """

    def __init__(self, sequences: int, on_read: Callable[[int], None]) -> None:
        self.taken = 0
        self.queue: asyncio.Queue[Event | Waiting] = asyncio.Queue(
            HIGH_WATER + sequences * STEP_EVENTS
        )
        self.put: Callable[[Event], None] = self.queue.put_nowait
        self._open = sequences
        self._on_read = on_read

    @property
    def unread(self) -> int:
        """How many events have come that the reader has not taken."""
        return self.queue.qsize()

    def nudge(self) -> None:
        """Let the reader have `Waiting`, after what it has not read yet."""
        if not self.queue.full():
            self.queue.put_nowait(Waiting())

    def __aiter__(self) -> "TokenStream":
        return self

    async def __anext__(self) -> Event | Waiting:
        if not self._open:
            raise StopAsyncIteration
        [event] = self.take(await self.queue.get(), most=1)
        return event

    def take(self, event: Event | Waiting, most: int = HIGH_WATER) -> list[Event | Waiting]:
        """Return `event`, which the queue has given, and the tokens that have come behind it.

        There are `most` so many; the last one may be another event.
        """
        queue, events = self.queue, [event]
        while type(event) is TokenEvent and len(events) < most and not queue.empty():
            event = queue.get_nowait()
            events.append(event)
        before = self.taken
        self.taken += len(events) - (type(event) is Waiting)  # the engine does not count that one
        if self.taken // READ_EVERY > before // READ_EVERY:
            self._on_read(self.taken)
        if type(event) in ENDS:
            self._open -= 1
        return events


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
    def room(self) -> int:
        """How many sequences may run and wait; more are refused."""

    @property
    def fingerprint(self) -> str:
        """A string that changes whenever the same request might give other tokens."""

    @property
    def exact(self) -> bool:
        """Whether the same request gives the same tokens again, whatever else is computed."""

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
