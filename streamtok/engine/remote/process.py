"""The engine in a process of its own, so that numpy and the event loop do not wait for each other.

A process that dies is replaced: at once the first time, then after growing pauses. Its sequences
are continued by the replacement, which gets them from the `Journal`; new requests wait for it too.
If none is ready within PATIENCE_S, what runs and waits ends with an error and new requests are
refused, until one is. One task, `_supervise`, owns the process; its states are

    ready -> (process ends) -> down -> pause -> starting -> ready
                                         ^          | cannot be started
                                         +----------+

and `close` ends it in any of them.

Read next: `streamtok.engine.remote.journal`, why nothing is lost, and
`streamtok.engine.remote.child`, what runs in the process.
"""

import asyncio
import logging
import math
import signal
from collections.abc import Awaitable, Callable, Iterable

from streamtok.config import EngineConfig
from streamtok.engine.client import EngineClient
from streamtok.engine.commands import Addressed, Command
from streamtok.engine.extras.backlog import Backlog
from streamtok.engine.extras.grammars import Vocabulary
from streamtok.engine.remote.early import EarlyProcess
from streamtok.engine.remote.journal import Journal
from streamtok.engine.remote.restarts import Restarts, describe_status
from streamtok.engine.remote.setup import Setup
from streamtok.engine.remote.spawn import ChildProcess, spawn
from streamtok.errors import EngineFailed, Unavailable
from streamtok.messages import EngineStats

log = logging.getLogger(__name__)

PATIENCE_S = 60.0  # how long sequences wait for a replacement
OUTSIDE = {getattr(signal, name, None) for name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")}

Spawn = Callable[[], Awaitable[ChildProcess]]
Sleep = Callable[[float], Awaitable[object]]


async def start_engine(
    config: EngineConfig, vocabulary: Vocabulary | None, early: EarlyProcess | None = None
) -> "ProcessEngine":
    """Start a process that loads the model, and return its engine when it is ready.

    The first one may have been started `early`.

    Raises:
        ConfigError: there is no memory for the keys and values of one context.
        ModelError: the model cannot be loaded.
        EngineFailed: the process cannot be started, or has ended without saying why.
    """
    plain = EngineConfig(**{name: getattr(config, name) for name in EngineConfig.__match_args__})
    setup = Setup(plain, vocabulary, logging.getLogger().getEffectiveLevel())
    try:
        child = await spawn(setup, early)
    except OSError as error:
        raise EngineFailed(f"the engine's process cannot be started: {error}") from error
    return ProcessEngine(child, lambda: spawn(setup))


class ProcessEngine(EngineClient):
    """An engine in a process of its own, which is replaced if it dies.

    `child` is the first one, `spawn` starts others. Must be created on the event loop.
    """

    def __init__(self, child: ChildProcess, spawn: Spawn, sleep: Sleep = asyncio.sleep) -> None:
        super().__init__(child.info, self._command, Backlog)
        self._spawn, self._sleep = spawn, sleep
        self._journal = Journal()
        self._restarts = 0
        self._was_asked = False  # to die
        self._child: ChildProcess | None = child  # None: there is none that is ready
        self._patience: asyncio.Task[None] | None = None
        child.receive = self.receive
        self._supervisor = self._loop.create_task(self._supervise(child))

    @property
    def pid(self) -> int | None:
        """The process it runs in; None while there is none."""
        return self._child.pid if self._child else None

    @property
    def ready(self) -> bool:
        """Whether it computes: False while its process is being replaced."""
        return self._child is not None and self.refused is None

    def stats(self) -> EngineStats:
        """Return how many sequences run and wait, and how often the process was replaced."""
        stats = super().stats()
        return EngineStats(stats.running, stats.queued, self._restarts, self._journal.resumed)

    def receive(self, events: Iterable[Addressed]) -> None:
        """Give each event to the stream of its request, unless it is known there."""
        super().receive(self._journal.accept(events))
        self._send_due()

    async def close(self) -> None:
        """Stop the process; what still runs or waits ends with Failed(Unavailable)."""
        self.refused = Unavailable("the server is shutting down", code="shutting_down")
        await _cancel(self._supervisor)
        await _cancel(self._patience)
        if self._child:
            await self._child.close()
            self._child = None
        self.fail(Unavailable("the server shut down before the answer was complete"))

    def _command(self, command: Command) -> None:
        if ends := self._journal.note(command):
            self.receive(ends)
        self._send_due()

    def _send_due(self) -> None:
        if self._child:
            for command in self._journal.due():
                self._child.send(command)

    def kill(self) -> None:
        """Kill the process, as a test of what survives that; it is replaced without a pause.

        Does nothing while there is none.
        """
        if self._child:
            self._was_asked = True
            self._child.kill()

    # The life of the process

    async def _supervise(self, child: ChildProcess) -> None:
        """Replace each process that ends, until cancelled."""
        restarts = Restarts()
        while True:
            ready_s = self._loop.time()
            status = await child.wait()
            self._lose(status)
            lived_s = math.inf if self._was_asked else self._loop.time() - ready_s
            child = await self._replace(restarts, lived_s)
            self._was_asked = False
            self._resume(child)

    def _lose(self, status: int) -> None:
        """Stop sending; let sequences wait for the replacement, those that can."""
        self._child = None
        self._restarts += 1
        log.error("the engine's process ended (%s); it is replaced", describe_status(status))
        self._patience = self._loop.create_task(self._lose_patience())
        outside = -status in OUTSIDE
        self.receive(self._journal.crashed(exact=self.exact, outside=outside))

    async def _replace(self, restarts: Restarts, lived_s: float) -> ChildProcess:
        """Return a process that is ready, however many tries it takes."""
        while True:
            if delay_s := restarts.delay_s(lived_s):
                await self._sleep(delay_s)
            try:
                child = await self._spawn()
            except Exception as error:
                log.error("the engine cannot be started again: %s", error or repr(error))
                lived_s = 0.0
                continue
            if child.info.fingerprint == self.fingerprint:
                return child
            await child.close()
            log.error("the model's files have changed: the server needs to be restarted")
            lived_s = 0.0

    def _resume(self, child: ChildProcess) -> None:
        """Have a new process continue what waits for it."""
        if self._patience:
            self._patience.cancel()
        self.refused = None
        self._child = child
        child.receive = self.receive
        log.warning("the engine is running again; %d sequences go on", len(self._journal))
        self._journal.replay()
        self._send_due()

    async def _lose_patience(self) -> None:
        await self._sleep(PATIENCE_S)
        self.refused = Unavailable("the engine is being started again", code="engine_restarting")
        self.fail(EngineFailed("the engine's process ended and could not be replaced in time"))


async def _cancel(task: asyncio.Task[None] | None) -> None:
    """Cancel a task and wait for its end."""
    if task:
        task.cancel()
        await asyncio.wait([task])
