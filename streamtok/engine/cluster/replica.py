"""What runs on a node of the cluster: one engine, for all servers that attach to it.

The engine is a process of its own, as it is beside a server (`streamtok.engine.remote.spawn`): in a
thread it would share the interpreter's lock with what hands its steps over. If it ends, so does the
actor, which Ray starts again.

A server attaches once and gets the events of its requests as one stream: each item has whole steps,
never a call per token. Its commands come in numbered batches, because Ray may start the calls of
an actor in another order. A server that is not heard from for SILENT_S is gone: what it has asked
for is cancelled.

`Replica` is made an actor by `streamtok.engine.cluster.ray`; it does not know Ray itself.
"""

import asyncio
import logging
import os
import pickle
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct, field, structs

from streamtok.config import EngineConfig
from streamtok.engine.commands import ENDS, Addressed, Cancel, Command, EngineInfo, Read, Submit
from streamtok.engine.extras.grammars import Vocabulary
from streamtok.engine.remote.frames import pack
from streamtok.engine.remote.restarts import describe_status
from streamtok.engine.remote.setup import Setup
from streamtok.engine.remote.spawn import spawn
from streamtok.errors import EngineFailed, StreamtokError

log = logging.getLogger(__name__)

SIGN_S = 1.0  # between signs of life to a server
SILENT_S = 20.0
SEPARATOR = "/"  # between a server's name and the id of its request


class ReplicaEngine(Protocol):
    """An engine; see `streamtok.engine.remote.spawn.ChildProcess`, which is one."""

    info: EngineInfo
    receive: Callable[[Iterable[Addressed]], None]

    def send(self, message: Any) -> None:
        """Send a command."""

    async def wait(self) -> int:
        """Wait until it has ended; return the exit status."""


LoadVocabulary = Callable[[Path], Vocabulary | None]
Spawn = Callable[[Setup], Awaitable[ReplicaEngine]]
Packed = list[Any]  # see `streamtok.engine.remote.frames.pack`


class Greeting(Struct, frozen=True):
    """The first item of a server's stream: the engine, or why there is none."""

    engine: EngineInfo | StreamtokError
    place: str = ""  # which node and process


class Steps(Struct, frozen=True):
    """What has happened to a server's requests; `others` is how many sequences others have."""

    events: Packed
    others: int


class _Server(Struct):
    """A server that is attached: what is to go to it, and what has come from it."""

    events: Packed = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    early: dict[int, list[Command]] = field(default_factory=dict)  # batches before their turn
    next: int = 0
    heard_s: float = field(default_factory=time.monotonic)
    open: dict[str, int] = field(default_factory=dict)  # sequences of each request


class Replica:
    """An engine made from a `config` by `spawn`.

    `load_vocabulary` reads the one of a model's folder, which constraints need; None is a model
    without. It is read here, because what Ray hands over in its object store is gone with the
    server, and the replica may be started again after that.
    """

    def __init__(
        self,
        config: EngineConfig,
        load_vocabulary: LoadVocabulary,
        log_level: int,
        place: str = "",
        spawn: Spawn = spawn,
    ) -> None:
        logging.basicConfig(level=log_level, format="%(asctime)s replica %(levelname)s %(message)s")
        self._config, self._log_level = config, log_level
        self._load_vocabulary, self._spawn = load_vocabulary, spawn
        self._place = place
        self._servers: dict[str, _Server] = {}
        self._starting: asyncio.Task[EngineInfo | StreamtokError] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._engine: ReplicaEngine  # once it is started, before which no command comes

    async def attach(self, server: str) -> AsyncIterator[bytes]:
        """Yield a Greeting, and then Steps as they come, until the server has detached."""
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
        state = self._servers[server] = _Server()
        try:
            yield pickle.dumps(Greeting(await asyncio.shield(self._starting), self._place))
            while server in self._servers and time.monotonic() - state.heard_s < SILENT_S:
                with suppress(TimeoutError):
                    async with asyncio.timeout(SIGN_S):
                        await state.changed.wait()
                state.changed.clear()
                events, state.events = state.events, []
                yield pickle.dumps(Steps(events, self._others(server)), pickle.HIGHEST_PROTOCOL)
        finally:
            await self.detach(server)

    async def send(self, server: str, number: int, commands: bytes) -> None:
        """Take the commands of a server, which are batch `number` of it."""
        state = self._servers.get(server)
        if state is None:
            return
        state.heard_s = time.monotonic()
        state.early[number] = pickle.loads(commands)
        while state.next in state.early:
            for command in state.early.pop(state.next):
                self._accept(server, state, command)
            state.next += 1

    async def detach(self, server: str) -> None:
        """Cancel what a server has asked for, and forget it."""
        if state := self._servers.pop(server, None):
            state.changed.set()
            for request_id in state.open:
                self._engine.send(Cancel(server + SEPARATOR + request_id, None))

    def _others(self, server: str) -> int:
        return sum(
            sum(state.open.values()) for name, state in self._servers.items() if name != server
        )

    def _accept(self, server: str, state: _Server, command: Command) -> None:
        """Pass a command on, under a name that no other server's request has."""
        assert isinstance(command, Submit | Cancel | Read)
        if isinstance(command, Submit):
            state.open[command.request_id] = len(command.sequences)
        name = server + SEPARATOR + command.request_id
        self._engine.send(structs.replace(command, request_id=name))

    def _receive(self, events: Iterable[Addressed]) -> None:
        """Give events to their servers; those of a server that is gone are dropped."""
        for name, event in events:
            server, _, request_id = name.partition(SEPARATOR)
            if state := self._servers.get(server):
                state.events += pack([(request_id, event)])
                state.changed.set()
                if isinstance(event, ENDS):
                    state.open[request_id] -= 1
                    if not state.open[request_id]:
                        del state.open[request_id]

    # The engine

    async def _start(self) -> EngineInfo | StreamtokError:
        """Start the engine."""
        try:
            vocabulary = await asyncio.to_thread(self._load_vocabulary, self._config.model_folder)
            self._engine = await self._spawn(Setup(self._config, vocabulary, self._log_level))
        except StreamtokError as error:
            return error
        except Exception as error:
            log.exception("the engine cannot be started")
            return EngineFailed(f"the engine cannot be started: {error!r}")
        self._engine.receive = self._receive
        self._ending = asyncio.create_task(self._end_with(self._engine))
        return self._engine.info

    async def _end_with(self, engine: ReplicaEngine) -> None:
        """End this process when the engine's has ended: Ray starts both again."""
        status = await engine.wait()
        log.error("the engine's process ended (%s)", describe_status(status))
        os._exit(1)
