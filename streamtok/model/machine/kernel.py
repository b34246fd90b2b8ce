"""OpenBLAS's innermost loop, called by itself on weights that are stored in the order it reads.

Theory of operation
-------------------

A call of a BLAS first copies ("packs") its matrices into the order in which its kernel reads them.
Where few rows meet a large weight, as in decoding, that copy costs more than the product. Weights
never change, so here they are stored packed once and for all, and the kernel is called directly:
numpy's copy of OpenBLAS exports it (in 2.4.6 it does, in 2.5.5 it does not any more), as
`sgemm_kernel_HASWELL(m, n, k, alpha, a, b, c, ldc)`, which adds `alpha` times a product to `c`. It
is that of processors with AVX2 and FMA (OpenBLAS's
kernel/x86_64/sgemm_kernel_8x4_haswell_2.c). What it reads:

- `a`, our weight: panels of eight output columns, [P, in, 8];
- `b`, our rows: strips of four, two or one of them, each [in, 4], [in, 2] or [in, 1]. The library's
  `sgemm_oncopy_HASWELL(in, rows, x, ldx, b)` makes these of rows.

How it adds: for one row, for eight, and inside a product of twelve, each element is one sum, term
by term from the first to the last. Only for four rows, and in the first and the last eight columns
of a product of twelve rows and 16 columns or more, the even and the odd terms are added apart. So a
product here has one row, or a number of rows that leaves 0 or 8 when divided by twelve, and those
columns are computed again, by themselves: every row has the same bits in every product.

None of it is taken on trust: `streamtok.model.machine.calibration` compares the bits, and other
processors, and builds of numpy that keep the kernel to themselves, have the products of
`streamtok.model.exact.batch_invariance`.

Read next: `streamtok.model.machine.calibration`.
"""

import ctypes
import threading
from collections.abc import Callable, Iterator
from copy import copy

import numpy as np
from threadpoolctl import threadpool_info

from streamtok.model.exact.batch_invariance import Cut, Tiling
from streamtok.model.exact.linear import Arena, Linear, Products, Threads
from streamtok.model.weights import Array

PANEL = 8  # columns of a panel, and rows of a product that has more than one
STRIP = 4  # rows that are packed together
TWELVE = 12  # rows that the kernel takes at once, as long as there are as many
BLOCK = 2**18  # numbers of a weight that are used for all rows before the next: 1 MiB
PART = 2**18  # numbers of a weight that one thread takes of a product with few rows
SHARED = 2**19  # least of a weight that is shared: to wake another core takes up to 0.1 ms

Call = Callable[[int, int, int, float, int, int, int, int], int]
Pack = Callable[[int, int, int, int, int], int]


def find() -> "Kernel | None":
    """Return the kernel of the BLAS that numpy uses; None if it is another or cannot be called."""
    for info in threadpool_info():
        if info["internal_api"] == "openblas" and info.get("architecture") in ("Haswell", "Zen"):
            try:
                return _kernel(info["filepath"], info["architecture"].upper())
            except (AttributeError, OSError):
                continue
    return None


def _kernel(file: str, architecture: str) -> "Kernel":
    """Return the kernel of the library in `file`.

    Raises:
        AttributeError: the library does not export it.
        OSError: there is no such library.
    """
    size, number, pointer = ctypes.c_ssize_t, ctypes.c_float, ctypes.c_void_p
    library = ctypes.CDLL(file)
    call, pack = (library[f"sgemm_{name}_{architecture}"] for name in ("kernel", "oncopy"))
    call.argtypes = (size, size, size, number, pointer, pointer, pointer, size)
    pack.argtypes = (size, size, pointer, size, pointer)
    return Kernel(call, pack)


def kernel_cut() -> Cut:
    """Return how products are cut for the kernel, of however many terms."""
    return Cut(PANEL, PANEL, PANEL)


class Kernel:
    """Products by the kernel; which rows they may have says `Tiling.padded`."""

    def __init__(self, call: Call, pack: Pack) -> None:
        self._call, self._pack = call, pack

    def multiply(self, x: Array, panels: Array, cut: Cut, out: Array) -> None:
        """Write `x` [rows, in] times `panels` [P, in, 8] into `out` [rows, P * 8]."""
        out[...] = 0
        if len(x) <= PANEL:
            self._run(self.pack(x), panels, out)
        else:
            self.add(self.pack(x), panels, out)

    def add(self, strips: Array, panels: Array, out: Array) -> None:
        """Add to `out` [rows, P * 8] the product of rows, as `pack` returns them, and `panels`."""
        rows, (count, inner, _) = len(out), panels.shape
        step = count if rows <= PANEL else max(2, BLOCK // (inner * PANEL))
        step = -(-count // -(-count // step))
        for first in range(0, count, step):
            some = slice(first, min(first + step, count))
            columns = slice(first * PANEL, some.stop * PANEL)
            for start, stop in _runs(rows):
                here = strips[start * inner : stop * inner]
                self._add(here, panels[some], out[start:stop, columns])

    def _add(self, strips: Array, panels: Array, out: Array) -> None:
        """Compute one product, and its first and last columns again if it has to be."""
        self._run(strips, panels, out)
        if len(out) >= TWELVE and len(panels) > 1:
            for edge in (0, len(panels) - 1):
                columns = out[:, edge * PANEL : (edge + 1) * PANEL]
                columns[...] = 0
                self._run(strips, panels[edge : edge + 1], columns)

    def _run(self, strips: Array, panels: Array, out: Array) -> None:
        count, inner, _ = panels.shape
        a, b, c = map(_address, (panels, strips, out))
        self._call(count * PANEL, len(out), inner, 1.0, a, b, c, out.strides[0] // out.itemsize)

    def pack(self, x: Array) -> Array:
        """Return the rows of `x` [rows, in] in strips, until the calling thread packs others.

        They are one row, or a multiple of four, and the numbers of each are neighbours.
        """
        rows, inner = x.shape
        if rows == 1:
            return x.ravel()
        if _room.strips.size < x.size:
            _room.strips = np.empty(x.size, np.float32)
        strips = _room.strips[: x.size]
        self._pack(inner, rows, _address(x), x.strides[0] // x.itemsize, _address(strips))
        return strips


def _address(array: Array) -> int:
    """Return where the numbers of an array begin."""
    address: int = array.__array_interface__["data"][0]
    return address


def _runs(rows: int) -> Iterator[tuple[int, int]]:
    """Yield the bounds of products without a strip that would be left to the kernel for four."""
    middle = rows - PANEL if rows % TWELVE == STRIP else rows
    if middle:
        yield 0, middle
    if middle < rows:
        yield middle, rows


class _Room(threading.local):
    """Where each thread packs rows."""

    strips = np.empty(0, np.float32)


_room = _Room()


class KernelLinear(Linear):
    """`y = x @ weight.T` by the kernel."""

    def __init__(
        self, weight: Array, tiling: Tiling, arena: Arena, threads: Threads, kernel: Kernel
    ) -> None:
        super().__init__(weight, tiling, arena, threads)
        self._kernel = kernel
        self._shared = threads.count > 1 and self.panels.size >= SHARED

    def __call__(self, x: Array, out: Array) -> Array:
        """Write `x` [rows, in] times the weight into `out` [rows, width] and return `out`."""
        count, inner, _ = self.panels.shape
        if not self._shared:
            self._kernel.multiply(x, self.panels, self._cut, out)
            return out
        strips = self._kernel.pack(x)
        step = max(2, PART // (inner * PANEL))

        def work(first: int) -> None:
            some = slice(first, min(first + step, count))
            columns = out[:, first * PANEL : some.stop * PANEL]
            columns[...] = 0
            self._kernel.add(strips, self.panels[some], columns)

        self._threads.share(range(0, count, step), work)
        return out

    def unshared(self) -> "KernelLinear":
        """Return the same for products in the calling thread only."""
        alone = copy(self)
        alone._shared = False
        return alone


class KernelProducts(Products):
    """A model's products by the kernel."""

    def __init__(self, tiling: Tiling, threads: Threads, kernel: Kernel) -> None:
        super().__init__(tiling, threads)
        self._kernel = kernel

    def linear(self, weight: Array) -> Linear:
        """Lay out a weight [out, in]."""
        return KernelLinear(weight, self.tiling, self._arena, self.threads, self._kernel)
