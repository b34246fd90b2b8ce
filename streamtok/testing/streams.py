"""A socket in memory, and the chunks of an answer that has none."""

import asyncio
from collections.abc import AsyncIterator, Callable

from streamtok.http.response import Response, chunks_of
from streamtok.http.transport import ConnectionLost


class MemoryStream:
    """A ByteStream without a socket: `feed` is what the client sends, `sent` what it receives.

    `writes` keeps every write apart, so that a test can see what left together.
    """

    def __init__(self, peer: str = "memory") -> None:
        self.peer = peer
        self.writes: list[bytes] = []
        self.closed = False
        self.was_reset = False
        self.on_eof: Callable[[], None] = lambda: None
        self.on_lost: Callable[[], None] = lambda: None
        self._input = bytearray()
        self._ended = False
        self._lost = False
        self._changed = asyncio.Event()

    @property
    def sent(self) -> bytes:
        """All bytes written so far."""
        return b"".join(self.writes)

    # The client's side

    def feed(self, data: bytes) -> None:
        """Let `data` arrive."""
        self._input += data
        self._notify()

    def feed_eof(self) -> None:
        """Let the client finish sending; it may still be reading."""
        self._ended = True
        self.on_eof()
        self._notify()

    def lose(self) -> None:
        """Reset the connection."""
        self._lost = self._ended = True
        self.on_lost()
        self._notify()

    async def wait_for(self, condition: Callable[["MemoryStream"], bool]) -> None:
        """Wait until `condition` of this stream holds."""
        while not condition(self):
            self._changed.clear()
            await self._changed.wait()

    # The server's side

    async def receive(self) -> bytes:
        """See `streamtok.http.transport.ByteStream.receive`."""
        await self.wait_for(lambda stream: bool(stream._input) or stream._ended)
        data = bytes(self._input)
        self._input.clear()
        return data

    def unread(self) -> int:
        """See `streamtok.http.transport.ByteStream.unread`."""
        return len(self._input)

    async def send(self, data: bytes) -> None:
        """See `streamtok.http.transport.ByteStream.send`."""
        if self._lost:
            raise ConnectionLost
        self.write(data)
        await asyncio.sleep(0)

    def write(self, data: bytes) -> None:
        """See `streamtok.http.transport.ByteStream.write`."""
        if not self._lost:
            self.writes.append(data)
            self._notify()

    def is_reset(self) -> bool:
        """See `streamtok.http.transport.ByteStream.is_reset`."""
        return self._lost

    async def close(self, linger: bool) -> None:
        """See `streamtok.http.transport.ByteStream.close`."""
        self.abort()

    def abort(self) -> None:
        """See `streamtok.http.transport.ByteStream.abort`."""
        self.closed = True
        self._notify()

    def reset(self) -> None:
        """See `streamtok.http.transport.ByteStream.reset`."""
        self.was_reset = True
        self.abort()

    def _notify(self) -> None:
        self._changed.set()


async def chunks(response: Response) -> AsyncIterator[bytes]:
    """Yield the chunks of a streamed answer one by one."""
    assert not isinstance(response.body, bytes)
    async for item in response.body:
        for chunk in chunks_of(item):
            yield chunk
