"""What resumable streams cost: nothing where nobody asks for them; and else, how much.

usage: resume.py [--model FOLDER] [--rounds 6] [--tokens 60] [--requests 100] [--before FOLDER]
       resume.py --count [--model FOLDER] [--rounds 6] [--tokens 60]

Two servers of this checkout run beside each other, one of them without what makes streams
resumable. In each round both serve thirty-two streams, and the first also thirty-two resumable
ones. Then requests for one token are sent one after the other, with and without it: the difference
is what the row costs that is on the disk before the response begins. `--before` is another
checkout, whose server is a third. Shown are medians of the ratios between runs of the same round,
with the least and the greatest: of the rate, and of the processor time that the server's process,
without its engine's, took for a token (Linux), which a busy machine disturbs less. `--count` counts
the bytecode instructions that the server's event loop executes for a token instead, with and
without, which no other process disturbs: times cannot show a difference of one in a hundred.
"""

import argparse
import asyncio
import json
import os
import signal
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
COUNTED = """
import signal, sys
executed = 0
def trace(frame, event, argument):
    global executed
    frame.f_trace_lines, frame.f_trace_opcodes = False, True
    executed += event == "opcode"
    return trace
signal.signal(signal.SIGUSR1, lambda *_: print(executed, flush=True))
sys.settrace(trace)
"""


@contextmanager
def server(program: str, root: Path, model: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Run a server of the checkout `root` with a ledger in a file; yield its port and process."""
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
                        yield int(line.partition(READY)[2]), process
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


def processor_s(pid: int) -> float:
    """Return the processor time of a process so far."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


async def ask_all(port: int, tokens: int, *, resumable: bool) -> None:
    """Read thirty-two streams at once."""
    asked = (ask(port, number, tokens, resumable=resumable) for number in range(STREAMS))
    await asyncio.gather(*asked)


def run(
    server: tuple[int, subprocess.Popen[str]], tokens: int, *, resumable: bool
) -> tuple[float, float]:
    """Return the tokens per second of all streams together, and the processor time of a token."""
    port, process = server
    before_s, started_s = processor_s(process.pid), time.perf_counter()
    asyncio.run(ask_all(port, tokens, resumable=resumable))
    took_s, count = time.perf_counter() - started_s, STREAMS * tokens
    return count / took_s, (processor_s(process.pid) - before_s) / count


def instructions(server: tuple[int, subprocess.Popen[str]], tokens: int) -> float:
    """Return the instructions that the event loop executes for a token of plain streams."""

    def executed() -> int:
        process.send_signal(signal.SIGUSR1)
        assert process.stdout is not None
        return int(process.stdout.readline())

    port, process = server
    before = executed()
    asyncio.run(ask_all(port, tokens, resumable=False))
    return (executed() - before) / (STREAMS * tokens)


def count(rounds: int, tokens: int, model: str) -> None:
    """Print how many instructions a token takes, with and without what makes streams resumable."""
    with ExitStack() as stack:
        programs = {"not plugged in": UNPLUGGED, "plugged in": PLUGGED}
        servers = {
            name: stack.enter_context(server(COUNTED + program, ROOT, model))
            for name, program in programs.items()
        }
        seen: dict[str, list[float]] = {name: [] for name in servers}
        for number in range(rounds + 1):
            for name, server_ in servers.items():
                found = instructions(server_, tokens)
                if number:  # the first round warms them up
                    seen[name].append(found)
    for name, found in seen.items():
        spread = f"{min(found):.1f} to {max(found):.1f}"
        print(f"{name}: {median(found):.1f} instructions a token ({spread})")
    print(f"ratio: {show(seen['plugged in'], seen['not plugged in'])}")


async def latencies(port: int, requests: int) -> dict[bool, list[float]]:
    """Return how long requests for one token take, in ms, resumable ones and others in turn."""
    found: dict[bool, list[float]] = {True: [], False: []}
    for number in range(requests):
        for resumable in (True, False):
            started_s = time.perf_counter()
            await ask(port, number, 1, resumable=resumable)
            found[resumable].append(1000 * (time.perf_counter() - started_s))
    return found


def show(found: Sequence[float], others: Sequence[float]) -> str:
    """Return how many times `others` `found` is, round by round."""
    ratios = [one / other for one, other in zip(found, others, strict=True)]
    return f"{median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="", help="folder of a model")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=60, help="of each stream")
    parser.add_argument("--requests", type=int, default=100, help="for one token")
    parser.add_argument("--before", type=Path, help="another checkout")
    parser.add_argument("--count", action="store_true", help="instructions instead of times")
    given = parser.parse_args()
    if given.count:
        count(given.rounds, given.tokens, given.model)
        return
    with ExitStack() as stack:
        programs = {"not plugged in": (UNPLUGGED, ROOT), "plugged in": (PLUGGED, ROOT)}
        if given.before:
            programs["before"] = (PLUGGED, given.before)
        servers = {
            name: stack.enter_context(server(program, root, given.model))
            for name, (program, root) in programs.items()
        }
        runs = [(name, server, False) for name, server in servers.items()]
        runs.append(("asked for", servers["plugged in"], True))
        seen: dict[str, list[tuple[float, float]]] = {name: [] for name, _, _ in runs}
        for number in range(given.rounds + 1):
            for name, server_, resumable in runs if number % 2 else reversed(runs):
                found = run(server_, given.tokens, resumable=resumable)
                if number:  # the first round warms them up
                    seen[name].append(found)
        print(f"{STREAMS} streams of {given.tokens} tokens, {given.rounds} rounds")
        rates, costs = [{name: [one[i] for one in seen[name]] for name in seen} for i in (0, 1)]
        plain = "not plugged in"
        for name in seen:
            print(f"{name}: {median(rates[name]):.0f} tokens/s, {show(rates[name], rates[plain])};")
            print(
                f"    {1e6 * median(costs[name]):.0f} us a token, {show(costs[name], costs[plain])}"
            )
        waits = asyncio.run(latencies(servers["plugged in"][0], given.requests))
    alone, durable = median(waits[False]), median(waits[True])
    print(f"one token: {alone:.2f} ms, resumable {durable:.2f} ms")
    pairs = sorted(a - b for a, b in zip(waits[True], waits[False], strict=True))
    print(
        f"the row: {median(pairs):.2f} ms ({pairs[len(pairs) // 4]:.2f} to "
        f"{pairs[3 * len(pairs) // 4]:.2f} in half of {len(pairs)} pairs)"
    )


if __name__ == "__main__":
    main()
