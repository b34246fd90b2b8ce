"""Replicas as actors of Ray: how they are found or started, reached, moved and ended.

An actor's name says which model and settings it has, so that servers with the same ones share it
and others do not. Ray starts an actor again, elsewhere if need be, when its process or its node
dies. Unless they are detached, actors end with the server that has started them; another one that
used them starts them anew.

The one module that imports Ray.
"""

import asyncio
import hashlib
import logging
import math
import os
import pickle
import socket
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import partial
from itertools import count
from typing import Any

# Its handler prints a stack at every SIGTERM, which is how a server is asked to stop.
os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anyone

import ray
from ray._private.state import state as cluster_state
from ray.exceptions import GetTimeoutError

from streamtok import __version__
from streamtok.config import EngineConfig, ServeConfig
from streamtok.engine.cluster.apart import apart
from streamtok.engine.cluster.places import Link, ReplicaLost
from streamtok.engine.cluster.replica import Greeting, LoadVocabulary, Replica, Steps
from streamtok.engine.commands import Command, EngineInfo
from streamtok.errors import ConfigError, StreamtokError
from streamtok.ids import random_id

log = logging.getLogger(__name__)

Setup = tuple[EngineConfig, LoadVocabulary, int]  # the last is the level of the log

NAMESPACE = "streamtok"
STORE_BYTES = 80 * 2**20  # of a cluster that is started here: whole steps are small
MOST_CALLS = 1000  # at once in an actor: two for each server
CLOSE_S = 5.0
ADDRESS_S = 5.0


class ReplicaActor(Replica):
    """A replica that says on which node it is."""

    def __init__(
        self, config: EngineConfig, load_vocabulary: LoadVocabulary, log_level: int
    ) -> None:
        node = ray.get_runtime_context().get_node_id()
        super().__init__(config, load_vocabulary, log_level, f"node {node}, process {os.getpid()}")


class RayCluster:
    """A `Cluster` of actors that are made from `setup`, the arguments of `ReplicaActor`."""

    def __init__(self, config: ServeConfig, setup: Setup) -> None:
        engine = setup[0]
        own = repr((__version__, engine, config.ray_cpus)).encode()
        digest = hashlib.sha256(own).hexdigest()[:8]
        folder = engine.model_folder.resolve().name
        self.names = [f"{folder}-{digest}-{n}" for n in range(1, config.replicas + 1)]
        self._config, self._setup = config, setup
        self._server = random_id("server-")
        self._numbers = count()
        self._handles: dict[str, Any] = {}
        self._started: set[str] = set()  # by this server
        self._nodes: dict[str, str] = {}  # the place of each
        self._actor = ray.remote(ReplicaActor)

    async def connect(self, name: str) -> Link:
        """See `Cluster.connect`."""
        with _asking_ray():
            handle = self._handles[name] = await apart(partial(self._find, name))
            link = RayLink(handle, f"{self._server}-{next(self._numbers)}")
            await link.greeted()
        self._nodes[name] = link.place
        return link

    async def draining(self) -> Collection[str]:
        """See `Cluster.draining`."""
        with _asking_ray():
            nodes = await apart(cluster_state.get_draining_nodes)
        places = self._nodes.items()
        return {name for name, place in places if any(node in place for node in nodes)}

    async def move(self, name: str) -> None:
        """See `Cluster.move`."""
        with _asking_ray():
            await apart(partial(ray.kill, self._handles[name], no_restart=False))

    async def close(self) -> None:
        """See `Cluster.close`."""
        await apart(self._close)

    def _find(self, name: str) -> Any:
        """Return a handle to an actor, which is started if there is none."""
        try:
            return ray.get_actor(name, namespace=NAMESPACE)
        except ValueError:
            self._started.add(name)
        return self._actor.options(
            name=name,
            namespace=NAMESPACE,
            get_if_exists=True,
            lifetime="detached" if self._config.ray_detached else None,
            num_cpus=self._config.ray_cpus,
            max_restarts=-1,
            max_concurrency=MOST_CALLS,
            scheduling_strategy="SPREAD",
        ).remote(*self._setup)

    def _close(self) -> None:
        for name in self._started & self._handles.keys():
            if not self._config.ray_detached:
                with suppress(ReplicaLost), _asking_ray():
                    ray.kill(self._handles[name])
        ray.shutdown()


class RayLink:
    """A `Link` to the actor `handle`, under a name that this server has not used before."""

    def __init__(self, handle: Any, name: str) -> None:
        self._handle, self._name = handle, name
        self._numbers = count()
        self._broken: ReplicaLost | None = None  # why commands could not be sent
        self._stream = handle.attach.options(num_returns="streaming").remote(name)
        self.info: EngineInfo
        self.place = ""

    async def greeted(self) -> None:
        """Wait until the engine is loaded.

        Raises:
            StreamtokError: it cannot be.
        """
        greeting: Greeting = await self._next()
        if isinstance(greeting.engine, StreamtokError):
            raise greeting.engine
        self.info, self.place = greeting.engine, greeting.place

    def send(self, commands: Sequence[Command]) -> None:
        """See `Link.send`."""
        data = pickle.dumps(list(commands), pickle.HIGHEST_PROTOCOL)
        try:
            with _asking_ray():
                self._handle.send.remote(self._name, next(self._numbers), data)
        except ReplicaLost as lost:
            self._broken = lost

    async def receive(self) -> Steps:
        """See `Link.receive`."""
        steps: Steps = await self._next()
        return steps

    async def close(self) -> None:
        """See `Link.close`."""
        try:
            with _asking_ray():
                async with asyncio.timeout(CLOSE_S):
                    await self._handle.detach.remote(self._name)
        except ReplicaLost as error:
            log.warning("%s: %s", self._name, error)

    async def _next(self) -> Any:
        with _asking_ray():
            item = await anext(self._stream, None)
            if item is None:
                raise ReplicaLost("it has ended this server's stream")
            if self._broken:  # what is sent from now on would wait for those commands
                raise self._broken
            return pickle.loads(await _value(item))


def connect(config: ServeConfig) -> None:
    """Connect this process to the cluster, or start one for it. Blocks.

    Raises:
        ConfigError: there is none at the address.
    """
    options: dict[str, Any] = {}
    _check_address(config.ray_address)
    if config.ray_address == "local":
        needed = math.ceil(config.replicas * config.ray_cpus)
        options["num_cpus"] = max(os.cpu_count() or 1, needed)
        options |= {"include_dashboard": False, "object_store_memory": STORE_BYTES}
        options["_node_ip_address"] = "127.0.0.1"  # nobody else is to reach it
        options["_system_config"] = {"worker_niceness": 0}  # Ray's 15 is for work nobody waits for
    try:
        ray.init(
            address=config.ray_address,
            namespace=NAMESPACE,
            log_to_driver=False,
            configure_logging=False,
            **options,
        )
    except Exception as error:  # a start that takes too long is an Exception and no more
        reason = " ".join(str(error).split())
        raise ConfigError(f"--ray-address {config.ray_address}: {reason}") from error


def _check_address(address: str) -> None:
    """Check that somebody listens at an address, for which Ray itself would wait a minute.

    Raises:
        ConfigError: nobody does, or it is no address.
    """
    if address in ("local", "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"--ray-address: expected local, auto or HOST:PORT, found {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ADDRESS_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--ray-address {address}: {error}") from error


def plain(config: EngineConfig) -> EngineConfig:
    """Return the engine's settings alone, of which the actors are made."""
    return EngineConfig(**{f.name: getattr(config, f.name) for f in fields(EngineConfig)})


async def _value(item: Any) -> Any:
    """Return the value of an item. Ray's `anext` has waited for it, and to await costs as much."""
    try:
        return ray.get(item, timeout=0)
    except GetTimeoutError:  # it is large, and still on its way
        return await item


@contextmanager
def _asking_ray() -> Iterator[None]:
    """Raise ReplicaLost for whatever Ray raises in the block: its errors have no common base."""
    try:
        yield
    except (StreamtokError, ReplicaLost):
        raise
    except Exception as error:
        # Signals from outside cannot be told from crashes.
        text = " ".join(str(error).split()) or repr(error)
        outside = "node" in text and "died" in text and "its node" in text
        raise ReplicaLost(text, outside=outside) from error
