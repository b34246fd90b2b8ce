"""Attention of a prompt's neighbouring positions: many queries in one product.

The same sums in the same order as `streamtok.model.attention`, with positions and queries swapped:
scores are [T, M], so that the maximum, the exponential and the sum run over long rows of memory.
What the mask hides behind the last query is not computed, and what is before the first one needs
no mask.

Shape letters: as there; M columns of one product: the queries of a group's heads, and guards.

Read next: `streamtok.model.wide.layers`.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from msgspec import Struct

from streamtok.model.attention import Cached
from streamtok.model.config import ModelConfig
from streamtok.model.exact.batch_invariance import BLOCK, SMALL, STRIDE, Tiling, padded
from streamtok.model.weights import Array
from streamtok.model.wide.form import GUARD, TWELVE
from streamtok.model.wide.product import STEP, Room

COLUMNS = 288  # queries of one product, unless a group alone has more
FREE_COLUMNS = 192  # the same where small products are exact, or half of it where it is too many
SCORES = 2**18  # numbers: about what one part of the work computes at once
LEAST = 24  # positions that are worth it
FREE_LEAST = 2**15  # the same there, times the positions looked at
LANES = 8  # in which `np.add.reduce` sums neighbours, up to 128 of them


class Part(Struct, frozen=True):
    """Some query heads of some positions: key-value heads `heads`, rows `rows` of the pass."""

    rows: slice
    heads: slice
    slot: int
    start: int  # the position of the first row
    blocks: int


class WideAttention:
    """Attention of rows that are neighbouring positions of one sequence."""

    def __init__(self, config: ModelConfig, tiling: Tiling, room: Room) -> None:
        self._config = config
        self._free = tiling.free
        self._guard = 0 if tiling.free else GUARD
        self._room = room
        self._masks: dict[tuple[int, int, int | None], Array] = {}

    def pays(self, count: int, start: int) -> bool:
        """Say whether small products would take longer for `count` positions from `start` on."""
        return count >= LEAST and (not self._free or count * (start + count) >= FREE_LEAST)

    def parts(self, rows: slice, slot: int, start: int, threads: int = 1) -> list[Part]:
        """Cut the queries of `rows`, from position `start` of `slot` on, for so many threads."""
        config, found = self._config, []
        for first, last in self._cuts(start, start + rows.stop - rows.start):
            blocks = -(-last // BLOCK)
            size = blocks * BLOCK * self._width(last - first)
            shares = max(threads, -(-config.kv_heads * size // SCORES))
            heads = -(-config.kv_heads // shares)
            some = slice(rows.start + first - start, rows.start + last - start)
            for head in range(0, config.kv_heads, heads):
                kept = slice(head, min(head + heads, config.kv_heads))
                found.append(Part(some, kept, slot, first, blocks))
        return sorted(found, key=lambda p: (p.heads.start, -p.blocks))

    def _cuts(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the bounds of what positions are computed together.

        Where any number will do these are whole blocks or parts of one, as far as a group of heads
        allows: what is hidden in the last block is then least.
        """
        group = self._config.group
        if self._free:
            small = FREE_COLUMNS * BLOCK * self._config.head_dim <= SMALL
            step = max(1, (FREE_COLUMNS if small else FREE_COLUMNS // 2) // group)
            bounds = [start, *range(start // step * step + step, stop, step), stop]
            yield from pairwise(bounds)
        else:
            step = max(1, COLUMNS // group)
            step = -(-(stop - start) // -(-(stop - start) // step))
            for first in range(start, stop, step):
                yield first, min(first + step, stop)

    def attend(self, part: Part, cached: Cached, q: Array, out: Array, window: int | None) -> None:
        """Write what the queries `q` [rows, H, E] of a part gather into `out` [rows, H * E].

        `cached` is what one layer of the cache holds; see `streamtok.model.attention.Rows`.
        """
        config = self._config
        count, group, width = part.rows.stop - part.rows.start, config.group, config.head_dim
        heads, columns = part.heads.stop - part.heads.start, self._width(count)
        kept = slice(self._guard, self._guard + count * group)
        queries = self._room.take("queries", heads, width, columns)  # [K, E, M]
        view = queries[:, :, kept].reshape(heads, width, count, group)  # [K, E, R, G]
        view[:] = self._by_head(q, part).transpose(1, 3, 0, 2)
        keys, values = (one[part.slot, : part.blocks] for one in cached)
        keys = keys[:, :, part.heads].transpose(2, 0, 1, 4, 3)  # [K, B, strips, STRIDE, E]
        values = values[:, part.heads].swapaxes(0, 1)  # [K, B, T, E]
        scores = self._room.take("scores", heads, part.blocks, BLOCK, columns)  # [K, B, T, M]
        self._score(keys, queries, scores)
        self._softmax(part, scores, window)
        totals = _sum(np.add.reduce(scores, axis=1))  # [K, M]
        gathered = self._gather(values, scores)[:, kept]  # [K, R * G, E]
        np.divide(
            gathered.reshape(heads, count, group, width),
            totals[:, kept].reshape(heads, count, group, 1),
            out=self._by_head(out, part).transpose(1, 0, 2, 3),
        )

    def _by_head(self, rows: Array, part: Part) -> Array:
        """View what `part` has of `rows` [rows, H, E] or [rows, H * E]: [R, K, G, E]."""
        config = self._config
        shape = (len(rows), config.kv_heads, config.group, config.head_dim)
        return rows.reshape(shape)[part.rows, part.heads]

    def _width(self, count: int) -> int:
        """Return how many columns a product has for `count` positions."""
        return padded(count * self._config.group + 2 * self._guard, STEP)

    def _score(self, keys: Array, queries: Array, out: Array) -> None:
        """Write `keys` [K, B, strips, STRIDE, E] by `queries` [K, E, M] to `out` [K, B, T, M]."""
        heads, blocks, length, columns = out.shape
        if self._free:
            strips = out.reshape(heads, blocks, -1, STRIDE, columns)
            np.matmul(keys, queries[:, None, None], out=strips)
        else:  # a strip is no multiple of twelve
            rows = self._room.take("keys", heads, blocks, length, self._config.head_dim)
            rows.reshape(keys.shape)[:] = keys  # [K, B, T, E]
            np.matmul(rows, queries[:, None], out=out)

    def _softmax(self, part: Part, scores: Array, window: int | None) -> None:
        """Turn `scores` [K, B, T, M] into the weights of values, not yet divided by their sum."""
        hidden = 0 if window is not None else part.start // BLOCK
        scores[:, hidden:] += self._mask(part, hidden, window)
        most = np.maximum.reduce(scores, axis=1)  # [K, T, M]
        scores -= np.maximum.reduce(most, axis=1)[:, None, None]
        np.exp(scores, out=scores)

    def _mask(self, part: Part, hidden: int, window: int | None) -> Array:
        """Return 0 where a query looks and -inf elsewhere, from block `hidden` on: [B, T, M]."""
        key = (part.start, part.rows.stop - part.rows.start, window)
        if key not in self._masks:
            group = self._config.group
            at = np.repeat(np.arange(part.start, part.start + key[1]), group)  # [R * G]
            time = np.arange(hidden * BLOCK, part.blocks * BLOCK)[:, None]  # [B * T, 1]
            seen = time <= at
            if window is not None:
                seen &= time > at - window
            mask = np.zeros((len(time), self._width(key[1])), np.float32)  # [B * T, M]
            mask[:, self._guard : self._guard + len(at)][~seen] = -np.inf
            self._masks[key] = mask.reshape(-1, BLOCK, mask.shape[1])
        return self._masks[key]

    def _gather(self, values: Array, weights: Array) -> Array:
        """Return the sums of `values` [K, B, T, E] by `weights` [K, B, T, M]: [K, M, E]."""
        heads, blocks, _, columns = weights.shape
        width = self._config.head_dim
        if self._free:
            sums = self._room.take("sums", heads, blocks, columns, width)
            np.matmul(weights.swapaxes(2, 3), values, out=sums)
            found: Array = np.add.reduce(sums, axis=1)
            return found
        wider = padded(width, TWELVE)
        if wider != width:
            room = self._room.take("values", heads, blocks, BLOCK, wider)  # [K, B, T, more than E]
            room[..., :width] = values
            values = room
        sums = self._room.take("sums", heads, blocks, wider, columns)
        np.matmul(values.swapaxes(2, 3), weights, out=sums)
        found = np.add.reduce(sums, axis=1)  # [K, E or more, M]
        return found[:, :width].swapaxes(1, 2)


def _sum(weights: Array) -> Array:
    """Sum `weights` [K, T, M] as `np.add.reduce` does neighbours: [K, M]."""
    heads, _, columns = weights.shape
    lanes = np.add.reduce(weights.reshape(heads, -1, LANES, columns), axis=1)  # [K, LANES, M]
    while lanes.shape[1] > 1:
        lanes = lanes[:, ::2] + lanes[:, 1::2]
    total: Array = lanes[:, 0]
    return total
