"""Matrix products whose every row is bitwise independent of the rows beside it, and fast.

A BLAS picks its kernel, and with it the order of additions, by the shape of the matrices and by
where in them a row stands. So `x @ w.T` for one stream differs in the last bits from the same row
in a batch of eight, and a sampled text can fork there. Here every product is cut into small
products of one fixed shape, whatever the batch: the weight into panels of `PANEL` output columns,
the rows into tiles. One call of `np.matmul` broadcasts over all of them, each product stays in
cache, and a row meets the same kernel in every company. `is_exact` tries whether that holds with
the BLAS at hand.

Read next: `streamtok.model.attention`, which keeps the same rule over time.
"""

import numpy as np

from streamtok.model.weights import Array

PANEL = 32  # output columns of one product
GRANULE = 4  # rows are padded to a multiple of this: the smallest tile
TILE = 8  # rows of one product where there are enough


def padded(count: int, multiple: int) -> int:
    """Return `count` rounded up to a multiple of `multiple`."""
    return -(-count // multiple) * multiple


class Linear:
    """`y = x @ weight.T`, from a checkpoint's [out, in] weight.

    `width` is `out` rounded up to whole panels; the columns beyond `out` are zero.
    """

    def __init__(self, weight: Array) -> None:
        out, inner = weight.shape
        self.width = padded(out, PANEL)
        self._panels: Array = np.zeros((self.width // PANEL, inner, PANEL), np.float32)
        whole = out // PANEL
        self._panels[:whole] = (
            weight[: whole * PANEL].reshape(whole, PANEL, inner).transpose(0, 2, 1)
        )  # [panels, in, PANEL]
        if whole * PANEL < out:
            self._panels[whole, :, : out - whole * PANEL] = weight[whole * PANEL :].T

    def __call__(self, x: Array, out: Array) -> Array:
        """Write `x` [rows, in] times the weight into `out` [rows, width] and return `out`.

        `rows` is a multiple of GRANULE; both arrays are C-contiguous.
        """
        whole = len(x) - len(x) % TILE
        if whole:
            self._multiply(x[:whole], out[:whole], TILE)
        if whole < len(x):
            self._multiply(x[whole:], out[whole:], GRANULE)
        return out

    def _multiply(self, x: Array, out: Array, tile: int) -> None:
        tiles = x.reshape(-1, tile, x.shape[1])  # [tiles, tile, in]
        panels = out.reshape(len(tiles), tile, -1, PANEL).transpose(2, 0, 1, 3)
        # [panels, tiles, tile, PANEL] = [1, tiles, tile, in] @ [panels, 1, in, PANEL]
        np.matmul(tiles, self._panels[:, None], out=panels)


def is_exact(inner: int, width: int) -> bool:
    """Try whether rows of products with `inner` terms are the same bits in any company.

    Runs one row alone, and again in every place of growing batches, through a Linear of `width`
    outputs. Some BLAS libraries, or several threads in one, do not give that.
    """
    random = np.random.default_rng(0)
    linear = Linear(random.standard_normal((width, inner), dtype=np.float32))  # [out, in]
    row = random.standard_normal(inner, dtype=np.float32)  # [in]
    alone: Array | None = None
    for rows in (GRANULE, TILE, TILE + GRANULE, 2 * TILE, 4 * TILE):
        x = random.standard_normal((rows, inner), dtype=np.float32)  # [rows, in]
        for place in range(rows):
            company = x.copy()  # [rows, in]
            company[place] = row
            result = linear(company, np.empty((rows, linear.width), np.float32))[place]
            alone = result if alone is None else alone
            if not np.array_equal(result, alone):
                return False
    return True
