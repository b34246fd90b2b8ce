"""How fast the engine is, beside what the machine allows, and what of it reaches clients.

    python scripts/bench/bench.py [--model 15M] [--part engine] [--threads 1] [--json F] [--png F]

Models of random weights are written as real files. The engine is the loop plan, run, draw, commit
without guesses; what the machine allows as many threads, and Hugging Face transformers and
llama.cpp where they are installed, are measured in turn with it. The server is `python -m streamtok
serve` in a process of its own, its clients are sockets in this one, and the engine it is compared
with runs in turn with it. Each figure is the median of some rounds. `chunks.py` measures events
without a model, `first_token.py` prompts beside llama.cpp's server, `connections.py` memory,
`loop.py` the event loop, `start.py` the start.
"""

import argparse
import asyncio
import importlib.util
import json
import platform
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from benchmarks import peers, report, server
from benchmarks.clients import serving
from benchmarks.engine import Limits, decode_rate, prefill_rate
from benchmarks.models import SIZES, write_model
from benchmarks.rounds import Rounds
from rich.progress import Progress

from streamtok.model.base import Decoder
from streamtok.model.load import load
from streamtok.model.machine.threads import available

BATCHES, PREFILLS, STREAMS = (1, 2, 4, 8, 16, 32), (32, 128, 512, 900), (1, 8, 32, 64)
WORD = 4  # bytes of a float32


def measure_engine(
    folder: Path, threads: int, rounds: int, tokens: int, progress: Progress
) -> tuple[dict[str, Any], list[str]]:
    """Return what the engine does alone, and what others could not be compared."""
    decoder = load(folder, threads)
    others, missing = peers.load(folder, threads)
    limits, weights = Limits(threads), decoder.config.parameters
    cases = rounds * (2 + (len(BATCHES) + len(PREFILLS)) * (1 + len(others)))
    found = Rounds(progress, "engine", cases)
    for _ in range(rounds):
        bandwidth = limits.bandwidth()
        memory = bandwidth / (weights * WORD)  # tokens a second
        found.add("memory", bandwidth=bandwidth, tokens_per_s=memory)
        one = 0.0
        for streams in BATCHES:
            ours = decode_rate(decoder, streams, tokens)
            one = one or ours
            found.add(f"{streams}", tokens_per_s=ours, of_memory=ours / memory, of_one=ours / one)
            for name, peer in others.items():
                theirs = peer.decode(streams, tokens)
                found.add(f"{name} {streams}", tokens_per_s=theirs, ahead=ours / theirs)
        flops = limits.flops()
        found.add("products", flops=flops)
        for length in PREFILLS:
            ours = prefill_rate(decoder, length)
            share = ours * layer_flops(decoder) / flops
            found.add(f"prefill {length}", tokens_per_s=ours, share_of_products=share)
            for name, peer in others.items():
                theirs = peer.prefill(length)
                found.add(f"{name} prefill {length}", tokens_per_s=theirs, ahead=ours / theirs)
    return {
        "threads": threads,
        "memory": found.middle("memory"),
        "products": found.middle("products"),
        "decode": {str(n): found.middle(f"{n}") for n in BATCHES},
        "prefill": {str(n): found.middle(f"prefill {n}") for n in PREFILLS},
        "peers": {name: {str(n): found.middle(f"{name} {n}") for n in BATCHES} for name in others},
        "peers_prefill": {
            name: {str(n): found.middle(f"{name} prefill {n}") for n in PREFILLS} for name in others
        },
    }, missing


def layer_flops(decoder: Decoder) -> int:
    """Return the operations of one position in the layers: the head is for the last one only."""
    config = decoder.config
    return 2 * (config.parameters - config.vocab * config.dim)


def measure_server(folder: Path, rounds: int, tokens: int, progress: Progress) -> dict[str, Any]:
    """Return what clients see of a server, and how much of the engine's own speed that is."""
    decoder = load(folder)
    found = Rounds(progress, "server", rounds * (len(STREAMS) + 2))
    with serving(folder, max(STREAMS)) as port:
        asyncio.run(server.load(port, max(STREAMS), 1))  # memory is mapped, and not counted
        for _ in range(rounds):
            for streams in STREAMS:
                alone = decode_rate(decoder, streams, tokens)
                seen = asyncio.run(server.load(port, streams, tokens))
                share = seen["tokens_per_s"] / alone
                found.add(str(streams), engine_alone=alone, engine_share=share, **seen)
            found.add("long prompt", **asyncio.run(server.intrude(port)))
            found.add("prefix", **asyncio.run(server.repeat(port)))
    return {
        "streams": {str(n): found.middle(str(n)) for n in STREAMS},
        "long_prompt": found.middle("long prompt"),
        "prefix": found.middle("prefix"),
    }


def machine() -> str:
    """Return what this runs on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    processor = f"{len(names)} cores of {names[0]}" if names else platform.processor()
    wide = ", AVX-512" if any(" avx512f" in line for line in lines) else ""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{processor}{wide}, {platform.system()}, {python}, numpy {np.__version__}"


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", choices=SIZES, help="measure this size only")
    parser.add_argument("--part", choices=("engine", "server"), help="measure this part only")
    parser.add_argument(
        "--threads", type=int, default=available(), help="those of the engine and its peers"
    )
    parser.add_argument("--rounds", type=int, default=3, help="readings of each figure")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each stream")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw them there")
    given = parser.parse_args()
    if given.png and not importlib.util.find_spec("matplotlib"):
        parser.error("--png needs matplotlib, which `pip install '.[train]'` brings")
    results: dict[str, Any] = {"date": date.today().isoformat(), "machine": machine()}
    results |= {"models": {}, "notes": []}
    with TemporaryDirectory() as temporary, ExitStack() as stack:
        progress = stack.enter_context(Progress())
        for name in [given.model] if given.model else SIZES:
            folder = Path(temporary) / name
            write_model(folder, SIZES[name])
            found, how = {}, (given.rounds, given.tokens, progress)
            if given.part != "server":
                found["engine"], missing = measure_engine(folder, given.threads, *how)
                results["notes"] += [note for note in missing if note not in results["notes"]]
            if given.part != "engine":
                found["server"] = measure_server(folder, *how)
                results["notes"] += report.notes(name, found["server"])
            results["models"][name] = found
    report.show(results)
    if given.json:
        given.json.write_text(json.dumps(results, indent=2) + "\n")
    if given.png:
        report.draw(results, given.png)


if __name__ == "__main__":
    main()
