"""How matrix products are cut, so that a row's bits do not depend on its company: found by trying.

A BLAS picks its kernel, and with it the order of additions, by the shape of the matrices and by
where in them a row stands. So `x @ w.T` for one stream differs in the last bits from the same row
in a batch of eight, and a sampled text can fork there. Here every product is made of small ones
whose kernel is always the same: the weight is cut into panels of some output columns, the rows into
tiles. Two ways are tried, with the BLAS at hand and the numbers of terms that a model has:

- FREE: any even number of rows, as long as the product is small. So it is with OpenBLAS on
  processors with AVX-512, whose kernels for small matrices add up each element term by term.
- FIXED: tiles of eight rows, or of four at the end. So it is with its kernels for AVX2.

The first that holds is taken; where neither does, FIXED, and the server says that it cannot promise
equal bits. Then the width of the panels is measured, among those that do not change a bit.

Read next: `streamtok.model.linear` and `streamtok.model.attention`, which cut.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from streamtok.model.weights import Array

log = logging.getLogger(__name__)

SMALL = 10**6  # multiply-adds of the largest product that OpenBLAS takes for a small one
TILE = 8  # most rows of one product in attention, and of all where they are FIXED
PANELS = (32, 64, 16)  # output columns of one product; the first is taken unless others are faster
BLOCK = 128  # positions of one product in attention
STRIDE = 16  # a shorter block is padded to a multiple of this, where products are FREE

MEASURED_BYTES = 4 * 2**20  # of the weight that panels are measured with: more than a core's cache
MEASURED_ROWS = (2, 4, 8, 16, 32)  # how many streams it is measured for
CHEAP = 1.15  # a step is as good as free if it takes this much longer at most


def padded(count: int, multiple: int) -> int:
    """Return `count` rounded up to a multiple of `multiple`."""
    return -(-count // multiple) * multiple


@dataclass(frozen=True, slots=True)
class Cut:
    """How products of one number of terms are cut: `panel` columns, `most` rows at once.

    Rows come in multiples of `granule`.
    """

    panel: int
    granule: int
    most: int

    def parts(self, rows: int) -> Iterator[slice]:
        """Yield the rows of each product, as equal in number as can be."""
        step = padded(-(-rows // -(-rows // self.most)), self.granule)
        for start in range(0, rows, step):
            yield slice(start, min(start + step, rows))


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a model's products are cut: `cuts` by their number of terms.

    Rows are padded to a multiple of `granule`. `free` is whether any number of them, and of
    positions in attention, is as good as another. `exact` is whether a row is the same bits in any
    company. As many as `cheap` rows take no longer than the least, because memory is the limit.
    """

    granule: int
    free: bool
    exact: bool
    cuts: Mapping[int, Cut]
    cheap: int

    def tile(self, queries: int) -> int:
        """Return how many rows one product of attention has, for `queries` of a sequence."""
        return min(padded(queries, self.granule), TILE)

    def block(self, positions: int) -> int:
        """Return how many positions one product of attention has, for as many cached ones."""
        return padded(positions, STRIDE) if self.free and positions <= BLOCK else BLOCK


def choose(terms: Iterable[int], head_dim: int) -> Tiling:
    """Return how to cut products of each of the numbers of `terms`, and attention's of `head_dim`."""
    terms = sorted(set(terms))
    free = _is_exact(terms, head_dim, free=True)
    exact = free or _is_exact(terms, head_dim, free=False)
    granule = 2 if free else 4
    cuts, times = {}, []
    for inner in terms:
        cuts[inner], seconds = _fastest(inner, free)
        times.append(seconds)
    total = np.add.reduce(times)  # [MEASURED_ROWS]
    cheap = max(
        rows
        for rows, seconds in zip(MEASURED_ROWS, total, strict=True)
        if rows == MEASURED_ROWS[0] or seconds <= CHEAP * total[0]
    )
    log.info(
        "matrix products: %s; panels of %s",
        "any number of rows" if free else f"tiles of {TILE} rows",
        ", ".join(f"{cut.panel} columns for {inner} terms" for inner, cut in cuts.items()),
    )
    return Tiling(granule, free, exact, cuts, max(cheap, granule))


def multiply(x: Array, panels: Array, cut: Cut, out: Array) -> None:
    """Write `x` [rows, in] times `panels` [P, in, panel] into `out` [rows, P * panel].

    `rows` is a multiple of the cut's granule; a row of either array is contiguous.
    """
    columns = out.reshape(len(x), len(panels), cut.panel).transpose(1, 0, 2)  # [P, rows, panel]
    if len(x) <= cut.most:
        np.matmul(x, panels, out=columns)
        return
    for part in cut.parts(len(x)):
        np.matmul(x[part], panels, out=columns[:, part])


def _cut(inner: int, panel: int, free: bool) -> Cut:
    if not free:
        return Cut(panel, TILE // 2, TILE)
    return Cut(panel, 2, max(2, SMALL // (inner * panel) // 2 * 2))


def _is_exact(terms: Iterable[int], head_dim: int, free: bool) -> bool:
    """Try whether rows are the same bits in any company."""
    random = np.random.default_rng(0)
    with np.errstate(all="ignore"):
        return _attention_is_exact(head_dim, free, random) and all(
            _rows_are_alike(inner, _cut(inner, PANELS[0], free), random) for inner in terms
        )


def _rows_are_alike(inner: int, cut: Cut, random: np.random.Generator) -> bool:
    """Try every number of rows up to the largest product, and some that take several."""
    panels = random.standard_normal((2, inner, cut.panel), np.float32)  # [P, in, panel]
    row = random.standard_normal(inner, np.float32)  # [in]
    counts = {*range(cut.granule, min(cut.most, 64) + 1, cut.granule), cut.most + cut.granule}
    return _alike(
        _products(np.tile(row, (count, 1)), panels, cut) for count in sorted(counts)
    ) and _alike(np.vecdot(x, x)[:, None] for x in (np.tile(row, (n, 1)) for n in (1, 3, 8)))


def _attention_is_exact(head_dim: int, free: bool, random: np.random.Generator) -> bool:
    """Try the products of attention, with every length of a block that there is."""
    keys = random.standard_normal((BLOCK, head_dim), np.float32)  # [BLOCK, E]
    query = random.standard_normal(head_dim, np.float32)  # [E]
    weights = random.random(BLOCK, np.float32)  # [BLOCK]
    weights[STRIDE:] = 0
    lengths = range(STRIDE, BLOCK + 1, STRIDE) if free else [BLOCK]
    tiles = range(2, TILE + 1, 2) if free else (TILE // 2, TILE)
    tried = [(length, tile) for length in lengths for tile in tiles]
    return _alike(
        (np.tile(query, (tile, 1)) @ keys[:length].T)[:, :STRIDE] for length, tile in tried
    ) and _alike(np.tile(weights[:length], (tile, 1)) @ keys[:length] for length, tile in tried)


def _products(x: Array, panels: Array, cut: Cut) -> Array:
    """Return `x` [rows, in] times `panels` [P, in, panel]: [rows, P * panel]."""
    out = np.empty((len(x), len(panels) * cut.panel), np.float32)  # [rows, P * panel]
    multiply(x, panels, cut, out)
    return out


def _alike(results: Iterable[Array]) -> bool:
    """Say whether all rows of all `results` are the same bits."""
    results = iter(results)
    first = next(results)
    return bool((first == first[0]).all()) and all((r == first[0]).all() for r in results)


def _fastest(inner: int, free: bool) -> tuple[Cut, list[float]]:
    """Return the best cut for products of `inner` terms, and what it takes with MEASURED_ROWS."""
    random = np.random.default_rng(0)
    columns = padded(max(1, MEASURED_BYTES // (4 * inner)), max(PANELS))
    weight = random.standard_normal((inner, columns), np.float32)  # [in, out]
    best: tuple[float, Cut, list[float]] | None = None
    same: Array | None = None
    for panel in PANELS:
        cut = _cut(inner, panel, free)
        panels = np.ascontiguousarray(weight.reshape(inner, -1, panel).swapaxes(0, 1))
        result = _products(weight[:8].repeat(inner, axis=1)[:, :inner].copy(), panels, cut)
        if same is not None and not np.array_equal(result, same):
            continue  # else a chance of the measurement would decide about bits
        same = result
        seconds = [_measure(panels, cut, rows) for rows in MEASURED_ROWS]
        score = float(np.add.reduce(np.log(seconds)))
        if best is None or score < best[0]:
            best = (score, cut, seconds)
    assert best is not None
    return best[1], best[2]


def _measure(panels: Array, cut: Cut, rows: int) -> float:
    """Return the seconds that a product with `rows` rows takes, the best of three."""
    x = np.zeros((padded(rows, cut.granule), panels.shape[1]), np.float32)  # [rows, in]
    out = np.empty((len(x), len(panels) * cut.panel), np.float32)  # [rows, P * panel]
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        multiply(x, panels, cut, out)
        seconds.append(time.perf_counter() - start)
    return min(seconds)
