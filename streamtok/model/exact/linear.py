"""Matrix products whose rows are bitwise independent of each other, and fast.

A weight is stored as panels of some output columns (`streamtok.model.exact.batch_invariance`
says how many). One call of `np.matmul` broadcasts one small product over all of them: each stays in
cache and needs no copy, where a BLAS would otherwise rearrange the whole weight in every call. The
panels of a large product are shared among threads.

Read next: `streamtok.engine.verifier`.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from streamtok.model.exact.batch_invariance import PANELS, Tiling, multiply, padded
from streamtok.model.weights import Array

SLAB_BYTES = 32 * 2**20
ALIGNMENT = 64  # bytes: a cache line

PART = 2**24  # multiply-adds: most of what a thread takes of a product at once, about 0.3 ms, and
# least of a product that is shared: to wake another core takes up to 0.1 ms
FULL = 16  # rows: fewer take hardly less time, which is the memory's


class Threads(Protocol):
    """Threads that share a product's panels: `streamtok.model.machine.threads`."""

    count: int

    def share(self, parts: range, work: Callable[[int], None]) -> None:
        """Call `work` once for each of `parts`, in any order; return when all is done."""


class Arena:
    """Allocates arrays next to each other in few large pieces of memory.

    For large pieces numpy asks the system for huge pages, which it does not do for a small matrix.
    """

    def __init__(self) -> None:
        self._slab = np.empty(0, np.uint8)

    def zeros(self, shape: tuple[int, ...]) -> Array:
        """Return a new array of zeros, float32."""
        size = padded(4 * int(np.prod(shape)), ALIGNMENT)
        if size > len(self._slab):
            slab = np.empty(max(SLAB_BYTES, size) + ALIGNMENT, np.uint8)
            self._slab = slab[-slab.ctypes.data % ALIGNMENT :]
        array = self._slab[: 4 * int(np.prod(shape))].view(np.float32).reshape(shape)
        self._slab = self._slab[size:]
        array[:] = 0
        return array


class Linear:
    """`y = x @ weight.T`, from a checkpoint's [out, in] weight.

    `width` is `out` rounded up to panels of any width; the columns beyond `out` are zero.
    """

    def __init__(self, weight: Array, tiling: Tiling, arena: Arena, threads: Threads) -> None:
        out, inner = weight.shape
        self._threads = threads
        self._cut = cut = tiling.cuts[inner]
        self.width = padded(out, max(PANELS))
        self.panels = arena.zeros((self.width // cut.panel, inner, cut.panel))  # [P, in, panel]
        whole, rest = divmod(out, cut.panel)
        columns = self.panels.swapaxes(1, 2)  # [P, panel, in]
        columns[:whole] = weight[: out - rest].reshape(whole, cut.panel, inner)
        columns[whole : whole + 1, :rest] = weight[out - rest :]

    def rows(self, indices: npt.NDArray[np.intp]) -> Array:
        """Return those rows of the weight: [indices, in]."""
        panels, columns = np.divmod(indices, self.panels.shape[2])
        return self.panels[panels, :, columns]

    def __call__(self, x: Array, out: Array) -> Array:
        """Write `x` [rows, in] times the weight into `out` [rows, width] and return `out`.

        `rows` is as `Tiling.padded` says; both arrays are C-contiguous.
        """
        count, inner, panel = self.panels.shape
        size = max(len(x), FULL) * inner * panel  # multiply-adds of a panel
        if self._threads.count == 1 or not len(x) or count * size < PART:
            multiply(x, self.panels, self._cut, out)
            return out
        step = max(1, min(PART // size, -(-count // self._threads.count)))  # panels

        def work(start: int) -> None:
            stop = min(start + step, count)
            columns = out[:, start * panel : stop * panel]
            multiply(x, self.panels[start:stop], self._cut, columns)

        self._threads.share(range(0, count, step), work)
        return out


class Products:
    """How a model's products are cut and computed; lays out its weights."""

    def __init__(self, tiling: Tiling, threads: Threads) -> None:
        self.tiling = tiling
        self.threads = threads
        self._arena = Arena()

    def linear(self, weight: Array) -> Linear:
        """Lay out a weight [out, in]."""
        return Linear(weight, self.tiling, self._arena, self.threads)
