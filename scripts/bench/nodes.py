"""Whether nodes that join are used, and what a client notices when one is drained.

usage: nodes.py [--tokens 200]

Ray is started by its own commands, as on several machines: two nodes for a server with three
replicas, then a third node, which must get the replica that had no place. While 24 streams run, a
node is drained by `ray drain-node`. Every stream must end with the bytes that it has with a local
engine, and a node that joins then must get the drained node's replica. The longest pause of each
stream is compared with its longest pause before. Exits with 1 if anything is missing.
"""

import argparse
import asyncio
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from servers import Server, serving
from streams import SSE, Stream
from survive import read
from survive_server import dateless

RAY = str(Path(sys.executable).with_name("ray"))
STREAMS = 24
NODE = ("--num-cpus", "1", "--object-store-memory", str(80 * 2**20), "--disable-usage-stats")
START_S = 60.0


@contextmanager
def node(address: str, *arguments: str) -> Iterator[None]:
    """Run a node for the length of the block: the first one if `arguments` say so."""
    where = [] if arguments else ["--address", address]
    process = subprocess.Popen(
        [RAY, "start", "--block", *where, *arguments, *NODE], stdout=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def wait_for_head(port: int) -> None:
    """Wait until the first node accepts connections."""
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise SystemExit("the first node did not start")


def drain(address: str, node_id: str) -> None:
    """Drain a node, as an operator does."""
    reason = ("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "tried")
    deadline = ("--deadline-remaining-seconds", "600")
    command = [RAY, "drain-node", "--address", address, "--node-id", node_id, *reason, *deadline]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def requests(tokens: int) -> list[Stream]:
    body = {"max_tokens": tokens, "stream": True, "ignore_eos": True, "temperature": 0.8}
    return [
        ("/v1/completions", SSE, body | {"prompt": f"Story {n}:", "seed": n})
        for n in range(STREAMS)
    ]


class Watch:
    """A stream's answer, and its longest pause before and after a moment."""

    moment_s = float("inf")

    def __init__(self) -> None:
        self.last_s = 0.0
        self.before_s = self.after_s = 0.0

    def arrived(self, _: int) -> None:
        now_s = time.monotonic()
        if self.last_s and now_s < Watch.moment_s:
            self.before_s = max(self.before_s, now_s - self.last_s)
        elif self.last_s:
            self.after_s = max(self.after_s, now_s - self.last_s)
        self.last_s = now_s

    async def run(self, url: str, stream: Stream) -> tuple[int, str]:
        status, data = await read(url, stream, self.arrived)
        return status, dateless(data)


async def answers(server: Server, found: list[Stream], watches: list[Watch]) -> list[object]:
    url = f"http://127.0.0.1:{server.port}"
    return list(await asyncio.gather(*(w.run(url, s) for w, s in zip(watches, found, strict=True))))


async def answers_while_drained(
    server: Server, found: list[Stream], watches: list[Watch], address: str, node_id: str
) -> list[object]:
    running = asyncio.ensure_future(answers(server, found, watches))
    while not all(watch.last_s for watch in watches):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await asyncio.sleep(1.0)
    await asyncio.to_thread(drain, address, node_id)
    Watch.moment_s = time.monotonic()
    return await running


def wait_for_replicas(server: Server, count: int) -> list[str]:
    """Return the node of each replica that was opened, once there are so many."""
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s:
        nodes = [re.findall(r"node (\w+)", place)[0] for _, place in server.replicas()]
        if len(nodes) >= count:
            return nodes
        time.sleep(0.5)
    server.log.seek(0)
    print(server.log.read(), file=sys.stderr)
    raise SystemExit(f"only {len(nodes)} replicas were opened, of {count}")


def main(tokens: int) -> int:
    found = requests(tokens)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as nodes:
        ledger = ("--ledger", f"{folder}/usage.sqlite3")
        with serving(*ledger) as server:
            expected = asyncio.run(answers(server, found, [Watch() for _ in found]))
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        address = f"127.0.0.1:{port}"
        head = ("--head", "--port", str(port), "--include-dashboard=false")
        nodes.enter_context(node(address, *head, "--node-ip-address", "127.0.0.1"))
        wait_for_head(port)
        nodes.enter_context(node(address))
        ray = ("--engine", "ray", "--replicas", "3", "--ray-address", "auto")
        server = nodes.enter_context(serving(*ray, *ledger))
        print(f"{len(wait_for_replicas(server, 2))} replicas on two nodes")
        nodes.enter_context(node(address))
        places = wait_for_replicas(server, 3)
        print("a node has joined and has the third replica")
        watches = [Watch() for _ in found]
        drained = places[-1]
        got = asyncio.run(answers_while_drained(server, found, watches, address, drained))
        different = sum(one != other for one, other in zip(got, expected, strict=True))
        nodes.enter_context(node(address))
        later = wait_for_replicas(server, 4)
        moved = len(set(later)) == 4 and later.count(drained) == 1
        server.log.seek(0)
        log = server.log.read()
    before, after = max(w.before_s for w in watches), max(w.after_s for w in watches)
    print(re.findall(r"is drained: \d+ sequences move", log))
    print(f"longest pause before: {before * 1e3:.0f} ms, while streams moved: {after * 1e3:.0f} ms")
    print("of each stream then, ms:", *sorted(round(w.after_s * 1e3) for w in watches))
    print(f"{len(got)} streams, {different} different; replica on the next node: {moved}")
    return 1 if different or not moved or "is drained" not in log else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=200)
    sys.exit(main(parser.parse_args().tokens))
