"""The engine in a process of its own, so that numpy and the event loop do not wait for each other.

If the process dies, every running sequence ends with an error, and another process takes its place:
at once the first time, then after growing pauses. Until it has loaded the model its orders wait.

Read next: `streamtok.engine.remote.child`, what runs there.
"""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import streamtok
from streamtok.config import EngineConfig
from streamtok.engine.client import Front
from streamtok.engine.core import Close, Facts, Order
from streamtok.engine.extras.grammars import Vocabulary
from streamtok.engine.remote.child import Setup
from streamtok.engine.remote.frames import Frames, frame, unpack
from streamtok.errors import EngineFailed, StreamtokError, Unavailable

log = logging.getLogger(__name__)

FIRST_DELAY_S, LAST_DELAY_S = 0.5, 30.0  # before a process that dies repeatedly starts again
STEADY_S = 60.0  # one that lived this long did not die because of how it was started
CLOSE_S = 5.0  # how long it has to end by itself


async def start_engine(config: EngineConfig, vocabulary: Vocabulary | None) -> "ProcessEngine":
    """Start a process that loads the model, and return its engine when it is ready.

    Raises:
        ConfigError: there is no memory for the keys and values of one context.
        ModelError: the model cannot be loaded.
        EngineFailed: the process has ended without a word.
    """
    plain = EngineConfig(**{name: getattr(config, name) for name in EngineConfig.__match_args__})
    setup = Setup(plain, vocabulary, logging.getLogger().getEffectiveLevel())
    line = await _Line.open(setup)
    first = await line.first
    if isinstance(first, StreamtokError):
        await line.close()
        raise first
    return ProcessEngine(first, setup, line)


class _Line(asyncio.Protocol):
    """A process, and the connection to it; `first` is what it says of itself."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.engine: ProcessEngine | None = None
        loop = asyncio.get_running_loop()
        self.started_s = loop.time()
        self.first: asyncio.Future[Facts | StreamtokError] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, setup: Setup) -> "_Line":
        """Start a process, and send it the setup."""
        ours, theirs = socket.socketpair()
        with theirs:
            paths = [str(Path(streamtok.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
            # takes a millisecond
            process = subprocess.Popen(  # noqa: ASYNC220
                [sys.executable, "-m", "streamtok.engine.remote.child", str(theirs.fileno())],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                process_group=0,  # Ctrl-C is for the server alone
            )
        loop = asyncio.get_running_loop()
        _, line = await loop.create_unix_connection(lambda: cls(process), sock=ours)
        line.send(setup)
        return line

    def send(self, message: Any) -> None:
        """Send a message; what comes too late is lost."""
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.write(frame(message))

    async def close(self) -> None:
        """Wait until the process has ended; kill it if it does not."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.ended
        except TimeoutError:
            self.process.kill()
        await asyncio.to_thread(self.process.wait)

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # uvloop's transports do not inherit from asyncio's
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Pass on what the process says."""
        for message in self._frames.feed(data):
            if not self.first.done():
                self.first.set_result(message)
            elif self.engine:
                self.engine.receive(unpack(message))

    def connection_lost(self, error: Exception | None) -> None:
        """Note that the process is gone."""
        if not self.first.done():
            self.first.set_result(EngineFailed("the engine's process ended before it was ready"))
        self.ended.set_result(None)
        if self.engine:
            self.engine.lose(self)


class ProcessEngine(Front):
    """An engine in a process of its own, which is replaced if it dies."""

    def __init__(self, facts: Facts, setup: Setup, line: _Line) -> None:
        super().__init__(facts, self._order)
        self._setup = setup
        self._line = line
        self._failures = 0
        self._closing = False
        self._restarting: asyncio.Task[None] | None = None
        line.engine = self

    @property
    def pid(self) -> int:
        """The process it runs in."""
        return self._line.process.pid

    async def close(self) -> None:
        """Stop the process; what still runs or waits ends with Failed(Unavailable)."""
        self._closing = True
        self.refused = Unavailable("the server is shutting down", code="shutting_down")
        if self._restarting and not self._restarting.done():
            self._restarting.cancel()
            await asyncio.wait([self._restarting])
        self._line.send(Close())
        await self._line.close()
        self.fail(Unavailable("the server shut down before the answer was complete"))

    def lose(self, line: _Line) -> None:
        """End what runs, since the process is gone, and have another one started."""
        if self._closing:
            return
        steady = self._loop.time() - line.started_s > STEADY_S
        self._failures = 1 if steady else self._failures + 1
        self.refused = Unavailable("the engine is being started again", code="engine_restarting")
        self.fail(EngineFailed("the engine's process ended"))
        self._restarting = asyncio.ensure_future(self._restart(line))

    async def _restart(self, lost: _Line) -> None:
        status = await asyncio.to_thread(lost.process.wait)
        reason = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        log.error("the engine's process ended (%s); it is replaced", reason)
        if self._failures > 1:
            await asyncio.sleep(min(LAST_DELAY_S, FIRST_DELAY_S * 2 ** (self._failures - 2)))
        self._line = line = await _Line.open(self._setup)
        first = await line.first
        if isinstance(first, Facts):
            line.engine = self
            self.refused = None
        else:
            log.error("the engine cannot be started again: %s", first)
            await line.close()
            self.lose(line)

    def _order(self, order: Order) -> None:
        self._line.send(order)
