"""A socket as two coroutines: `receive` and `send`. Bytes only; what they mean is `connection`'s.

Built on an asyncio protocol rather than on `asyncio.StreamReader`, because a server of streams must
hear of three things at any time, whatever it is waiting for: the peer finished sending (`on_eof`),
the connection is gone (`on_lost`), the peer reads too slowly (`send` then waits).

Read next: `streamtok.http.service`.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, cast

Address = tuple[str, int]  # of one end of a TCP connection
READ_AHEAD_BYTES = 64 * 1024  # unread input at which reading pauses
WRITE_AHEAD_BYTES = 64 * 1024  # unsent output at which `send` waits
LINGER_S = 2.0  # how long input is discarded after the last answer (RFC 9112 section 9.6)


class ConnectionLost(ConnectionError):
    """The connection is gone; nothing more can be sent."""


class ByteStream(Protocol):
    """Bytes in both directions. asyncio's sockets and an in-memory fake implement it."""

    peer: str
    on_eof: Callable[[], None]
    on_lost: Callable[[], None]

    async def receive(self) -> bytes:
        """Return what has arrived, waiting for something; nothing at the end of input."""

    def unread(self) -> int:
        """Return how many bytes have arrived that `receive` has not returned."""

    async def send(self, data: bytes) -> None:
        """Write `data`; return when the peer keeps up. Raises ConnectionLost."""

    def write(self, data: bytes) -> None:
        """Write `data` without waiting; nothing happens if the connection is gone."""

    def is_reset(self) -> bool:
        """Whether the peer has answered a write with a reset, which reading no longer shows."""

    async def close(self, linger: bool) -> None:
        """Send what is written, then close.

        With `linger` more input may be coming: it is read for a while, so that no answer is lost.
        """

    def abort(self) -> None:
        """Close at once; unsent bytes are dropped."""

    def reset(self) -> None:
        """Close at once with a TCP reset, which the peer sees as an error and not as an end."""


def _ignore() -> None:
    pass


class Outbox:
    """What connections write to: here at once. `streamtok.http.edge.outbox` collects a turn's."""

    def add(self, transport: asyncio.Transport, data: bytes) -> None:
        """Write `data` in this turn of the event loop."""
        if not transport.is_closing():
            transport.write(data)

    def flush(self) -> None:
        """Write what waits."""


class SocketStream(asyncio.Protocol):
    """A ByteStream over an asyncio transport."""

    def __init__(
        self,
        on_connect: Callable[["SocketStream"], None],
        stall_timeout_s: float,
        outbox: Outbox,
    ) -> None:
        self.peer = ""
        self.on_eof: Callable[[], None] = _ignore
        self.on_lost: Callable[[], None] = _ignore
        self._on_connect = on_connect
        self._stall_timeout_s = stall_timeout_s
        self._outbox = outbox
        self._transport: asyncio.Transport | None = None
        self._input = bytearray()
        self._ended = False  # no more input will come
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._lost = asyncio.Event()
        self._gone, self.keeps_up = False, True  # the same, without a call for every chunk

    # asyncio's callbacks, in the order of a connection's life

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # uvloop's transports do not inherit from asyncio's
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_AHEAD_BYTES)
        self._writable.set()
        address = transport.get_extra_info("peername")
        self.peer = address[0] if isinstance(address, tuple) else "unix"
        self._on_connect(self)

    def data_received(self, data: bytes) -> None:
        """Buffer `data` for the reader, and stop reading the socket while the reader is slow."""
        self._input += data
        self._arrived.set()
        if len(self._input) > READ_AHEAD_BYTES and self._transport:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """Note that the peer has finished sending; it may still be reading."""
        self._end_input()
        self.on_eof()
        # Keep our half open; a connection over TLS has none.
        return self._transport is not None and self._transport.can_write_eof()

    def pause_writing(self) -> None:
        """Make `send` wait."""
        self.keeps_up = False
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let `send` go on."""
        self.keeps_up = not self._gone
        self._writable.set()

    def connection_lost(self, error: Exception | None) -> None:
        """End: whoever waits is woken."""
        self._gone, self.keeps_up = True, False
        self._lost.set()
        self._end_input()
        self._writable.set()
        self.on_lost()

    # What the server calls

    @property
    def client(self) -> Address | None:
        """Where the peer is; None for one at a Unix socket."""
        return self._address("peername")

    @property
    def server(self) -> Address | None:
        """Our own end of the connection."""
        return self._address("sockname")

    @property
    def is_encrypted(self) -> bool:
        """Whether the connection uses TLS."""
        assert self._transport is not None
        return self._transport.get_extra_info("sslcontext") is not None

    async def receive(self) -> bytes:
        """See `ByteStream.receive`."""
        while not self._input and not self._ended:
            self._arrived.clear()
            await self._arrived.wait()
        data = bytes(self._input)
        self._input.clear()
        if self._transport and not self._ended:
            self._transport.resume_reading()
        return data

    def unread(self) -> int:
        """See `ByteStream.unread`."""
        return len(self._input)

    async def send(self, data: bytes) -> None:
        """See `ByteStream.send`."""
        self.write(data)
        if not self.keeps_up:
            await self._wait_for_reader()
            if self._gone:
                raise ConnectionLost

    def write(self, data: bytes) -> None:
        """See `ByteStream.write`."""
        if self._transport and not self._gone:
            self._outbox.add(self._transport, data)

    def is_reset(self) -> bool:
        """See `ByteStream.is_reset`."""
        if self._transport is None or self._transport.is_closing():
            return self._gone
        connection: socket.socket = self._transport.get_extra_info("socket")
        return connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0

    async def close(self, linger: bool) -> None:
        """See `ByteStream.close`.

        A socket closed while input is unread resets the connection, and the reset may overtake the
        answer; so our half is closed first, and input discarded until the peer closes its own. TLS
        has no halves: there, who waits for the end would wait for nothing.
        """
        if self._transport is None or self._gone:
            return
        self._outbox.flush()
        # Writable now means: all is sent. With a limit of 0, asyncio's TLS would never be writable.
        self._transport.set_write_buffer_limits(high=1)
        with suppress(OSError):  # ConnectionLost and TimeoutError among them
            await self._wait_for_reader()
            if has_halves := self._transport.can_write_eof():
                self._transport.write_eof()
            if has_halves or linger:
                async with asyncio.timeout(LINGER_S):
                    while await self.receive():
                        pass
        self._transport.close()
        if not self._transport.can_write_eof():
            # TLS says goodbye; without that the client could not tell the end from a cut.
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    await self._lost.wait()

    def abort(self) -> None:
        """See `ByteStream.abort`."""
        self._outbox.flush()
        if self._transport:
            self._transport.abort()

    def reset(self) -> None:
        """See `ByteStream.reset`."""
        self._outbox.flush()
        if self._transport and not self._transport.is_closing():
            connection: socket.socket = self._transport.get_extra_info("socket")
            # Closed while it lingers for no time, a socket sends a reset.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()

    async def _wait_for_reader(self) -> None:
        """Wait until the peer has taken enough; give up on one that takes nothing at all."""
        assert self._transport is not None
        while not self._writable.is_set():
            unsent_bytes = self._transport.get_write_buffer_size()
            try:
                async with asyncio.timeout(self._stall_timeout_s):
                    await self._writable.wait()
            except TimeoutError:
                if self._transport.get_write_buffer_size() >= unsent_bytes:
                    # Closed in the usual way, the socket would leave megabytes in the kernel's
                    # queue, for as long as it goes on asking a client that does not read.
                    self.reset()
                    raise ConnectionLost from None

    def _address(self, name: str) -> Address | None:
        assert self._transport is not None
        address = self._transport.get_extra_info(name)
        return address[:2] if isinstance(address, tuple) else None

    def _end_input(self) -> None:
        self._ended = True
        self._arrived.set()
