"""What the points of the trace cost where nobody traces: instructions for each streamed token.

usage: bench_trace.py TREE TREE

Each TREE is a checkout, such as one before a change and one after it; the second is compared with
the first. 32 connections in memory stream the tokens of an engine that says what it is told to, and
valgrind counts what the processor does in user mode: unlike a time, that is the same on a busy
machine. Two lengths are measured and subtracted, so that only what comes with each token is left.
"""

import asyncio
import gc
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

STREAMS, SHORT, LONG = 32, 20, 120
BODY = b'{"prompt": "hi", "max_tokens": %d, "stream": true}'
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"


def stream(tokens: int) -> None:
    """Stream so many tokens on each connection."""
    from streamtok.api.more.routes import ROUTES
    from streamtok.api.routing import Api
    from streamtok.http.connection import Connection
    from streamtok.testing import (
        FakeClock,
        MemoryStream,
        ScriptedEngine,
        make_service,
        make_services,
        write_model,
    )

    async def run(folder: Path) -> None:
        clock, engine = FakeClock(), ScriptedEngine([70] * tokens, held=True)
        engine.streams = STREAMS
        api = Api(ROUTES, None, new_request_id=lambda: "req")
        api.open(make_services(folder, engine, clock))
        streams = [MemoryStream() for _ in range(STREAMS)]
        service = make_service(api, clock)
        running = [asyncio.ensure_future(Connection(one, service).run()) for one in streams]
        body = BODY % tokens
        for one in streams:
            one.feed(HEAD % len(body) + body)
        await engine.wait_for(lambda engine: len(engine.requests) == STREAMS)
        while engine.step():
            for _ in range(4):
                await asyncio.sleep(0)
        for one in streams:
            await one.wait_for(lambda stream: stream.sent.endswith(b"0\r\n\r\n"))
            assert one.sent.count(b"data: {") == tokens + 1
            one.feed_eof()
        await asyncio.wait(running)

    with tempfile.TemporaryDirectory() as folder:
        gc.disable()  # when it runs depends on all that was ever allocated
        asyncio.run(run(write_model(Path(folder) / "tiny")))


def count(tree: str, tokens: int) -> int:
    """Return how many instructions it takes in `tree`."""
    valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    done = subprocess.run(
        [*valgrind, sys.executable, __file__, "--stream", str(tokens)],
        env=os.environ | {"PYTHONPATH": tree, "PYTHONHASHSEED": "0"},
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    return int(re.findall(r"Collected : (\d+)", done.stderr)[-1])


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--stream"]:
        stream(int(sys.argv[2]))
        return
    found: list[float] = []
    for tree in (str(Path(tree).resolve()) for tree in sys.argv[1:]):
        count(tree, 1)  # compiles what is not compiled yet
        found.append((count(tree, LONG) - count(tree, SHORT)) / (LONG - SHORT) / STREAMS)
        ratio = found[-1] / found[0]
        print(f"{found[-1]:8.0f} instructions a token, {ratio:.4f} of the first: {tree}")


if __name__ == "__main__":
    main()
