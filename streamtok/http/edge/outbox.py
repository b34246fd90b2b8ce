"""What is done at the end of a turn of the event loop, for all connections one after the other."""

import asyncio
from collections.abc import Callable

from streamtok.http.transport import WRITE_AHEAD_BYTES, Outbox


class TurnOutbox(Outbox):
    """Writes of all connections that wait for the end of the event loop's turn.

    An engine's step gives every stream a token in one turn. All their chunks are made first and
    then written, which keeps the caches warm; what is for one socket leaves in one system call.
    """

    def __init__(self) -> None:
        self._makers: list[Callable[[], None]] = []
        self._writes: dict[asyncio.Transport, bytes] = {}
        self._size = 0  # in bytes
        self._scheduled = False

    def add(self, transport: asyncio.Transport, data: bytes) -> None:
        """See `Outbox.add`: at once where much has come together."""
        writes = self._writes
        writes[transport] = writes[transport] + data if transport in writes else data
        self._size += len(data)
        if self._size > WRITE_AHEAD_BYTES:
            self.flush()
        elif not self._scheduled:
            self._schedule()

    def soon(self, make: Callable[[], None]) -> None:
        """Have `make` called before, so that what it adds leaves with the others."""
        self._makers.append(make)
        if not self._scheduled:
            self._schedule()

    def flush(self) -> None:
        """Write everything, except to who has gone in the meantime."""
        writes, self._writes, self._size = self._writes, {}, 0
        for transport, data in writes.items():
            if not transport.is_closing():
                transport.write(data)

    def _schedule(self) -> None:
        self._scheduled = True
        asyncio.get_running_loop().call_soon(self._end_turn)

    def _end_turn(self) -> None:
        makers, self._makers = self._makers, []
        for make in makers:
            make()
        self._scheduled = False
        self.flush()
        if self._makers:  # those that others have called for
            self._schedule()
