"""Time to the first token over HTTP, of prompts of several lengths, beside llama.cpp's server.

usage: first_token.py [--model 15M] [--rounds 5] [--llama-server PATH]

Both servers are processes of their own with the same float32 weights and equally many threads, and
both are given token ids. The time is from the request, on a new connection, to the first event. No
prompt is asked for twice. The servers are asked in turn, and medians and the median ratio are
shown. Without llama.cpp's server (and gguf, to write the model for it) ours is measured alone.
"""

import argparse
import http.client
import importlib.util
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.clients import serving
from benchmarks.llama import made_up_texts, write_gguf
from benchmarks.models import CONTEXT, SIZES, prompt, write_model

from streamtok.model.machine.threads import available

LENGTHS, ROUNDS, TOKENS = (32, 128, 512, 900), 5, 4
START_S = 60.0
_seeds = count(5000)


@contextmanager
def llama_server(program: str, file: Path) -> Iterator[int]:
    """Serve a model with llama.cpp's server; give the port when it is ready."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    threads = str(available())
    flags = ["--port", str(port), "--ctx-size", str(CONTEXT), "--parallel", "1", "--no-webui"]
    flags += ["--threads", threads, "--threads-batch", threads, "--batch-size", str(CONTEXT)]
    flags += ["--cache-type-k", "f32", "--cache-type-v", "f32", "--no-warmup", "--log-disable"]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen([program, "--model", file, *flags], stdout=quiet, stderr=quiet)
    try:
        _wait(port, process)
        yield port
    finally:
        process.kill()
        process.wait()


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a server has loaded its model."""
    give_up_s = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < give_up_s:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise RuntimeError("llama.cpp's server does not start")


def first_s(port: int, path: str, body: dict[str, object]) -> float:
    """Return the seconds to the first event of a stream, which is then read to its end."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    begun_s = time.perf_counter()
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    line = answer.readline()
    took_s = time.perf_counter() - begun_s
    assert answer.status == 200, line
    assert line.startswith(b"data: "), line
    answer.read()
    connection.close()
    return took_s


def ours(port: int, ids: list[int]) -> float:
    """Ask this project's server."""
    body = {"prompt": ids, "max_tokens": TOKENS, "stream": True, "temperature": 0}
    return first_s(port, "/v1/completions", {**body, "ignore_eos": True})


def theirs(port: int, ids: list[int]) -> float:
    """Ask llama.cpp's server, which would otherwise keep the prompt's beginning."""
    body = {"prompt": ids, "n_predict": TOKENS, "stream": True, "temperature": 0}
    return first_s(port, "/completion", {**body, "ignore_eos": True, "cache_prompt": False})


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", choices=SIZES, default="15M")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="readings of each figure")
    parser.add_argument("--llama-server", default=shutil.which("llama-server"), metavar="PATH")
    given = parser.parse_args()
    beside = given.llama_server and importlib.util.find_spec("gguf")
    with TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary) / given.model
        write_model(folder, SIZES[given.model])
        here, there = stack.enter_context(serving(folder, 1)), 0
        if beside:
            write_gguf(folder, file := folder / "texts.gguf", made_up_texts)
            there = stack.enter_context(llama_server(given.llama_server, file))
        else:
            print("llama.cpp's server: not compared, needs --llama-server and gguf")
        for length in LENGTHS:
            times: list[tuple[float, float]] = []
            for number in range(given.rounds + 1):  # the first maps memory, and is not counted
                ids = prompt(length, next(_seeds))
                found = ours(here, ids), theirs(there, ids) if beside else 0.0
                times += [found] * (number > 0)
            line = f"{length} tokens: {1e3 * median(a for a, _ in times):.1f} ms"
            if beside:
                ratio = median(b / a for a, b in times)
                line += f", llama.cpp {1e3 * median(b for _, b in times):.1f} ms: {ratio:.2f}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
