"""Clients of a server in a process of its own: plain sockets, and the time of each token."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

EVENT_END = b"\n\n"  # in JSON a line feed is escaped
LAST_EVENTS = 2  # after the last token come the reason of the end and [DONE]


@contextmanager
def serving(folder: Path, streams: int) -> Iterator[int]:
    """Serve a model to so many streams at once; give the port."""
    flags = ["--port", "0", "--ledger", ":memory:", "--log-level", "warning"]
    command = [sys.executable, "-m", "streamtok", "serve", "--model", str(folder), *flags]
    command += ["--max-streams", str(streams)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "the server did not start"
        yield int(line.rpartition(":")[2])
    finally:
        process.kill()
        process.wait()


class Stream(asyncio.Protocol):
    """One completion: when it was asked for, and when each of its tokens came."""

    def __init__(self, ids: Sequence[int], tokens: int) -> None:
        body = {"prompt": list(ids), "max_tokens": tokens, "stream": True, "temperature": 0}
        self._body = json.dumps(body | {"ignore_eos": True}).encode()
        self._expected = tokens
        self._tail = b""
        self._head = b""
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self.asked_s = 0.0
        self.times_s: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ended = asyncio.get_running_loop().create_future()

    def ask(self) -> None:
        """Send the request."""
        self._transport.write(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(self._body), self._body)
        )
        self.asked_s = time.perf_counter()

    def data_received(self, data: bytes) -> None:
        now_s = time.perf_counter()
        self._head = self._head or data
        self.times_s += [now_s] * (self._tail + data).count(EVENT_END)
        self._tail = data[-1:]
        for waiting in [w for w in self._waiting if w[0] <= len(self.times_s)]:
            self._waiting.remove(waiting)
            waiting[1].set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    async def reach(self, tokens: int) -> None:
        """Wait for so many tokens."""
        if len(self.times_s) < tokens:
            reached = asyncio.get_running_loop().create_future()
            self._waiting.append((tokens, reached))
            await asyncio.wait([reached, self._ended], return_when=asyncio.FIRST_COMPLETED)
            assert reached.done(), self._head

    async def end(self) -> None:
        """Wait for the end of the answer; it must have been complete."""
        await self._ended
        del self.times_s[-LAST_EVENTS:]
        assert len(self.times_s) == self._expected, self._head

    def leave(self) -> None:
        """Give the answer up."""
        self._transport.abort()

    @property
    def first_s(self) -> float:
        """Seconds to the first token."""
        return self.times_s[0] - self.asked_s

    @property
    def gaps_s(self) -> list[float]:
        """Seconds between tokens."""
        return [b - a for a, b in zip(self.times_s, self.times_s[1:], strict=False)]


async def connect(port: int, ids: Sequence[int], tokens: int) -> Stream:
    """Return a stream that has yet to be asked for."""
    loop = asyncio.get_running_loop()
    _, stream = await loop.create_connection(partial(Stream, ids, tokens), "127.0.0.1", port)
    return stream
