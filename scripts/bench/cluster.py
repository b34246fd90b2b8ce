"""Whether streams survive the death of a node.

usage: cluster.py [--tokens 40]

A cluster of three nodes is simulated on this machine. Sixty-four streams of all dialects run once
with the engine in a process; then they run again on three replicas, one on each node, and a node
that has one is killed. Every stream must end with the bytes it had. Exits with 1 if one does not.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # the nodes have no token in common

from streams import Stream, comparable, streams
from survive import read

from streamtok.config import ServeConfig
from streamtok.serve.background import RunningServer, running_server

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@contextmanager
def cluster_of(nodes: int, **node: int) -> Iterator[Any]:
    """Simulate a cluster for the length of the block; `node` is added to what describes a node."""
    from ray.cluster_utils import Cluster

    head = NODE | node | {"include_dashboard": False, "_system_config": {"worker_niceness": 0}}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(nodes - 1):
            cluster.add_node(**NODE | node)
        yield cluster
    finally:
        cluster.shutdown()


def settings(**given: Any) -> ServeConfig:
    return ServeConfig(port=0, ledger=":memory:", frozen_clock=True, max_streams=32, **given)


async def run(url: str, found: list[Stream], arrived: Any = lambda _: None) -> list[Any]:
    answers = await asyncio.gather(*(read(url, stream, arrived) for stream in found))
    return [(status, comparable(data)) for status, data in answers]


def kill_a_node(cluster: Any, server: RunningServer) -> str:
    """Kill a node that has a replica, not the first one, which has Ray's own books."""
    places = {r.place: r.name for r in server.app.engine.stats().replicas}  # type: ignore[attr-defined]
    for node in list(cluster.worker_nodes):
        for place, name in places.items():
            if node.node_id in place:
                cluster.remove_node(node, allow_graceful=False)
                return str(name)
    raise RuntimeError(f"no node to kill: {places}")


def survive(tokens: int) -> int:
    found = streams(tokens, "fireside") * 2
    with running_server(settings()) as server:
        expected = asyncio.run(run(server.url, found))
    with cluster_of(3) as cluster:
        config = settings(engine="ray", replicas=3, ray_address=cluster.address)
        with running_server(config) as server:
            answers, name = asyncio.run(run_and_kill(cluster, server, found))
            stats = server.app.engine.stats()
    lost = sum(status != 200 or "event: error" in text for status, text in answers)
    different = sum(one != other for one, other in zip(answers, expected, strict=True))
    print(f"killed the node of {name}: {stats.resumed} streams went on elsewhere")
    print(f"{len(found)} streams, {lost} lost, {different} different")
    return 1 if lost or different or not stats.resumed else 0


async def run_and_kill(
    cluster: Any, server: RunningServer, found: list[Stream]
) -> tuple[list[Any], str]:
    arrived, killing = 0, None

    def count(size: int) -> None:
        nonlocal arrived, killing
        arrived += size
        if arrived > 30_000 and killing is None:
            killing = asyncio.ensure_future(asyncio.to_thread(kill_a_node, cluster, server))

    answers = await run(server.url, found, count)
    assert killing is not None
    return answers, await killing


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=40)
    sys.exit(survive(parser.parse_args().tokens))
