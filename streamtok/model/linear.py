"""Matrix products whose every row is bitwise independent of the rows beside it, and fast.

A weight lies in memory as panels of some output columns (`streamtok.model.tiling` says how many).
One call of `np.matmul` broadcasts one small product over all of them: each stays in cache and needs
no copy, where a BLAS would otherwise rearrange the whole weight in every call.

Read next: `streamtok.model.attention`, which keeps the same rules over time.
"""

import numpy as np

from streamtok.model.tiling import PANELS, Tiling, multiply, padded
from streamtok.model.weights import Array

SLAB_BYTES = 32 * 2**20
ALIGNMENT = 64  # bytes: a cache line


class Arena:
    """Gives out arrays that lie side by side in few large pieces of memory.

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

    def __init__(self, weight: Array, tiling: Tiling, arena: Arena) -> None:
        out, inner = weight.shape
        self._cut = cut = tiling.cuts[inner]
        self.width = padded(out, max(PANELS))
        self._panels = arena.zeros((self.width // cut.panel, inner, cut.panel))  # [P, in, panel]
        whole = out // cut.panel
        self._panels[:whole] = (
            weight[: whole * cut.panel].reshape(whole, cut.panel, inner).swapaxes(1, 2)
        )
        if out % cut.panel:
            self._panels[whole, :, : out - whole * cut.panel] = weight[whole * cut.panel :].T

    def __call__(self, x: Array, out: Array) -> Array:
        """Write `x` [rows, in] times the weight into `out` [rows, width] and return `out`.

        `rows` is a multiple of the tiling's granule; both arrays are C-contiguous.
        """
        multiply(x, self._panels, self._cut, out)
        return out
