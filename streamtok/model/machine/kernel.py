"""OpenBLAS's innermost loop, called by itself on weights that are stored in the order it reads.

Theory of operation
-------------------

A call of a BLAS first copies ("packs") its matrices into the order in which its kernel reads them.
Where few rows meet a large weight, as in decoding, that copy costs more than the product. Weights
never change, so here they are stored packed once and for all, and the kernel is called directly:
numpy's copy of OpenBLAS exports it (in 2.4.6 it does, in 2.5.5 it does not any more), as
`sgemm_kernel_HASWELL(m, n, k, alpha, a, b, c, ldc)`, which adds `alpha` times a product to `c`. It
is that of processors with AVX2 and FMA (OpenBLAS's kernel/x86_64/sgemm_kernel_8x4_haswell_2.c);
that of processors with AVX-512 is called SKYLAKEX (sgemm_kernel_16x4_skylakex_3.c). What it reads:

- `a`, our weight: panels of eight output columns, [P, in, 8], or of 16 with AVX-512.
- `b`, our rows: strips of four, two or one of them, each [in, 4], [in, 2] or [in, 1]. The library's
  `sgemm_oncopy_HASWELL(in, rows, x, ldx, b)` makes these of rows.

How it adds: with AVX-512 each element is one sum, term by term from the first to the last, for any
number of rows, just as in numpy's small products there. Two rows are these, which are faster; more
come in fours, since the kernel has no good way for what is left over.

With AVX2 an element is such a sum for one row, for eight, and inside a product of twelve. Only for
four rows, and in the first and the last eight columns of a product of twelve rows and 16 columns or
more, the even and the odd terms are added apart. So a product there has one row, or a number of
rows that leaves 0 or 8 when divided by twelve, and those columns are computed again, by themselves:
every row has the same bits in every product.

None of it is taken on trust: `streamtok.model.machine.calibration` compares the bits, and other
processors, and builds of numpy that keep the kernel to themselves, have the products of
`streamtok.model.exact.batch_invariance`.

Read next: `streamtok.model.machine.calibration`.
"""

import ctypes
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from copy import copy

import numpy as np
from threadpoolctl import threadpool_info

from streamtok.model.exact.batch_invariance import PAIR, Cut, Tiling, free_cut, multiply, padded
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
        if info["internal_api"] == "openblas" and info.get("architecture") in KERNELS:
            name, kind = KERNELS[info["architecture"]]
            try:
                return kind(*_functions(info["filepath"], name))
            except (AttributeError, OSError):
                continue
    return None


def _functions(file: str, name: str) -> tuple[Call, Pack]:
    """Return the kernel of that name in the library in `file`, and what packs its rows.

    Raises:
        AttributeError: the library does not export them.
        OSError: there is no such library.
    """
    size, number, pointer = ctypes.c_ssize_t, ctypes.c_float, ctypes.c_void_p
    library = ctypes.CDLL(file)
    call, pack = (library[f"sgemm_{kind}_{name}"] for kind in ("kernel", "oncopy"))
    call.argtypes = (size, size, size, number, pointer, pointer, pointer, size)
    pack.argtypes = (size, size, pointer, size, pointer)
    return call, pack


class Kernel(ABC):
    """Products by a kernel, of rows as `Tiling.padded` says."""

    panel: int  # columns
    terms: int  # from which on the kernel is worth it
    least: int  # rows that a product may have, too
    few: int  # rows that are left to numpy's small products

    def __init__(self, call: Call, pack: Pack) -> None:
        self._call, self._pack = call, pack

    @abstractmethod
    def cut(self, inner: int) -> Cut:
        """Return how products of `inner` terms are cut."""

    @abstractmethod
    def fill(self, strips: Array, panels: Array, out: Array) -> None:
        """Write the product of rows, as `pack` returns them, and `panels` into `out`."""

    def multiply(self, x: Array, panels: Array, out: Array) -> None:
        """Write `x` [rows, in] times `panels` [P, in, panel] into `out` [rows, P * panel]."""
        if len(x) <= self.few:
            multiply(x, panels, self.cut(x.shape[1]), out)
        else:
            self.fill(self.pack(x), panels, out)

    def pack(self, x: Array) -> Array:
        """Return the rows of `x` [rows, in] in strips, until the calling thread packs others.

        The numbers of a row are neighbours.
        """
        rows, inner = x.shape
        if rows == 1:
            return x.ravel()
        if _room.strips.size < x.size:
            _room.strips = np.empty(x.size, np.float32)
        strips = _room.strips[: x.size]
        self._pack(inner, rows, _address(x), x.strides[0] // x.itemsize, _address(strips))
        return strips

    def _blocks(self, panels: Array) -> Iterator[tuple[slice, slice]]:
        """Yield some panels, of `BLOCK` numbers or so, and the columns they are for."""
        count, inner, panel = panels.shape
        step = max(2, BLOCK // (inner * panel))
        step = -(-count // -(-count // step))
        for first in range(0, count, step):
            last = min(first + step, count)
            yield slice(first, last), slice(first * panel, last * panel)

    def _run(self, strips: Array, panels: Array, out: Array) -> None:
        """Add to `out` what one call of the kernel computes."""
        count, inner, panel = panels.shape
        a, b, c = map(_address, (panels, strips, out))
        self._call(count * panel, len(out), inner, 1.0, a, b, c, out.strides[0] // out.itemsize)


class Avx2Kernel(Kernel):
    """See the theory of operation above."""

    panel, terms, least, few = PANEL, 1, 1, 0

    def cut(self, inner: int) -> Cut:
        """See `Kernel`."""
        return Cut(PANEL, PANEL, PANEL)

    def fill(self, strips: Array, panels: Array, out: Array) -> None:
        """See `Kernel`."""
        out[...] = 0
        rows, inner = len(out), panels.shape[1]
        if rows <= PANEL:
            self._run(strips, panels, out)
            return
        for some, columns in self._blocks(panels):
            for start, stop in _runs(rows):
                here = strips[start * inner : stop * inner]
                self._fill(here, panels[some], out[start:stop, columns])

    def _fill(self, strips: Array, panels: Array, out: Array) -> None:
        """Compute one product, and its first and last columns again if it has to be."""
        self._run(strips, panels, out)
        if len(out) >= TWELVE and len(panels) > 1:
            for edge in (0, len(panels) - 1):
                columns = out[:, edge * PANEL : (edge + 1) * PANEL]
                columns[...] = 0
                self._run(strips, panels[edge : edge + 1], columns)


class Avx512Kernel(Kernel):
    """See the theory of operation above.

    With fewer terms numpy's small products are as fast: they take many rows at once then.
    """

    panel, terms, least, few = 16, 512, PAIR, PAIR

    def cut(self, inner: int) -> Cut:
        """See `Kernel`."""
        free = free_cut(inner, self.panel)
        return Cut(self.panel, STRIP, padded(free.most, STRIP))

    def fill(self, strips: Array, panels: Array, out: Array) -> None:
        """See `Kernel`."""
        for some, columns in self._blocks(panels):
            out[:, columns] = 0  # just before it is used, since it is in cache then
            self._run(strips, panels[some], out[:, columns])


KERNELS: Mapping[str, tuple[str, type[Kernel]]] = {  # by what OpenBLAS calls the processor
    "Haswell": ("HASWELL", Avx2Kernel),
    "Zen": ("ZEN", Avx2Kernel),
    "SkylakeX": ("SKYLAKEX", Avx512Kernel),
}


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
        count, inner, panel = self.panels.shape
        if not self._shared:
            self._kernel.multiply(x, self.panels, out)
            return out
        if len(x) <= self._kernel.few:
            return super().__call__(x, out)
        strips = self._kernel.pack(x)
        step = max(2, PART // (inner * panel))

        def work(first: int) -> None:
            some = slice(first, min(first + step, count))
            self._kernel.fill(strips, self.panels[some], out[:, first * panel : some.stop * panel])

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
