"""Where the time of a prompt and of a token goes, beside what the machine would allow.

One stream's tokens and prompts of some lengths are computed with a watch on each kind of work; what
is given is the processor time of all threads, of the fastest of some runs. The floor of a prompt is
what the products of the layers would take if they ran like a large square product on as many
threads, that of a token the time in which all weights are read once; with nothing else to do.
Watches cost about a microsecond for each piece of work, and a stream's have its prompt, too.
"""

import argparse
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import engine
from benchmarks.engine import Limits, decode_rate, prefill_rate
from benchmarks.models import SIZES, write_model

from streamtok.model import attention as small
from streamtok.model import batch, decoder
from streamtok.model.base import Decoder
from streamtok.model.exact import linear
from streamtok.model.load import load
from streamtok.model.machine import kernel
from streamtok.model.wide import attention, matrices, product

LENGTHS, RUNS, TOKENS = (32, 128, 512, 900), 5, 100
WORD = 4  # bytes of a float32
WATCHED: tuple[tuple[Any, str, str], ...] = (  # where, what, and the kind of work it is
    (kernel.Kernel, "_run", "products"),
    (kernel.Avx2Kernel, "fill", "products: clearing, edges"),
    (kernel.Avx512Kernel, "fill", "products: clearing, edges"),
    (kernel.Kernel, "pack", "products: packing rows"),
    (product.WideMatrix, "__call__", "products"),
    (product.WideMatrix, "join", "products: joining panels"),
    (linear, "multiply", "products"),
    (kernel, "multiply", "products"),
    (matrices, "multiply", "products"),
    (attention.WideAttention, "attend", "attention: scores"),
    (attention.WideAttention, "_softmax", "attention: softmax"),
    (attention.WideAttention, "_gather", "attention: values"),
    (attention, "_sum", "attention: softmax"),
    (small.Rows, "attend", "attention in small products"),
    (batch.Batch, "store", "storing keys and values"),
    (decoder.LlamaDecoder, "project", "norms, rotations, residual stream"),
    (decoder.LlamaDecoder, "close", "norms, rotations, residual stream"),
    (decoder, "_norm", "norms, rotations, residual stream"),
    (decoder, "activate", "activation"),
    (engine, "draw", "sampling"),
)


class Watch:
    """Adds up the seconds of each kind of work, in all threads; what work contains is not its."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._within = threading.local()

    def on(self, owner: Any, name: str, kind: str) -> None:
        """Watch function `name` of a module or class."""
        work = getattr(owner, name)

        def watched(*args: Any, **options: Any) -> Any:
            within = self._within.__dict__.setdefault("seconds", [0.0])
            within.append(0.0)
            begun_s = time.perf_counter()
            try:
                return work(*args, **options)
            finally:
                taken = time.perf_counter() - begun_s
                self.seconds[kind] += taken - within.pop()
                within[-1] += taken

        setattr(owner, name, watched)


def fastest(run: Callable[[], float], watch: Watch) -> tuple[float, dict[str, float]]:
    """Return the seconds of the fastest of some runs, and what they were spent on."""
    found = []
    for _ in range(RUNS):
        watch.seconds.clear()
        found.append((run(), dict(watch.seconds)))
    return min(found, key=lambda one: one[0])


def show(what: str, watch: Watch, threads: int, floor: float, run: Callable[[], float]) -> None:
    """Print where the seconds that `run` returns go, beside those at least needed."""
    run()
    seconds, kinds = fastest(run, watch)
    print(
        f"\n{what}: {seconds * 1e3:.1f} ms; floor {floor * 1e3:.1f} ms, {floor / seconds:.2f} of it"
    )
    whole = threads * seconds
    rest = {"waiting, and the rest": whole - sum(kinds.values())}
    for kind, taken in sorted((kinds | rest).items(), key=lambda one: -one[1]):
        print(f"  {taken / whole:6.1%} {taken * 1e3:8.2f} ms  {kind}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("size", nargs="?", choices=SIZES, default="15M", help="of the model")
    parser.add_argument("threads", nargs="?", type=int, default=2, help="of the engine")
    arguments = parser.parse_args()
    size, threads = arguments.size, arguments.threads
    with TemporaryDirectory() as text:
        folder = Path(text) / "model"
        write_model(folder, SIZES[size])
        model = load(folder, threads)
        limits = Limits(threads)
        flops, bandwidth = limits.flops(), limits.bandwidth()
        print(
            f"{size}, {threads} threads; large products: {flops / 1e9:.0f} GFLOP/s, "
            f"memory: {bandwidth / 1e9:.1f} GB/s"
        )
        watch = Watch()
        for watched in WATCHED:
            watch.on(*watched)
        weights = model.config.parameters  # the embedding is read as the head
        floor = TOKENS * weights * WORD / bandwidth
        show(f"{TOKENS} tokens of a stream", watch, threads, floor, lambda: stream(model))
        layers = weights - model.config.vocab * model.config.dim
        for length in LENGTHS:
            run = partial(prompt, model, length)
            show(f"{length} tokens of a prompt", watch, threads, 2 * layers * length / flops, run)


def stream(model: Decoder) -> float:
    """Return the seconds in which one stream gets `TOKENS` tokens."""
    return TOKENS / decode_rate(model, 1, TOKENS)


def prompt(model: Decoder, length: int) -> float:
    """Return the seconds until the first token after a prompt."""
    return length / prefill_rate(model, length)


if __name__ == "__main__":
    main()
