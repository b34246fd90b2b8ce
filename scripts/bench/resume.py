"""What resumable streams cost: nothing where nobody asks for them; and else, how much.

usage: resume.py [--model FOLDER] [--rounds 6] [--tokens 60] [--requests 100] [--before FOLDER]

Two servers of this checkout run beside each other, one of them without what makes streams
resumable. In each round both serve thirty-two streams, and the first also thirty-two resumable
ones. Then requests for one token are sent one after the other, with and without it: the difference
is what the row costs that is on the disk before the response begins. `--before` is another
checkout, whose server is a third. Shown are medians of the ratios between runs of the same round,
with the least and the greatest.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
READY = "ready at http://127.0.0.1:"
STREAMS = 32
UNPLUGGED = """
import sys
from streamtok import app, cli
class Nothing:
    streams = running = None
    def __init__(self, *_): pass
    def around(self, routes): return tuple(routes)
    async def start(self, services): pass
    async def close(self): pass
    def end(self): pass
app.Resumption = Nothing
sys.exit(cli.main(sys.argv[1:]))
"""
PLUGGED = "import sys; from streamtok import cli; sys.exit(cli.main(sys.argv[1:]))"


@contextmanager
def server(program: str, root: Path, model: str) -> Iterator[int]:
    """Run a server of the checkout `root` with a ledger in a file; yield its port."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", program, "serve", "--port", "0", "--log-level", "error"]
        command += ["--ledger", str(Path(folder) / "usage.sqlite3"), "--max-streams", str(STREAMS)]
        command += ["--model", model] if model else []
        environment = {**os.environ, "PYTHONPATH": str(root)}
        with subprocess.Popen(
            command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    if READY in line:
                        yield int(line.partition(READY)[2])
                        break
                else:
                    raise SystemExit("the server did not start")
            finally:
                process.terminate()


async def ask(port: int, number: int, tokens: int, *, resumable: bool) -> None:
    """Read one stream to its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    prompt = f"Story {number}: once upon a time"
    fields = {"prompt": prompt, "max_tokens": tokens, "stream": True, "ignore_eos": True}
    body = json.dumps(fields | {"seed": number}).encode()
    more = "X-Resumable: 1\r\n" if resumable else ""
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    begin = await reader.readuntil(b"\r\n\r\n")
    assert begin.startswith(b"HTTP/1.1 200"), begin
    assert (b"x-stream-id" in begin.lower()) == resumable, begin
    last = b""
    while data := await reader.read(2**18):
        last = (last + data)[-20:]
    assert last.endswith(b"[DONE]\n\n\r\n0\r\n\r\n"), last
    writer.close()


async def rate(port: int, tokens: int, *, resumable: bool = False) -> float:
    """Return the tokens per second of all streams together."""
    started_s = time.perf_counter()
    asked = (ask(port, number, tokens, resumable=resumable) for number in range(STREAMS))
    await asyncio.gather(*asked)
    return STREAMS * tokens / (time.perf_counter() - started_s)


async def latencies(port: int, requests: int) -> dict[bool, list[float]]:
    """Return how long requests for one token take, in ms, resumable ones and others in turn."""
    found: dict[bool, list[float]] = {True: [], False: []}
    for number in range(requests):
        for resumable in (True, False):
            started_s = time.perf_counter()
            await ask(port, number, 1, resumable=resumable)
            found[resumable].append(1000 * (time.perf_counter() - started_s))
    return found


def show(name: str, rates: Sequence[float], others: Sequence[float]) -> None:
    """Print how many times the rates of `others` `rates` are, round by round."""
    ratios = [one / other for one, other in zip(rates, others, strict=True)]
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    print(f"{name}: {median(rates):.0f} tokens/s, {median(ratios):.3f} ({spread})", flush=True)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="", help="folder of a model")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=60, help="of each stream")
    parser.add_argument("--requests", type=int, default=100, help="for one token")
    parser.add_argument("--before", type=Path, help="another checkout")
    given = parser.parse_args()
    with ExitStack() as stack:
        programs = {"not plugged in": (UNPLUGGED, ROOT), "plugged in": (PLUGGED, ROOT)}
        if given.before:
            programs["before"] = (PLUGGED, given.before)
        ports = {
            name: stack.enter_context(server(program, root, given.model))
            for name, (program, root) in programs.items()
        }
        runs = [(name, port, False) for name, port in ports.items()]
        runs.append(("asked for", ports["plugged in"], True))
        rates: dict[str, list[float]] = {name: [] for name, _, _ in runs}
        for number in range(given.rounds + 1):
            for name, port, resumable in runs if number % 2 else reversed(runs):
                found = asyncio.run(rate(port, given.tokens, resumable=resumable))
                if number:  # the first round warms them up
                    rates[name].append(found)
        print(f"{STREAMS} streams of {given.tokens} tokens, {given.rounds} rounds")
        for name, found in rates.items():
            show(name, found, rates["not plugged in"])
        waits = asyncio.run(latencies(ports["plugged in"], given.requests))
    plain, durable = median(waits[False]), median(waits[True])
    print(f"one token: {plain:.2f} ms, resumable {durable:.2f} ms, {durable - plain:.2f} ms more")
    pairs = sorted(a - b for a, b in zip(waits[True], waits[False], strict=True))
    print(
        f"the row: {median(pairs):.2f} ms ({pairs[len(pairs) // 4]:.2f} to "
        f"{pairs[3 * len(pairs) // 4]:.2f} in half of {len(pairs)} pairs)"
    )


if __name__ == "__main__":
    main()
