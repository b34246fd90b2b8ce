"""The products of a model, fitted to this machine.

Read next: `streamtok.model.machine.kernel`.
"""

from collections.abc import Iterable

from streamtok.model.exact.linear import Products
from streamtok.model.machine.calibration import calibrate
from streamtok.model.machine.kernel import KernelProducts, find
from streamtok.model.machine.threads import Threads, available


def fitted(shapes: Iterable[tuple[int, int]], head_dim: int, threads: int | None) -> Products:
    """Return what computes products with weights of `shapes`, each [out, in], by some threads."""
    kernel, shared = find(), Threads(available() if threads is None else threads)
    tiling = calibrate(shapes, head_dim, kernel)
    if kernel and tiling.least:
        return KernelProducts(tiling, shared, kernel)
    return Products(tiling, shared)
