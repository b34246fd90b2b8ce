"""In which order a BLAS adds in a large product, and how small products' order is had from it.

Theory of operation
-------------------

A product of few rows and one of many give an element other bits, because they run through other
kernels. Both are known, however, and the order of the one can be put together from parts of the
other. What OpenBLAS does on x86-64 (its `driver/level3/level3.c` and its kernels):

- The terms of an element are cut into blocks of at most Q (320 with AVX2), and each block's sum is
  added to the element. A number between Q and 2 Q is halved.
- Its AVX2 kernel for four rows adds the even and the odd terms of a block by themselves, to keep
  two chains of additions busy, and then both sums. The kernel for twelve rows has enough to do
  with one chain, except for the first and the last eight columns of a product.

So the sums of the even terms and those of the odd ones are two large products of their own, whose
addition gives the bits of the small one. Eight columns on either side are left aside, and rows come
in twelves. On other processors there is one chain in both, and one product is enough.

None of it is taken on trust: `streamtok.model.wide.trial` compares the bits.

Read next: `streamtok.model.wide.product`.
"""

from collections.abc import Iterator

from msgspec import Struct

from streamtok.model.exact.batch_invariance import padded

UNROLL = 8  # what OpenBLAS rounds half a number of terms up to
LENGTHS = (320, 384, 256, 448, 512, 768)  # of OpenBLAS's blocks, AVX2's first
TWELVE, GUARD, PAIRS = 12, 8, 8  # of the AVX2 kernels: rows, columns, and terms of one turn


class Form(Struct, frozen=True):
    """How products of one number of terms are computed for many rows.

    `blocks` are the bounds of the terms that are summed by themselves, in `chains` of neighbouring
    terms each. Rows come in multiples of `granule`, and `guard` columns on either side of a product
    are of no use.
    """

    blocks: tuple[tuple[int, int], ...]
    chains: int
    granule: int
    guard: int


def forms(inner: int) -> Iterator[Form]:
    """Yield what may give a small product's bits for `inner` terms, the simplest first."""
    yield Form(((0, inner),), chains=1, granule=4, guard=0)
    if inner % PAIRS == 0:
        for blocks in dict.fromkeys(tuple(_blocks(inner, length)) for length in LENGTHS):
            yield Form(blocks, chains=2, granule=TWELVE, guard=GUARD)


def _blocks(inner: int, length: int) -> Iterator[tuple[int, int]]:
    """Yield the bounds of OpenBLAS's blocks, of `length` terms at most."""
    start = 0
    while start < inner:
        left = inner - start
        half = padded(left // 2, UNROLL)
        size = length if left >= 2 * length else half if left > length else left
        yield start, start + size
        start += size
