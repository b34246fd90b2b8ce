"""Whether clients can change between two servers that share replicas and a ledger.

usage: servers.py --ledger postgresql://... [--tokens 60] [--seed 0]

Thirty-two resumable streams of four APIs run once with one server and its own engine. Then they run
again with two servers before a simulated Ray cluster of two nodes, half of them begun at each. Each
client breaks its connection off once and asks the other server for the rest; in the middle one of
the servers is killed, and its clients go to the other one too. Every stream must end with the bytes
it had. Then the other server is stopped, and a third one must find the same replicas, which are
detached. Exits with 1 if anything is different.
"""

import argparse
import asyncio
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO

from cluster import cluster_of
from streams import Stream, streams
from survive_server import BROKEN, READY, STREAMS, Client, dateless

KILL_AFTER = 0.5  # of all bytes


@dataclass
class Server:
    """A server of which `log` is the log."""

    process: subprocess.Popen[str]
    port: int
    log: IO[str]

    def replicas(self) -> list[tuple[str, str]]:
        """Return the replicas that it has found, and where."""
        self.log.seek(0)
        return sorted(re.findall(r"(\S+) is open: (.+)", self.log.read()))


@contextmanager
def serving(*arguments: str) -> Iterator[Server]:
    """Run a server for the length of the block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "streamtok", "serve", "--port", str(port), *arguments]
    command += ["--resume-window", "300"]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            if not any(READY in line for line in process.stdout):
                log.seek(0)
                raise SystemExit(f"a server did not start: {log.read()}")
            yield Server(process, port, log)
        finally:
            process.terminate()
            process.communicate()


class Mover(Client):
    """A client that goes to the next server whenever its connection breaks, and once by itself."""

    def __init__(self, ports: list[int], stream: Stream, leave_at: int) -> None:
        super().__init__(ports[0], stream, self._count)
        self._ports = ports
        self._leave_at = leave_at
        self._bytes = 0

    def _count(self, size: int) -> None:
        Mover.total += size
        self._bytes += size
        if self._leave_at and self._bytes >= self._leave_at:
            self._leave_at = 0
            raise ConnectionAbortedError

    async def _read(self) -> None:
        try:
            await super()._read()
        except BROKEN:
            self._ports = [*self._ports[1:], self._ports[0]]
            self._port = self._ports[0]
            raise

    total = 0  # bytes of all


async def run(wanted: list[Stream], ports: list[int], leave: list[int]) -> tuple[list[bytes], int]:
    """Return the bodies, and how often clients went on elsewhere."""
    orders = [ports, ports[::-1]]
    clients = [
        Mover(orders[n % len(orders)], stream, leave_at)
        for n, (stream, leave_at) in enumerate(zip(wanted, leave, strict=True))
    ]
    await asyncio.gather(*(client.run() for client in clients))
    return [client.data for client in clients], sum(client.returns for client in clients)


async def run_and_kill(
    wanted: list[Stream], ports: list[int], leave: list[int], kill_at: int, victim: int
) -> tuple[list[bytes], int]:
    """Kill the process `victim` when so many bytes have come."""

    async def kill() -> None:
        while Mover.total < kill_at:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        os.kill(victim, 9)

    Mover.total = 0
    result, _ = await asyncio.gather(run(wanted, ports, leave), kill())
    return result


def main(ledger: str, tokens: int, seed: int) -> int:
    wanted = streams(tokens, "fireside")[:STREAMS]
    random.seed(seed)
    with tempfile.TemporaryDirectory() as folder, serving("--ledger", f"{folder}/l") as server:
        expected, _ = asyncio.run(run(wanted, [server.port], [0] * len(wanted)))
    leave = [random.randrange(1, len(body)) for body in expected]
    failed = 0
    with cluster_of(2) as cluster, ExitStack() as servers:
        ray = ["--engine", "ray", "--replicas", "2", "--ray-address", cluster.address]
        ray += ["--ray-detached", "--ledger", ledger]
        one, two = (servers.enter_context(serving(*ray)) for _ in range(2))
        kill_at = int(KILL_AFTER * sum(map(len, expected)))
        ports, victim = [one.port, two.port], one.process.pid
        bodies, returns = asyncio.run(run_and_kill(wanted, ports, leave, kill_at, victim))
        shared = one.replicas()
        failed += len(shared) != 2 or shared != two.replicas()
        servers.close()
        with serving(*ray) as three:
            failed += shared != three.replicas()
    pairs = list(zip(bodies, expected, strict=True))
    lost = sum(b"event: error" in body for body, _ in pairs)
    different = sum(dateless(body) != dateless(other) for body, other in pairs)
    print(f"replicas: {'the same' if not failed else 'NOT the same'} for all three servers")
    print(f"clients went on at the other server {returns} times; one server was killed")
    print(f"{len(bodies)} streams, {lost} lost, {different} different")
    return 1 if lost or different or failed or returns < STREAMS else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ledger", required=True)
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    sys.exit(main(given.ledger, given.tokens, given.seed))
