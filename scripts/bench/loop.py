"""What the event loop spends on each streamed token, with 32 streams at once.

usage: loop.py [--short] [TREE...]

Each TREE is a checkout (default: this one); several are measured in turn and compared with the
first. A server with the shipped model runs in a process of its own, on asyncio's event loop and on
uvloop's, where that is installed; 32 clients, in this process, ask for 100 tokens each. The CPU
time of the loop's thread, the kernel's for its system calls included, is divided by the tokens. So
each bears its share of a request: connecting, reading, prompt, books, closing. What the engine and
the clients compute is not in it. A first round, in which memory is mapped, is not counted.
"""

import asyncio
import http.client
import importlib.util
import json
import multiprocessing
import os
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from threading import Thread

STREAMS, TOKENS, ROUNDS = 32, 100, 3
BODIES = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Tell me a story."}]},
    "/v1/completions": {"prompt": "Once upon a time"},
}
OPTIONS = {"stream": True, "max_tokens": TOKENS, "ignore_eos": True, "temperature": 0}


def serve(pipe: Connection, loop_name: str) -> None:
    """Run the server; say where, then answer each message with the loop's CPU time in seconds."""
    from streamtok.app import App
    from streamtok.config import ServeConfig

    async def run() -> None:
        app = App(ServeConfig(port=0, ledger=":memory:"))
        pipe.send(await app.start())
        loop = asyncio.get_running_loop()
        while True:
            await loop.run_in_executor(None, pipe.recv)
            pipe.send(time.thread_time())

    if loop_name == "uvloop":
        import uvloop

        uvloop.run(run())
    else:
        asyncio.run(run())


def read_stream(address: str, path: str) -> None:
    """Ask for a stream and read it to its end."""
    connection = http.client.HTTPConnection(address)
    connection.request("POST", path, json.dumps(BODIES[path] | OPTIONS))
    answer = connection.getresponse().read()
    assert answer.endswith(b"data: [DONE]\n\n"), answer[-200:]


def read_streams(address: str, path: str) -> None:
    """Read all streams at once."""
    readers = [Thread(target=read_stream, args=(address, path)) for _ in range(STREAMS)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()


def measure(loop_name: str) -> dict[str, float]:
    """Return the loop's CPU time per token in microseconds, by endpoint."""
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=serve, args=(theirs, loop_name))
    process.start()
    address = ours.recv().removeprefix("http://")
    spent = {}
    for path in BODIES:
        read_streams(address, path)
        ours.send(None)
        before_s = ours.recv()
        read_streams(address, path)
        ours.send(None)
        spent[f"{loop_name} {path}"] = (ours.recv() - before_s) / (STREAMS * TOKENS) * 1e6
    process.kill()
    process.join()
    return spent


def main() -> None:
    """Measure and print."""
    if sys.argv[1:] == ["--once"]:
        has_uvloop = importlib.util.find_spec("uvloop") is not None
        print(json.dumps(measure("asyncio") | (measure("uvloop") if has_uvloop else {})))
        return
    rounds = 1 if "--short" in sys.argv[1:] else ROUNDS
    trees = [str(Path(tree).resolve()) for tree in sys.argv[1:] if tree != "--short"]
    trees = trees or [str(Path(__file__).parents[2])]
    found: dict[str, list[dict[str, float]]] = {tree: [] for tree in trees}
    for tree in trees * rounds:
        run = subprocess.run(
            [sys.executable, __file__, "--once"],
            env=os.environ | {"PYTHONPATH": tree},
            stdout=subprocess.PIPE,
            check=True,
        )
        found[tree].append(json.loads(run.stdout))
    for name in found[trees[0]][0]:
        first = median(once[name] for once in found[trees[0]])
        for tree in trees:
            here = median(once[name] for once in found[tree])
            print(f"{here:6.1f} us a token, {here / first:.2f} of the first: {name} in {tree}")


if __name__ == "__main__":
    main()
