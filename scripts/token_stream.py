"""The endless stream of training rows, cut from whole documents.

Every row begins with the beginning of a document, so that what a story is asked for stands before
it; only the last document of a row may be cut short. Which rows a step gets depends on the seed and
the step alone, so a run that was killed goes on with the same data. It does not tokenise: see
`chat_tokenizer.py`.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.uint16]
CHOICE = 64  # documents to choose the next one of a row from


def fill_row(waiting: deque[Tokens], length: int) -> Tokens:
    """Take documents off `waiting` for one row, `[length]`.

    The oldest comes first; then always the longest of the next few that fits. Where none does, the
    beginning of the oldest fills the row and its rest is lost.
    """
    row = [waiting.popleft()[:length]]
    room = length - len(row[0])
    while room and waiting:
        few = range(min(CHOICE, len(waiting)))
        best = max(few, key=lambda i: len(waiting[i]) if len(waiting[i]) <= room else 0)
        row.append(waiting[best][:room])
        del waiting[best]
        room -= len(row[-1])
    return np.concatenate(row)


class TokenStream:
    """Passes over the documents one after another, each pass in a new order.

    Document `i` comes `repeats[i]` times a pass.
    """

    def __init__(self, sequences: list[list[int]], repeats: list[int], seed: int) -> None:
        arrays = [np.array(sequence, dtype=np.uint16) for sequence in sequences]
        self.documents = [a for a, n in zip(arrays, repeats, strict=True) for _ in range(n)]
        self._seed = seed
        self.pass_length = sum(map(len, self.documents))  # tokens
        self._pass = lru_cache(maxsize=2)(self._pack)

    def _pack(self, index: int, length: int) -> Tokens:
        """Pass number `index` in rows, `[rows, length]`; an incomplete last row is left out."""
        order = np.random.default_rng((self._seed, index, length)).permutation(len(self.documents))
        waiting = deque(self.documents[i] for i in order)
        rows = []
        while waiting:
            rows.append(fill_row(waiting, length))
        return np.stack([row for row in rows if len(row) == length])

    def read(self, start: int, count: int, length: int) -> Tokens:
        """Rows `start` to `start + count` of the stream of rows of `length`: `[count, length]`."""
        rows_per_pass = len(self._pass(0, length))
        parts = []
        while count:
            index, offset = divmod(start, rows_per_pass)
            part = self._pass(index, length)[offset : offset + count]  # [at most count, length]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(parts)
