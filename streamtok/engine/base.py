"""The engine's protocol, its commands, and the queue through which events reach one request.

An engine takes and returns token ids. It may run in a thread or a process; its events arrive in a
`TokenStream` on the event loop. Read next: `streamtok.engine.client`, which dispatches them.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from streamtok.engine.commands import ENDS, HIGH_WATER, READ_EVERY, STEP_EVENTS
from streamtok.messages import (
    EngineStats,
    Event,
    SequenceRequest,
    TokenEvent,
    Waiting,
)


class EventQueue(asyncio.Queue[Event | Waiting]):
    """An `asyncio.Queue` of events with one reader: what that makes of it takes half the calls."""

    def _init(self, maxsize: int) -> None:
        self._bound = maxsize
        self.events = self._queue = deque[Event | Waiting]()
        self.reader: asyncio.Future[None] | None = None  # while it waits
        self.on_event: Callable[[], None] | None = None  # called instead of waking the reader

    def put_nowait(self, item: Event | Waiting) -> None:
        """Put an event in. Raises QueueFull."""
        if len(self.events) >= self._bound:
            raise asyncio.QueueFull
        self.events.append(item)
        if self.reader is not None:
            (self.on_event or self.wake)()

    def wake(self) -> None:
        """Have the reader, if it waits, see what there is."""
        reader, self.reader = self.reader, None
        if reader is not None and not reader.done():  # it may have been cancelled in this turn
            reader.set_result(None)

    async def wait(self) -> None:
        """Return once there is an event."""
        if not self.events:
            self.reader = asyncio.get_running_loop().create_future()
            await self.reader

    async def get(self) -> Event | Waiting:
        """Return the next event, once there is one."""
        await self.wait()
        return self.events.popleft()


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
        self.queue = EventQueue(HIGH_WATER + sequences * STEP_EVENTS)
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
        [event] = await self.group(most=1)
        return event

    async def group(self, most: int = HIGH_WATER) -> list[Event | Waiting]:
        """Return what has come, see `take`, once there is something."""
        await self.queue.wait()
        return self.take(most)

    def take(self, most: int = HIGH_WATER) -> list[Event | Waiting]:
        """Return what has come: tokens, `most` so many, or one other event."""
        events, before = self.queue.events, self.taken
        taken: list[Event | Waiting] = []
        while events and type(events[0]) is TokenEvent and len(taken) < most:
            taken.append(events.popleft())
        if events and not taken:
            taken.append(event := events.popleft())
            self._open -= type(event) in ENDS
            self.taken -= type(event) is Waiting  # which the engine does not count
        self.taken += len(taken)
        if self.taken // READ_EVERY > before // READ_EVERY:
            self._on_read(self.taken)
        return taken


class Engine(Protocol):
    """What the server needs of an engine. All methods are called on the event loop."""

    context: int  # tokens that prompt and answer may have together
    vocab: int  # token ids
    width: int  # numbers of an embedding
    streams: int  # sequences that are generated at once
    room: int  # sequences that may run and wait; more are refused
    fingerprint: str  # changes whenever the same request might give other tokens
    exact: bool  # whether the same request gives the same tokens again, whatever else is computed

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
