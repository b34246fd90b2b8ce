"""The events of one answer that runs once and has any number of readers.

One task, the writer, takes the events from where they are made. While there are readers, it goes no
faster than the first of them, so that a client which does not read still slows its answer down
(`streamtok.engine.base`). Without readers it goes on: whoever comes back finds what was missed.

Knows no ids and no HTTP. Read next: `streamtok.api.resume.rows`.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing

from streamtok.http.response import BrokenOff
from streamtok.http.sse import PING

Source = AsyncGenerator[Sequence[bytes], None]
MOST = 64  # events that a reader is given at once


class Signal:
    """Wakes all who wait for it."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Wait for the next `set`."""
        self._waiting.append(asyncio.get_running_loop().create_future())
        await self._waiting[-1]

    def set(self) -> None:
        """Wake who waits."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


class Reader:
    """One client's place in a log: it has got `position` events, and has asked for the next."""

    def __init__(self, log: "EventLog", position: int) -> None:
        self._log = log
        self.position = position
        self._pings = log.pings

    async def events(self, prefix: bytes = b"") -> Source:
        """Yield the events, each after a line with its number from 1 where there is a `prefix`.

        Those that are there already come in groups.

        Raises:
            BrokenOff: the log has no more events and no end.
        """
        log = self._log
        while True:
            if self.position < len(log.events):
                events = log.events[self.position : self.position + MOST]
                if prefix:
                    numbered = enumerate(events, self.position + 1)
                    yield [b"%s%d\n%s" % (prefix, number, event) for number, event in numbered]
                else:
                    yield events
                self.position += len(events)
                log.furthest = max(log.furthest, self.position)
            elif log.ended:
                return
            elif log.broken:
                raise BrokenOff
            elif self._pings < log.pings:
                self._pings = log.pings
                yield (PING,)
            else:
                log.wanted.set()
                await log.grown.wait()

    def leave(self) -> None:
        """Want no more."""
        self._log.leave(self)


class EventLog:
    """The events of an answer so far; `furthest` is how many of them some client has got.

    Once it has `ended` there are no more; `broken` says that it stopped before its end. An
    `independent` log does not wait for readers. `on_events` is awaited with their number before a
    reader sees new events; `on_idle` is called when the last reader has left, and at the end if
    there is none.
    """

    def __init__(
        self,
        on_events: Callable[[int], Awaitable[None]],
        on_idle: Callable[[], None],
        *,
        independent: bool = False,
    ) -> None:
        self.events: list[bytes] = []
        self.ended = False
        self.broken = False
        self.furthest = 0
        self.pings = 0
        self.grown, self.wanted = Signal(), Signal()
        self._readers: set[Reader] = set()
        self._on_events = on_events
        self._on_idle = on_idle
        self._independent = independent
        self._writer: asyncio.Task[None] | None = None

    @property
    def has_readers(self) -> bool:
        """Whether anybody reads."""
        return bool(self._readers)

    def read(self, position: int) -> Reader:
        """Return a reader who has got `position` events already."""
        reader = Reader(self, position)
        self._readers.add(reader)
        self.furthest = max(self.furthest, position)
        return reader

    def leave(self, reader: Reader) -> None:
        """Take note that a reader has left; a second time does nothing."""
        if reader in self._readers:
            self._readers.remove(reader)
            self.wanted.set()
            if not self._readers:
                self._on_idle()

    def write(self, source: Source) -> None:
        """Take all events from `source`, which gives them in groups."""
        self._writer = asyncio.get_running_loop().create_task(self._write(source))

    async def begun(self) -> None:
        """Wait until there is an event, or there will be none."""
        while not (self.events or self.ended or self.broken):
            await self.grown.wait()

    async def finished(self) -> None:
        """Wait until there are no more events."""
        while not (self.ended or self.broken):
            await self.grown.wait()

    async def stop(self) -> None:
        """Take no more events, and return once their source is closed."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait([self._writer])

    async def _write(self, source: Source) -> None:
        try:
            async with aclosing(source):
                async for group in source:
                    await self._add(group)
            self.ended = True
        except BrokenOff:
            pass
        finally:
            self.broken = not self.ended
            self.grown.set()
            if not self._readers:
                self._on_idle()

    async def _add(self, group: Sequence[bytes]) -> None:
        events = [event for event in group if event != PING]
        self.pings += len(group) - len(events)
        if events:
            await self._on_events(len(events))
            self.events += events
        self.grown.set()
        while self._is_ahead():
            await self.wanted.wait()

    def _is_ahead(self) -> bool:
        """Whether every reader is still busy with what there is."""
        if self._independent or not self._readers:
            return False
        return max(reader.position for reader in self._readers) < len(self.events)
