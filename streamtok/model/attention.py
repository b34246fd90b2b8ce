"""Attention over cached keys and values, bitwise equal in any batch and any chunking of a prompt.

Time is cut into blocks of `BLOCK` positions. Scores and weighted values are computed block by block
and the blocks are added in order: a longer neighbour in the batch only appends blocks, or positions
to the last one, whose weights are exactly zero, which changes no bit of a sum.

Shape letters: N sequences, R positions of each, H query heads, K key-value heads, G = H / K,
E width of a head, B blocks, T positions of a block, S tiles, Q rows of a tile.

Read next: `streamtok.model.exact.batch_invariance`.
"""

import math
import mmap
import sys
from itertools import chain

import numpy as np
import numpy.typing as npt

from streamtok.model.config import ModelConfig
from streamtok.model.exact.batch_invariance import BLOCK, STRIDE, Tiling, padded
from streamtok.model.weights import Array

Positions = npt.NDArray[np.intp]
Cached = tuple[Array, Array]  # a layer's keys and values


class KVCache:
    """The keys and values of every position computed so far, for `slots` sequences.

    For each layer keys [slots, blocks, strips, K, E, STRIDE], values [slots, blocks, K, BLOCK, E].
    Keys of neighbours are transposed, so that products with them, too, add up term by term. Heads
    are adjacent, because memory is read fastest in long runs. The operating system provides a page
    when it is first written, so that a slot costs memory only as far as it was used.
    """

    def __init__(self, config: ModelConfig, slots: int) -> None:
        blocks, heads, width = count_blocks(config), config.kv_heads, config.head_dim
        keys = (slots, blocks, BLOCK // STRIDE, heads, width, STRIDE)
        values = (slots, blocks, heads, BLOCK, width)
        self.layers: list[Cached] = [
            (_zeros_on_demand(keys), _zeros_on_demand(values)) for _ in range(config.layers)
        ]

    def store(self, layer: int, places: tuple[Positions, ...], heads: Array) -> None:
        """Store the keys and values in `heads` [rows, 2K, E] of one layer at `places` [rows]."""
        slots, blocks, at, strips, rest = places  # `rest`: where in a strip
        keys, values = self.layers[layer]
        keys[slots, blocks, strips, :, :, rest] = heads[:, : keys.shape[3]]
        values[slots, blocks, :, at] = heads[:, keys.shape[3] :]

    def copy(self, source: int, target: int, positions: slice) -> None:
        """Give slot `target` what slot `source` holds in the blocks where `positions` are.

        The rest of these blocks is the same in both, or not yet used in the target.
        """
        blocks = slice(positions.start // BLOCK, -(-positions.stop // BLOCK))
        for cached in chain.from_iterable(self.layers):
            cached[target, blocks] = cached[source, blocks]

    def clear(self, slot: int) -> None:
        """Zero a slot: a value that is not finite would otherwise outlive its sequence there."""
        for cached in chain.from_iterable(self.layers):
            cached[slot] = 0.0


def _zeros_on_demand(shape: tuple[int, ...]) -> Array:
    """Return zeros that take memory page by page as they are written.

    numpy would ask for huge pages: the first tokens of a sequence would then wait for megabytes to
    be cleared, most of which it never uses.
    """
    if sys.platform == "win32" or not hasattr(mmap, "MADV_NOHUGEPAGE"):
        return np.zeros(shape, np.float32)
    memory = mmap.mmap(-1, 4 * math.prod(shape), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, np.float32).reshape(shape)


def count_blocks(config: ModelConfig) -> int:
    """Return how many blocks a slot has."""
    return -(-config.context // BLOCK)


class Rows:
    """Neighbouring slots with equally many positions each, and the room to compute them in.

    `positions` [N, R] count from 0 in each sequence. The masks and the room serve all layers.
    """

    def __init__(
        self, config: ModelConfig, tiling: Tiling, slots: slice, positions: Positions
    ) -> None:
        self._slots = slots
        count, length = positions.shape
        heads, group, width = config.kv_heads, config.group, config.head_dim
        used = int(positions.max()) + 1
        self._block = block = tiling.block(used)
        self._blocks = blocks = -(-used // block)
        queries = length * group
        tile = tiling.tile(queries)
        rows = padded(queries, tile)

        def split(padded_rows: Array) -> Array:
            """View [N, K, S * Q, ...] without what fills up tiles: [N, R, K, G, ...]."""
            shape = (count, heads, length, group, padded_rows.shape[-1])
            return padded_rows[:, :, :queries].reshape(shape).transpose(0, 2, 1, 3, 4)

        room = np.zeros((count, heads, rows, width), np.float32)  # [N, K, S * Q, E]
        self._queries = split(room)  # [N, R, K, G, E]
        self._tiles = room.reshape(count, heads, 1, 1, -1, tile, width)  # [N, K, 1, 1, S, Q, E]
        shape = (count, heads, blocks, rows // tile, tile)
        self._scores = np.empty((*shape, block), np.float32)  # [N, K, B, S, Q, T]
        strips = self._scores.reshape(*shape, -1, STRIDE)
        self._strips = strips.transpose(0, 1, 2, 5, 3, 4, 6)  # [N, K, B, strips, S, Q, STRIDE]
        self._values = np.empty((*shape, width), np.float32)  # [N, K, B, S, Q, E]
        self._value = self._values[:, :, 0].copy() if blocks > 1 else self._values[:, :, 0]
        self._total = np.empty_like(self._value[..., :1])  # [N, K, S, Q, 1]
        self._found = split(self._value.reshape(count, heads, rows, width))  # [N, R, K, G, E]
        self._sum = split(self._total.reshape(count, heads, rows, 1))  # [N, R, K, G, 1]

        at = np.zeros((count, rows), np.intp)  # [N, S * Q]
        at[:, :queries] = np.repeat(positions, group, axis=1)
        at = at.reshape(count, 1, 1, -1, tile, 1)  # [N, 1, 1, S, Q, 1]
        time = np.arange(blocks * block).reshape(-1, 1, 1, block)  # [B, 1, 1, T]
        self._masks: dict[int | None, Array] = {}  # by how far one looks back: 0 there, else -inf
        for window in {config.window, None if config.full_layers else config.window}:
            seen = time <= at  # [N, 1, B, S, Q, T]
            if window is not None:
                seen &= time > at - window
            self._masks[window] = np.where(seen, np.float32(0), np.float32(-np.inf))

    def attend(self, cached: Cached, q: Array, out: Array, window: int | None) -> None:
        """Write what the queries `q` [N * R, H, E] gather from `cached` into `out` [N * R, H * E].

        `cached` is what one layer of the cache holds; queries are scaled already, and look back on
        `window` positions, themselves included, which is that of the layer.
        """
        keys = cached[0][self._slots, : self._blocks, : self._block // STRIDE, :, None]
        values = cached[1][self._slots, : self._blocks, :, None, : self._block]
        keys = keys.transpose(0, 3, 1, 2, 4, 5, 6)  # [N, K, B, strips, 1, E, STRIDE]
        self._queries[...] = q.reshape(self._queries.shape)
        np.matmul(self._tiles, keys, out=self._strips)
        scores = np.add(self._scores, self._masks[window], out=self._scores)  # [N, K, B, S, Q, T]
        most = np.maximum.reduce(scores, axis=2) if self._blocks > 1 else scores[:, :, 0]
        scores -= np.maximum.reduce(most, axis=-1, keepdims=True)[:, :, None]
        np.exp(scores, out=scores)
        np.matmul(scores, values.swapaxes(1, 2), out=self._values)  # [N, K, B, 1, T, E]
        weights = np.add.reduce(scores, axis=2) if self._blocks > 1 else scores[:, :, 0]
        np.add.reduce(weights, axis=-1, keepdims=True, out=self._total)  # of [N, K, S, Q, T]
        if self._blocks > 1:
            np.add.reduce(self._values, axis=2, out=self._value)
        np.divide(self._found, self._sum, out=out.reshape(self._found.shape))
