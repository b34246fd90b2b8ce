"""The rows of one pass: which positions of which sequences, their cache slots, their masks.

Everything that is the same for all layers is made here, once.

Read next: `streamtok.model.attention`.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from streamtok.model.attention import KVCache, Positions, Rows
from streamtok.model.config import ModelConfig
from streamtok.model.exact.batch_invariance import BLOCK, STRIDE, Tiling
from streamtok.model.weights import Array


class Segment(Struct, frozen=True):
    """Part of one pass: `ids` [N, R] at `positions` [N, R] of the neighbouring slots `slots`.

    Decoding is N sequences of one position each, prefill one sequence of R positions. Logits are
    computed after the last `sampled` positions of each sequence. The final states of all positions
    are wanted where it is `pooled`.
    """

    slots: slice
    ids: npt.NDArray[np.intp]
    positions: Positions
    sampled: int
    pooled: bool = False


class Batch:
    """The rows of `segments`, one below the other: `ids` [rows] at `positions` [rows].

    `padded` is their number with those that fill up a tile. Row i of `padded` is of no sequence
    where i is beyond `rows`. `parts` are the segments with their rows.
    """

    def __init__(
        self, config: ModelConfig, tiling: Tiling, cache: KVCache, segments: Sequence[Segment]
    ) -> None:
        self.ids = np.concatenate([segment.ids.ravel() for segment in segments])  # [rows]
        self.positions = np.concatenate([s.positions.ravel() for s in segments])  # [rows]
        self.rows = len(self.ids)
        self.padded = tiling.padded(self.rows)
        self._config, self._tiling, self.cache = config, tiling, cache
        slots = [
            np.repeat(np.arange(s.slots.start, s.slots.stop), s.ids.shape[1]) for s in segments
        ]
        blocks, at = np.divmod(self.positions, BLOCK)
        self._places = (np.concatenate(slots), blocks, at, *np.divmod(at, STRIDE))
        self.parts: list[tuple[slice, Segment]] = []
        self._looks: dict[int, Rows] = {}  # of the parts that were looked at
        start = 0
        for segment in segments:
            stop = start + segment.ids.size
            self.parts.append((slice(start, stop), segment))
            start = stop

    def store(self, layer: int, heads: Array, rows: slice) -> None:
        """Store the keys and values of `rows`, in `heads` [len(rows), H + 2K, E]."""
        places = tuple(one[rows] for one in self._places)
        self.cache.store(layer, places, heads[: len(places[0]), self._config.heads :])

    def attend(self, layer: int, heads: Array, out: Array) -> None:
        """Gather for the queries in `heads` [padded, H + 2K, E], into `out` [padded, H * E]."""
        for index in range(len(self.parts)):
            self.attend_part(index, heads, out, layer)

    def attend_part(self, index: int, heads: Array, out: Array, layer: int) -> None:
        """Gather for one of `parts`; see `attend`."""
        part, segment = self.parts[index]
        if index not in self._looks:
            self._looks[index] = Rows(self._config, self._tiling, segment.slots, segment.positions)
        queries, window = heads[part, : self._config.heads], self._config.window_of(layer)
        self._looks[index].attend(self.cache.layers[layer], queries, out[part], window)

    def pooled(self, x: Array) -> Array:
        """Return the rows of `x` [padded, D] whose final states are wanted: [pooled, D]."""
        return np.concatenate([x[:0], *(x[part] for part, s in self.parts if s.pooled)])

    def sampled(self, x: Array) -> tuple[Array, int]:
        """Return the sampled positions of every sequence in `x` [padded, D], and how many they are.

        The result is [sampled padded, D]: padded with zeros.
        """
        wanted: list[int] = []
        start = 0
        for _, segment in self.parts:
            count, length = segment.ids.shape
            for _ in range(count):
                start += length
                wanted.extend(range(start - segment.sampled, start))
        if len(wanted) == self.padded:
            return x, len(wanted)
        size = self._tiling.padded(len(wanted))
        rows = np.zeros((size, x.shape[1]), np.float32)  # [sampled padded, D]
        rows[: len(wanted)] = x[wanted]
        return rows, len(wanted)
