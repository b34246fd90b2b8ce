"""Replicas without Ray, in this process: a cluster whose replicas end when a test says so."""

import asyncio
import pickle
import queue
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from streamtok.config import EngineConfig
from streamtok.engine.cluster.client import PATIENCE_S, ClusterEngine
from streamtok.engine.cluster.places import ReplicaLost
from streamtok.engine.cluster.replica import Greeting, Replica, Steps
from streamtok.engine.cluster.start import start_cluster
from streamtok.engine.commands import Addressed, Close, Command, EngineInfo
from streamtok.engine.core import EngineCore
from streamtok.engine.extras import all_extras
from streamtok.engine.remote.setup import Setup
from streamtok.errors import StreamtokError
from streamtok.model.load import load


class ThreadEngine:
    """What a replica needs of its engine's process, in a thread of this one."""

    def __init__(self, setup: Setup) -> None:
        self.receive: Callable[[Iterable[Addressed]], None] = lambda _: None
        self._inbox: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self.ended = asyncio.Event()
        core = EngineCore(load(setup.config.model_folder), setup.config, all_extras(None))
        self.info, self.send = core.info, self._inbox.put
        loop = asyncio.get_running_loop()

        def post(events: Sequence[Addressed]) -> None:
            with suppress(RuntimeError):  # the test is over
                loop.call_soon_threadsafe(lambda: self.receive(events))

        threading.Thread(target=core.serve, args=[self._take, post], daemon=True).start()

    @classmethod
    async def spawn(cls, setup: Setup) -> "ThreadEngine":
        return cls(setup)

    async def wait(self) -> int:
        await self.ended.wait()
        return 0

    def _take(self, wait: bool) -> Iterator[Command]:
        while wait or not self._inbox.empty():
            yield self._inbox.get()
            wait = False


class LocalLink:
    """An attachment to a replica in this process."""

    def __init__(self, replica: Replica, server: str) -> None:
        self._replica, self._server = replica, server
        self._numbers = 0
        self._stream: AsyncIterator[bytes] = replica.attach(server)
        self._lost = asyncio.Event()
        self.outside = False
        self.info: EngineInfo
        self.place = server

    async def greeted(self) -> None:
        greeting: Greeting = pickle.loads(await self._next())
        if isinstance(greeting.engine, StreamtokError):
            raise greeting.engine
        self.info = greeting.engine

    def lose(self, *, outside: bool = False) -> None:
        """Be lost from now on: what is on its way does not arrive."""
        self.outside = outside
        self._lost.set()

    def send(self, commands: Sequence[Command]) -> None:
        if not self._lost.is_set():
            number, self._numbers = self._numbers, self._numbers + 1
            data = pickle.dumps(list(commands))
            task = asyncio.ensure_future(self._replica.send(self._server, number, data))
            task.add_done_callback(lambda task: task.result())

    async def receive(self) -> Steps:
        steps: Steps = pickle.loads(await self._next())
        return steps

    async def _next(self) -> bytes:
        following = asyncio.ensure_future(anext(self._stream))
        lost = asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait([following, lost], return_when=asyncio.FIRST_COMPLETED)
            if self._lost.is_set():
                raise ReplicaLost("the test says so", outside=self.outside)
            return following.result()
        finally:
            lost.cancel()
            if not following.done():
                following.cancel()
                await asyncio.wait([following])

    async def close(self) -> None:
        await self._replica.detach(self._server)
        await self._stream.aclose()  # type: ignore[attr-defined]


class LocalCluster:
    """A cluster in this process; `made` counts replicas, `down` are not to be had."""

    def __init__(self, folders: dict[str, Path], config: EngineConfig) -> None:
        self.folders = folders
        self.config = config
        self.links: dict[str, LocalLink] = {}
        self.replicas: dict[str, Replica] = {}
        self.down: set[str] = set()
        self.drained: set[str] = set()
        self.moved: list[str] = []
        self.failing: Counter[str] = Counter()  # how many calls of each method are to fail
        self.made = 0
        self._changed = asyncio.Event()

    async def connect(self, name: str) -> LocalLink:
        while name in self.down:
            self._changed.clear()
            await self._changed.wait()
        if name not in self.replicas:
            values = {field: getattr(self.config, field) for field in EngineConfig.__match_args__}
            own = EngineConfig(**values | {"model": str(self.folders[name])})
            self.replicas[name] = Replica(own, lambda _: None, 30, spawn=ThreadEngine.spawn)
        self.made += 1
        link = LocalLink(self.replicas[name], f"server-{self.made}")
        await link.greeted()
        self.links[name] = link
        return link

    def engine(self, name: str) -> ThreadEngine:
        """Return the engine of a replica."""
        engine = self.replicas[name]._engine
        assert isinstance(engine, ThreadEngine)
        return engine

    def kill(self, name: str, *, outside: bool = False) -> None:
        """End a replica: another one of this name has nothing."""
        self.replicas.pop(name)._engine.send(Close())
        self.links[name].lose(outside=outside)

    def restore(self, name: str) -> None:
        """Let a replica be had again."""
        self.down.discard(name)
        self._changed.set()

    def _fail(self, method: str) -> None:
        if self.failing[method]:
            self.failing[method] -= 1
            raise ReplicaLost("the test says so")

    async def draining(self) -> Collection[str]:
        self._fail("draining")
        return set(self.drained)

    async def move(self, name: str) -> None:
        self._fail("move")
        self.moved.append(name)
        self.drained.discard(name)
        asyncio.get_running_loop().call_later(0.02, self.kill, name)  # Ray does not wait either

    async def close(self) -> None:
        for replica in self.replicas.values():
            replica._engine.send(Close())


async def local_cluster(
    folder: Path, names: Sequence[str] = ("one", "two"), **settings: int
) -> tuple[LocalCluster, ClusterEngine]:
    """Return a cluster and its engine, whose pauses take no time."""
    cluster = LocalCluster(dict.fromkeys(names, folder), EngineConfig(**settings))
    return cluster, await start_cluster(cluster, names, hurry)


async def hurry(seconds: float) -> None:
    """Pause, shortly where it is a pause between two tries."""
    await asyncio.sleep(seconds if seconds >= PATIENCE_S else 0.002)
