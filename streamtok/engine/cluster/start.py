"""Starts replicas, and returns the engine that they make.

Read next: `streamtok.engine.cluster.ray`.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from functools import partial

from streamtok.config import ServeConfig
from streamtok.engine.cluster.apart import apart
from streamtok.engine.cluster.client import ClusterEngine, Sleep
from streamtok.engine.cluster.places import Cluster, Link, ReplicaLost
from streamtok.engine.cluster.probe import Scores, probe
from streamtok.engine.cluster.replica import LoadVocabulary
from streamtok.errors import ConfigError, EngineFailed


async def start_cluster(
    cluster: Cluster, names: Sequence[str], sleep: Sleep = asyncio.sleep
) -> ClusterEngine:
    """Return an engine as soon as its replicas are there, or the first of them and PLACING_S.

    Raises:
        StreamtokError: the first replica that answers cannot start its engine.
        EngineFailed: none can be started.
    """
    connecting = {asyncio.ensure_future(_connect_first(cluster, name)): name for name in names}
    try:
        done, _ = await asyncio.wait(connecting, return_when=asyncio.FIRST_COMPLETED)
        first = done.pop().result()
    except BaseException:
        await _cancel(connecting)
        await cluster.close()
        raise
    await _cancel(task for task in connecting if connecting[task] != first[0])
    engine = ClusterEngine(cluster, names, first, sleep)
    await engine.opened()
    return engine


async def _connect_first(cluster: Cluster, name: str) -> tuple[str, Link, Scores]:
    try:
        link = await cluster.connect(name)
        return name, link, await probe(link)
    except ReplicaLost as lost:
        raise EngineFailed(f"{name} cannot be started: {lost}") from lost


async def _cancel(tasks: Iterable[asyncio.Task[tuple[str, Link, Scores]]]) -> None:
    """Cancel tasks, and close the links of those that have ended all the same."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if not isinstance(result, BaseException):
            await result[1].close()


async def start_ray(config: ServeConfig, load_vocabulary: LoadVocabulary) -> ClusterEngine:
    """Connect to Ray, and return an engine whose replicas it runs.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at the address.
        StreamtokError: the engine cannot be started.
    """
    try:
        from streamtok.engine.cluster import ray
    except ImportError as error:
        message = f"--engine ray needs pip install 'streamtok[ray]' ({error})"
        raise ConfigError(message) from error
    await apart(partial(ray.connect, config), stays=True)
    level = logging.getLogger().getEffectiveLevel()
    cluster = ray.RayCluster(config, (ray.plain(config), load_vocabulary, level))
    return await start_cluster(cluster, cluster.names)
