"""Starts a process that runs an engine, and holds the connection to it.

A process that could not be started, or whose start was cancelled, leaves nothing behind: no child,
no socket. Read next: `streamtok.engine.remote.process`, which replaces one that ends.
"""

import asyncio
import socket
import subprocess
from collections.abc import Callable, Iterable
from typing import Any, cast

from streamtok.engine.commands import Addressed, Close, EngineInfo
from streamtok.engine.remote.early import EarlyProcess, popen
from streamtok.engine.remote.frames import Frames, frame, unpack
from streamtok.engine.remote.setup import Setup
from streamtok.errors import EngineFailed, StreamtokError

CLOSE_S = 5.0  # how long a process has to end by itself


async def spawn(setup: Setup, early: EarlyProcess | None = None) -> "ChildProcess":
    """Start a process, or take the one that was started `early`; return it when it has loaded the
    model.

    Raises:
        OSError: the system has no room for one more process.
        ConfigError: there is no memory for the keys and values of one context.
        ModelError: the model cannot be loaded.
        EngineFailed: the process has ended without saying why.
    """
    child = await _connect(early)
    try:
        child.send(setup)
        await child.loaded()
    except BaseException:
        child.kill()
        await child.wait()
        raise
    return child


class ChildProcess(asyncio.Protocol):
    """A process that runs an engine. Its events go to `receive`."""

    info: EngineInfo

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.receive: Callable[[Iterable[Addressed]], None] = _ignore
        self._process = process
        self._first: asyncio.Future[EngineInfo | StreamtokError] = (
            asyncio.get_running_loop().create_future()
        )
        self._gone = asyncio.Event()
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    async def loaded(self) -> None:
        """Wait until it has loaded the model. Raises what kept it from that; see `spawn`."""
        first = await self._first
        if isinstance(first, StreamtokError):
            raise first
        self.info = first

    def send(self, message: Any) -> None:
        """Send a message; it is dropped if the process is gone."""
        if self._transport and not self._transport.is_closing():
            self._transport.write(frame(message))

    def kill(self) -> None:
        """End the process now; what it has sent and is not received yet is lost."""
        self.receive = _ignore
        self._process.kill()

    async def wait(self) -> int:
        """Wait until it is gone; return the exit status, negative if a signal ended it."""
        await self._gone.wait()
        return await asyncio.to_thread(self._reap)

    async def close(self) -> None:
        """Ask it to end; kill it if it does not."""
        self.send(Close())
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._gone.wait()
        except BaseException as error:
            self.kill()
            if not isinstance(error, TimeoutError):
                raise
        await self.wait()

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # uvloop's transports do not inherit from asyncio's
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Pass messages on."""
        for message in self._frames.feed(data):
            if isinstance(message, EngineInfo | StreamtokError):
                self._answer(message)
            else:
                self.receive(unpack(message))

    def connection_lost(self, error: Exception | None) -> None:
        """Note that the process is gone."""
        self._answer(EngineFailed("the engine's process ended before it was ready"))
        self._gone.set()

    def _reap(self) -> int:
        """Wait for the end of the process, whose connection has ended."""
        try:
            return self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.wait()

    def _answer(self, first: EngineInfo | StreamtokError) -> None:
        if not self._first.done():
            self._first.set_result(first)


def _ignore(_: Iterable[Addressed]) -> None:
    pass


async def _connect(early: EarlyProcess | None) -> ChildProcess:
    """Take over the process that was started early, or start one."""
    taken = early.take() if early else None
    process, ours = taken or _start()
    loop = asyncio.get_running_loop()
    # Windows' pairs are of TCP sockets.
    unix = hasattr(socket, "AF_UNIX") and ours.family == socket.AF_UNIX
    connect = loop.create_unix_connection if unix else loop.create_connection
    try:
        _, child = await connect(lambda: ChildProcess(process), sock=ours)
    except BaseException:
        ours.close()
        process.kill()
        process.wait()
        raise
    return child


def _start() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a process with one end of a socket pair, and return it with the other."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            return popen(theirs), ours
    except BaseException:
        ours.close()
        raise
