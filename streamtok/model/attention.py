"""Attention over cached keys and values, exact in any company and in any chunking of a prompt.

Time is cut into blocks of `BLOCK` positions. Scores and weighted values are computed block by block
in products of one fixed shape, and the blocks are added in order: a longer neighbour in the batch
only appends blocks whose weights are exactly zero, which changes no bit of a sum.

Shape letters: N sequences, R positions of each, H query heads, K key-value heads, G = H / K,
E width of a head, B blocks, Q rows of a tile.
"""

import numpy as np
import numpy.typing as npt

from streamtok.model.config import ModelConfig
from streamtok.model.linear import GRANULE, TILE, padded
from streamtok.model.weights import Array

BLOCK = 64  # positions of one product

Positions = npt.NDArray[np.intp]


class KVCache:
    """The keys and values of every position computed so far, for `slots` sequences.

    One array [slots, K, capacity, E] per layer for keys and one for values. `capacity` is the
    context rounded up to whole blocks. The operating system provides a page when it is first
    written, so that a slot costs memory only as far as it was used.
    """

    def __init__(self, config: ModelConfig, slots: int) -> None:
        self.capacity = _capacity(config)
        shape = (slots, config.kv_heads, self.capacity, config.head_dim)
        self.keys = [np.zeros(shape, np.float32) for _ in range(config.layers)]
        self.values = [np.zeros(shape, np.float32) for _ in range(config.layers)]

    def write(self, layer: int, rows: "Rows", keys: Array, values: Array) -> None:
        """Store `keys` and `values`, each [N, R, K, E], at the positions of `rows`."""
        slots = np.arange(rows.slots.start, rows.slots.stop)[:, None]  # [N, 1]
        self.keys[layer][slots, :, rows.positions] = keys
        self.values[layer][slots, :, rows.positions] = values

    def copy(self, source: int, target: int, positions: slice) -> None:
        """Give slot `target` what slot `source` holds at `positions`."""
        for array in (*self.keys, *self.values):
            array[target, :, positions] = array[source, :, positions]

    def clear(self, slot: int) -> None:
        """Zero a slot: a value that is not finite would otherwise outlive its sequence there."""
        for array in (*self.keys, *self.values):
            array[slot] = 0.0


def slot_bytes(config: ModelConfig) -> int:
    """Return how much memory one slot takes when its context is full."""
    position = 2 * config.layers * config.kv_heads * config.head_dim * np.dtype(np.float32).itemsize
    return position * _capacity(config)


def _capacity(config: ModelConfig) -> int:
    return padded(config.context, BLOCK)


class Rows:
    """Which positions of which slots are computed in one step, and what each may look at.

    `slots` are neighbours in the cache, `positions` [N, R] count from 0 in each sequence. The mask
    is made once and serves every layer.
    """

    def __init__(self, config: ModelConfig, slots: slice, positions: Positions) -> None:
        self.slots = slots
        self.positions = positions
        self.count, self.length = positions.shape
        self.blocks = int(positions.max()) // BLOCK + 1
        queries = self.length * config.group
        self.tile = GRANULE if queries <= GRANULE else TILE
        self.queries = padded(queries, self.tile)
        at = np.zeros((self.count, self.queries), np.intp)  # [N, tiles * Q]
        at[:, :queries] = np.repeat(positions, config.group, axis=1)
        at = at.reshape(self.count, 1, 1, -1, self.tile, 1)  # [N, 1, 1, tiles, Q, 1]
        time = np.arange(self.blocks * BLOCK).reshape(-1, 1, 1, BLOCK)  # [B, 1, 1, BLOCK]
        seen = time <= at  # [N, 1, B, tiles, Q, BLOCK]
        if config.window is not None:
            seen &= time > at - config.window
        # [N, 1, B, tiles, Q, BLOCK]: 0 where a query may look, -inf in its future or too far back
        self.mask = np.where(seen, np.float32(0), np.float32(-np.inf))


def attend(config: ModelConfig, cache: KVCache, layer: int, rows: Rows, q: Array) -> Array:
    """Return what the queries `q` [N, R, H, E], scaled already, gather: [N, R, H * E]."""
    count, heads, width = rows.count, config.kv_heads, config.head_dim
    used = (rows.slots, slice(None), slice(rows.blocks * BLOCK))
    blocked = (count, heads, rows.blocks, 1, BLOCK, width)
    keys = cache.keys[layer][used].reshape(blocked)  # [N, K, B, 1, BLOCK, E]
    values = cache.values[layer][used].reshape(blocked)  # [N, K, B, 1, BLOCK, E]

    grouped = q.reshape(count, rows.length, heads, config.group, width)  # [N, R, K, G, E]
    real = rows.length * config.group
    tiles = np.zeros((count, heads, rows.queries, width), np.float32)  # [N, K, tiles * Q, E]
    tiles[:, :, :real] = grouped.transpose(0, 2, 1, 3, 4).reshape(count, heads, real, width)
    tiles = tiles.reshape(count, heads, 1, -1, rows.tile, width)  # [N, K, 1, tiles, Q, E]

    scores = np.matmul(tiles, keys.swapaxes(-1, -2))  # [N, K, B, tiles, Q, BLOCK]
    scores += rows.mask
    scores -= np.maximum.reduce(scores, axis=(2, 5), keepdims=True)
    np.exp(scores, out=scores)
    total = np.add.reduce(np.add.reduce(scores, axis=-1), axis=2)  # [N, K, tiles, Q]
    gathered = np.add.reduce(np.matmul(scores, values), axis=2)  # [N, K, tiles, Q, E]
    gathered /= total[..., None]

    flat = gathered.reshape(count, heads, rows.queries, width)[:, :, :real]  # [N, K, R * G, E]
    split = flat.reshape(count, heads, rows.length, config.group, width)  # [N, K, R, G, E]
    found: Array = split.transpose(0, 2, 1, 3, 4).reshape(count, rows.length, -1)  # [N, R, H * E]
    return found
