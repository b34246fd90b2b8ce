"""The endless stream of training tokens, and the batches cut from it.

Where a batch starts in the stream depends on the seed and the step alone, so a run that was killed
goes on with the same data. It does not tokenise: see `chat_tokenizer.py`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.uint16]


class TokenStream:
    """Passes over the documents one after another, each pass in a new order.

    Document `i` comes `repeats[i]` times a pass.
    """

    def __init__(self, sequences: list[list[int]], repeats: list[int], seed: int) -> None:
        arrays = [np.array(sequence, dtype=np.uint16) for sequence in sequences]
        self._documents = [a for a, n in zip(arrays, repeats, strict=True) for _ in range(n)]
        self._seed = seed
        self.pass_length = sum(map(len, self._documents))  # tokens
        self._pass = lru_cache(maxsize=2)(self._shuffle)

    def _shuffle(self, index: int) -> Tokens:
        """Pass number `index`, `[pass_length]`."""
        order = np.random.default_rng((self._seed, index)).permutation(len(self._documents))
        return np.concatenate([self._documents[i] for i in order])

    def read(self, start: int, count: int) -> Tokens:
        """Tokens `start` to `start + count` of the stream, `[count]`."""
        parts = []
        while count:
            index, offset = divmod(start, self.pass_length)
            part = self._pass(index)[offset : offset + count]  # [at most count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(parts)
