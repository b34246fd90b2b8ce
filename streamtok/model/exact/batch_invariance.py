"""Batch invariance: products cut so that a row's bits do not depend on the other rows.

Theory of operation
-------------------

The promise: the logits of a sequence are the same bits whether it runs alone or among others, in
whatever slot, and however its prompt was cut into steps. A seed then gives the same text whatever
else the server does, and a cached prefix is as good as one computed anew.

Why it needs work: floating-point addition is not associative, and a BLAS chooses the order in which
it adds by the shape of the matrices and by where in them a row is. `x @ w.T` of one row differs in
the last bits from the same row in a batch of eight. Now and then one such bit decides between two
tokens of nearly the same score, and from there on the texts differ.

How it is kept: every product is made of small ones, whose kernel adds up each element in the same
order wherever it is. A weight [out, in] is cut into panels of some output columns, each row's dot
products being whole in every panel: the number of terms is never cut. The rows are cut into tiles
and padded with zeros to full ones; a row of zeros costs time but changes no other. Which panel or
tile is computed by which thread, and in which order, does not matter, since no sum crosses them.
Attention sums over positions, of which a text has more and more: they are cut into blocks of
fixed length, whose sums are added in the order of time, and what is not there yet or belongs to
nobody has the weight exp(-inf) = 0 (`streamtok.model.attention`). All else (norms, activations,
rotations) is computed row by row.

Which small products are safe depends on the BLAS. Where its inner kernel can be called by itself,
that is often best (`streamtok.model.machine.kernel`). Else there are two ways to cut:

- FREE: any even number of rows, as long as the product is small. So it is with OpenBLAS on
  processors with AVX-512, whose kernels for small matrices add up each element term by term.
- FIXED: tiles of eight rows, or of four at the end. So it is with its kernels for AVX2.

Neither is assumed: at start `streamtok.model.machine.calibration` tries on the machine
itself what holds, and says so if nothing does. The same problem on GPUs, with the same answer, is
described in "Defeating Nondeterminism in LLM Inference" (Thinking Machines Lab, 2025).

Read next: `streamtok.model.exact.linear`.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from msgspec import Struct

from streamtok.model.weights import Array

PANELS = (32, 64, 16)  # output columns of one product
SMALL = 10**6  # multiply-adds of the largest product that OpenBLAS takes for a small one
TILE = 8  # most rows of one product where they are FIXED
TALL = 32  # most rows of one product in attention where they are FREE
BLOCK = 96  # positions of one product in attention
PAIR = 2  # rows of one product in attention where products are FIXED, and the least elsewhere
STRIDE = 16  # positions of a strip of keys; a shorter block has whole ones where products are FREE


def padded(count: int, multiple: int) -> int:
    """Return `count` rounded up to a multiple of `multiple`."""
    return -(-count // multiple) * multiple


class Cut(Struct, frozen=True):
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


def free_cut(inner: int, panel: int) -> Cut:
    """Return the FREE way to cut products of `inner` terms."""
    return Cut(panel, 2, max(2, SMALL // (inner * panel) // 2 * 2))


def fixed_cut(inner: int, panel: int) -> Cut:
    """Return the FIXED way to cut products, of however many terms."""
    return Cut(panel, TILE // 2, TILE)


class Tiling(Struct, frozen=True):
    """How a model's products are cut: `cuts` by their number of terms.

    `free` is whether any number of rows, and of positions in attention, is as good as another.
    `exact` is whether a row is the same bits in any batch. A pass of `cheap` rows takes hardly
    longer than the least: memory is the limit. A pass may also have `least` rows, unless that is 0.
    """

    free: bool
    exact: bool
    cuts: Mapping[int, Cut]
    cheap: int
    least: int = 0

    def padded(self, rows: int) -> int:
        """Return how many rows products of a pass have, of which so many are of use."""
        if 0 < rows <= self.least:
            return self.least
        return padded(rows, next(iter(self.cuts.values())).granule)

    def tile(self, queries: int) -> int:
        """Return how many rows one product of attention has, for `queries` of a sequence."""
        return padded(-(-queries // -(-queries // TALL)), PAIR) if self.free else PAIR

    def block(self, positions: int) -> int:
        """Return how many positions one product of attention has, for as many cached ones."""
        return padded(positions, STRIDE) if self.free and positions <= BLOCK else BLOCK


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
