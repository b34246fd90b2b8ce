"""The endless stream of training batches, cut from whole documents.

The mixture comes in parts, each of which is packed and read once; nothing of an invented part
comes back. Every row begins with the beginning of a document, so that what a story is asked for
stands before it; only the last document of a row may be cut short. Which batch comes next depends
on the seed, the part and the batch's number in it alone, so a run that was stopped goes on with
the same data. It does not tokenise: see `chat_tokenizer.py`.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.uint16]
CHOICE = 64  # documents to choose the next one of a row from
SHORT_BLOCK = 512  # tokens; short rows are faster
LONG_BLOCK = 1024  # tokens, for the documents that are longer than a short row


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


def pack(documents: list[Tokens], length: int) -> list[Tokens]:
    """All documents in rows of `length`; an incomplete last row is left out."""
    waiting = deque(documents)
    rows = []
    while waiting:
        rows.append(fill_row(waiting, length))
    return [row for row in rows if len(row) == length]


def batches_of(
    sequences: list[list[int]], batch_tokens: int, rng: np.random.Generator
) -> list[Tokens]:
    """The documents of a part in batches, `[rows, block + 1]`, in a random order.

    Documents longer than a short row go into long ones, together with as many short documents as
    fill these rows.
    """
    documents = [np.array(sequence, dtype=np.uint16) for sequence in sequences]
    documents = [documents[i] for i in rng.permutation(len(documents))]
    batches = []
    long = [d for d in documents if len(d) > SHORT_BLOCK + 1]
    short = [d for d in documents if len(d) <= SHORT_BLOCK + 1]
    fillers = len(long) * LONG_BLOCK // (4 * SHORT_BLOCK)  # short documents for the rows' ends
    for block, group in ((LONG_BLOCK, long + short[:fillers]), (SHORT_BLOCK, short[fillers:])):
        rows = pack(group, block + 1)
        count = batch_tokens // block
        batches += [np.stack(rows[i : i + count]) for i in range(0, len(rows) - count + 1, count)]
    return [batches[i] for i in rng.permutation(len(batches))]


@dataclass
class Place:
    """Where a run is in the stream: the part, and the next batch in it."""

    part: int = 0
    batch: int = 0


class TokenStream:
    """Batches of one part of the mixture after another.

    `sequences_of` returns the token ids of all documents of a part.
    """

    def __init__(
        self, sequences_of: Callable[[int], list[list[int]]], batch_tokens: int, seed: int
    ) -> None:
        self._sequences_of = sequences_of
        self._batch_tokens = batch_tokens
        self._seed = seed
        self._place = Place()
        self._batches: list[Tokens] = []
        self._digest = ""  # of all batches read

    def read(self) -> Tokens:
        """The next batch, `[rows, block + 1]`."""
        if not self._batches:
            self._load()
        if self._place.batch == len(self._batches):
            self._place = Place(self._place.part + 1)
            self._load()
        batch = self._batches[self._place.batch]
        self._place.batch += 1
        self._digest = hashlib.sha256(self._digest.encode() + batch.tobytes()).hexdigest()
        return batch

    def _load(self) -> None:
        rng = np.random.default_rng((self._seed, self._place.part))
        self._batches = batches_of(self._sequences_of(self._place.part), self._batch_tokens, rng)
        self._place.batch = min(self._place.batch, len(self._batches) - 1)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on from here."""
        return {**asdict(self._place), "digest": self._digest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` returned."""
        self._digest = state["digest"]
        self._place = Place(state["part"], state["batch"])
        self._batches = []
