"""Products of a weight with many rows: its panels are joined to wide ones first.

A panel is as narrow as is best for few rows (`streamtok.model.exact.batch_invariance`); for many, a
BLAS wants hundreds of columns at once. To join them costs reading the weight once more than needed,
which some dozens of rows outweigh; to keep all weights in both layouts would double the memory.

Read next: `streamtok.model.wide.attention`.
"""

import math
import threading
from collections.abc import Iterator

import numpy as np

from streamtok.model.exact.batch_invariance import padded
from streamtok.model.exact.linear import Linear
from streamtok.model.weights import Array
from streamtok.model.wide.form import Form

COLUMNS = 304  # most of one product: with their guards as many as OpenBLAS takes as one block
STEP = 16  # columns: what those of a product are a multiple of
ROWS = 132  # most of one product, so that its sums stay in a core's cache


class Room(threading.local):
    """Memory that each thread uses again and again, instead of asking for it every time."""

    def __init__(self) -> None:
        self._known: dict[str, Array] = {}

    def take(self, name: str, *shape: int) -> Array:
        """Return an array of `shape` with anything finite in it, the same memory for one `name`."""
        size = math.prod(shape)
        if name not in self._known or self._known[name].size < size:
            self._known[name] = np.zeros(size, np.float32)
        return self._known[name][:size].reshape(shape)


class WideMatrix(Linear):
    """Room for one weight whose panels are joined, and products with it: `out = x @ weight.T`.

    It serves all layers in turn. It has `pieces` of some columns, each of which is joined by
    itself, by any thread.
    """

    def __init__(self, form: Form, inner: int, width: int, room: Room) -> None:
        self._form = form
        self._room = room
        self.width = width
        self._step = padded(-(-width // -(-width // COLUMNS)), STEP)
        self.pieces = -(-width // self._step)
        shape = (self.pieces, inner, self._step + 2 * form.guard)
        self._joined: Array = np.zeros(shape, np.float32)  # [pieces, in, columns and guards]

    def join(self, piece: int, panels: Array) -> None:
        """Copy what `piece` has of `panels` [P, in, panel], its terms in order."""
        form, panel, columns = self._form, panels.shape[2], self._columns(piece)
        out = self._joined[piece][:, form.guard :]  # [in, columns]
        for index in range(columns.start // panel, -(-columns.stop // panel)):
            first = max(columns.start, index * panel)
            last = min(columns.stop, (index + 1) * panel)
            source = panels[index, :, first - index * panel : last - index * panel]  # [in, some]
            target = out[:, first - columns.start : last - columns.start]
            for start, stop in form.blocks:
                chains = (form.chains, -1, last - first)
                pairs = source[start:stop].reshape(-1, form.chains, last - first)
                target[start:stop].reshape(chains)[:] = pairs.swapaxes(0, 1)

    def __call__(self, x: Array, out: Array) -> Array:
        """Write `x` [rows, in] times the weight into `out` [rows, width] and return `out`."""
        form, (rows, inner) = self._form, x.shape
        terms = self._room.take("terms", padded(rows, form.granule), inner)
        terms[rows:] = 0
        for start, stop in form.blocks:
            pairs = x[:, start:stop].reshape(rows, -1, form.chains)
            terms[:rows, start:stop].reshape(rows, form.chains, -1)[:] = pairs.swapaxes(1, 2)
        for part in cut_rows(len(terms), form.granule, ROWS):
            for piece in range(self.pieces):
                found = out[part, self._columns(piece)]  # [rows, columns]: fewer at the end
                weight = self._joined[piece]  # [in, columns and guards]
                if form.chains == 2:
                    self._add_chains(terms[part], weight, found)
                else:
                    self._multiply(terms[part], weight[:, : found.shape[1]], found)
        return out

    def _columns(self, piece: int) -> slice:
        return slice(piece * self._step, min((piece + 1) * self._step, self.width))

    def _multiply(self, terms: Array, weight: Array, out: Array) -> None:
        """Write the first rows of the product of `terms` and `weight` into `out`."""
        if len(terms) == len(out):
            np.matmul(terms, weight, out=out)
        else:  # fewer rows might take another kernel
            whole = self._room.take("even", len(terms), weight.shape[1])
            out[:] = np.matmul(terms, weight, out=whole)[: len(out)]

    def _add_chains(self, terms: Array, weight: Array, out: Array) -> None:
        """Write the product of ordered `terms` and `weight` into `out`: even terms, then odd.

        The sums are in arrays without gaps, where addition is three times as fast.
        """
        guard, shape = self._form.guard, (len(terms), weight.shape[1])
        total, even, odd = (self._room.take(name, *shape) for name in ("total", "even", "odd"))
        for start, stop in self._form.blocks:
            middle = (start + stop) // 2
            found = even if start else total
            np.matmul(terms[:, start:middle], weight[start:middle], out=found)
            np.matmul(terms[:, middle:stop], weight[middle:stop], out=odd)
            np.add(found, odd, out=found)
            if start:
                np.add(total, even, out=total)
        out[:] = total[: len(out), guard : guard + out.shape[1]]


def cut_rows(rows: int, granule: int, most: int, multiple: int = 1) -> Iterator[slice]:
    """Yield parts of `rows`, `most` at most, as equal as can be, about a `multiple` of parts."""
    parts = padded(-(-rows // most), multiple)
    step = padded(-(-rows // parts), granule)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
