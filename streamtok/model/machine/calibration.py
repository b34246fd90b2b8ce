"""Finds how products are best cut on this machine, by trying: what is exact, and what is fast.

With the BLAS at hand and the numbers of terms that a model has, the kernel itself is taken where it
can be called, is worth it and gives a row the same bits in any batch
(`streamtok.model.machine.kernel`), else the FREE way if that does, else the FIXED one, and if that
does not hold either the server says that it cannot promise equal bits. The width of the panels is
then measured, among those that do not change a bit: else a chance of the measurement would decide
about a text.
"""

import logging
import time
from collections.abc import Callable, Iterable

import numpy as np

from streamtok.model.exact.batch_invariance import (
    BLOCK,
    PAIR,
    PANELS,
    STRIDE,
    TALL,
    TILE,
    Cut,
    Tiling,
    fixed_cut,
    free_cut,
    multiply,
    padded,
)
from streamtok.model.exact.linear import Arena
from streamtok.model.machine.kernel import PANEL, Kernel
from streamtok.model.weights import Array

log = logging.getLogger(__name__)

ROWS = (2, 4, 8, 16, 32)  # streams that panels are measured for
LARGEST = 2**22  # numbers in a weight that is measured: far more than a core's own cache holds
KERNEL_ROWS = (4, 8, 16, 20, 24, 40, 80, 120)  # whose bits are compared, with those of the least
CHEAP = 4  # rows take hardly longer than one; not measured, since it decides how choices take turns


def calibrate(
    shapes: Iterable[tuple[int, int]], head_dim: int, kernel: Kernel | None = None
) -> Tiling:
    """Return how to cut products with weights of `shapes`, each [out, in], and attention's.

    It is for `kernel` if the result has `least` rows.
    """
    widths: dict[int, int] = {}  # of the widest weight, by the number of terms
    for out, inner in shapes:
        widths[inner] = max(padded(out, max(PANELS)), widths.get(inner, 0))
    free = _attention_is_exact(head_dim, free=True) and all(
        _rows_are_exact(free_cut(inner, PANELS[0]), inner) for inner in widths
    )
    fixed = not free and _attention_is_exact(head_dim, free=False)
    worth_it = kernel is not None and kernel.terms <= min(widths) and (free or fixed)
    if kernel and worth_it and all(_kernel_is_exact(kernel, inner) for inner in widths):
        log.info("matrix products: by OpenBLAS's kernel, on packed weights")
        cuts = {inner: kernel.cut(inner) for inner in widths}
        return Tiling(free, True, cuts, CHEAP if free else PANEL, kernel.least)
    exact = free or (
        fixed and all(_rows_are_exact(fixed_cut(inner, PANELS[0]), inner) for inner in widths)
    )
    sizes = {inner: inner * out for inner, out in widths.items()}
    stopwatch = Stopwatch(min(max(sizes.values()), LARGEST))
    cuts = {
        inner: _fastest(stopwatch, inner, out, free_cut if free else fixed_cut)
        for inner, out in widths.items()
    }
    log.info(
        "matrix products: %s; panels of %s",
        "any number of rows" if free else f"tiles of {TILE} rows",
        ", ".join(f"{cut.panel} columns for {inner} terms" for inner, cut in cuts.items()),
    )
    return Tiling(free, exact, cuts, CHEAP)


class Stopwatch:
    """Times products, with weights of up to `size` numbers."""

    def __init__(self, size: int) -> None:
        self._memory = Arena().zeros((size,))  # laid out as weights are

    def time(self, inner: int, out: int, cut: Cut, rows: int) -> float:
        """Return the seconds a product of `rows` rows takes, the best of three."""
        count = min(inner * out, len(self._memory)) // (inner * cut.panel)
        panels = self._memory[: count * inner * cut.panel].reshape(count, inner, cut.panel)
        x = np.zeros((padded(rows, cut.granule), inner), np.float32)  # [rows, in]
        room = np.empty((len(x), count * cut.panel), np.float32)  # [rows, P * panel]
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            multiply(x, panels, cut, room)
            seconds.append(time.perf_counter() - start)
        return min(seconds)


def _fastest(stopwatch: Stopwatch, inner: int, out: int, cut_of: Callable[[int, int], Cut]) -> Cut:
    """Return the best cut for products with a weight of `out` columns and `inner` terms."""
    random = np.random.default_rng(0)
    weight = random.standard_normal((inner, max(PANELS)), np.float32)  # [in, out]
    x = random.standard_normal((TILE, inner), np.float32)  # [TILE, in]
    found: list[tuple[float, int, Cut]] = []
    same: Array | None = None
    for panel in PANELS:
        cut = cut_of(inner, panel)
        panels = np.ascontiguousarray(weight.reshape(inner, -1, panel).swapaxes(0, 1))
        result = _products(x, panels, cut)  # [TILE, out]
        same = result if same is None else same
        if np.array_equal(result, same):
            seconds = [stopwatch.time(inner, out, cut, rows) for rows in ROWS]
            found.append((float(np.add.reduce(np.log(seconds))), panel, cut))
    return min(found)[2]


def _rows_are_exact(cut: Cut, inner: int) -> bool:
    """Try every number of rows that one product can have, and some that take several."""
    random = np.random.default_rng(0)
    panels = random.standard_normal((2, inner, cut.panel), np.float32)  # [P, in, panel]
    row = random.standard_normal(inner, np.float32)  # [in]
    counts = [*range(cut.granule, min(cut.most, 64) + 1, cut.granule), cut.most + cut.granule]
    return _alike(_products(np.tile(row, (count, 1)), panels, cut) for count in counts) and _alike(
        np.vecdot(x, x)[:, None] for x in (np.tile(row, (n, 1)) for n in (1, 3, 8))
    )


def _kernel_is_exact(kernel: Kernel, inner: int) -> bool:
    """Try some numbers of rows, with a weight in several blocks, and whether it is the product."""
    random = np.random.default_rng(0)
    count = 40  # panels
    panels = random.standard_normal((count, inner, kernel.panel), np.float32)  # [P, in, panel]
    x = random.standard_normal((max(KERNEL_ROWS), inner), np.float32)  # [rows, in]

    def by_kernel(rows: Array) -> Array:
        out = np.empty((len(rows), count * kernel.panel), np.float32)  # [rows, P * panel]
        kernel.multiply(rows, panels, out)
        return out

    fewest = np.split(x, len(x) // kernel.least)
    expected = np.concatenate([by_kernel(rows) for rows in fewest])  # [rows, P * panel]
    product = x @ panels.swapaxes(0, 1).reshape(inner, -1)  # [rows, P * panel]
    counts = {padded(rows, kernel.cut(inner).granule) for rows in KERNEL_ROWS}
    return np.allclose(expected, product, rtol=1e-3, atol=1e-3 * inner**0.5) and all(
        np.array_equal(by_kernel(x[:rows]), expected[:rows]) for rows in counts
    )


def _attention_is_exact(head_dim: int, free: bool) -> bool:
    """Try the products of attention, with every length of a block that there is."""
    random = np.random.default_rng(0)
    keys = random.standard_normal((head_dim, STRIDE), np.float32)  # [E, STRIDE]
    values = random.standard_normal((BLOCK, head_dim), np.float32)  # [BLOCK, E]
    query = random.standard_normal(head_dim, np.float32)  # [E]
    weights = random.random(BLOCK, np.float32)  # [BLOCK]
    weights[STRIDE:] = 0
    lengths = range(STRIDE, BLOCK + 1, STRIDE) if free else [BLOCK]
    tiles = range(PAIR, TALL + 1, PAIR) if free else [PAIR]
    return _alike(np.tile(query, (tile, 1)) @ keys for tile in tiles) and _alike(
        np.tile(weights[:length], (tile, 1)) @ values[:length]
        for length in lengths
        for tile in tiles
    )


def _products(x: Array, panels: Array, cut: Cut) -> Array:
    """Return `x` [rows, in] times `panels` [P, in, panel]: [rows, P * panel]."""
    out = np.empty((len(x), len(panels) * cut.panel), np.float32)  # [rows, P * panel]
    multiply(x, panels, cut, out)
    return out


def _alike(results: Iterable[Array]) -> bool:
    """Say whether all rows of all `results` are the same bits."""
    rows = [row for result in results for row in result]
    return all(np.array_equal(row, rows[0]) for row in rows)
