"""The endless stream of training batches: one document a row, rows of about one length together.

The mixture comes in parts, each of which is read once; nothing of an invented part comes back.
A batch consists of several passes, `[rows, length]`, of documents that are about equally long, so
that little of a pass is padding and no document has to be kept from seeing another. Which batch
comes next depends on the seed, the part and the batch's number in it alone, so a run that was
stopped goes on with the same data. It does not tokenise: see `chat_tokenizer.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.uint16]
Batch = list[Tokens]  # the passes of one step
LONGEST = 1024  # tokens that are read of a document; the rest is lost
PADDING = 0  # the token that begins every document, so that padding says that one has ended


def padded(documents: list[Tokens]) -> Tokens:
    """The documents as rows, `[rows, length]`, filled up to the longest and one token more."""
    rows = np.full((len(documents), max(map(len, documents)) + 1), PADDING, dtype=np.uint16)
    for row, document in zip(rows, documents, strict=True):
        row[: len(document)] = document
    return rows


def passes_of(documents: list[Tokens], pass_tokens: int) -> list[Tokens]:
    """All documents in passes of at most `pass_tokens` tokens, padding included, or one row."""
    passes: list[Tokens] = []
    group: list[Tokens] = []
    for document in sorted(documents, key=len):
        if group and (len(group) + 1) * len(document) > pass_tokens:
            passes.append(padded(group))
            group = []
        group.append(document)
    return [*passes, padded(group)]


def batches_of(
    sequences: list[list[int]], batch_tokens: int, pass_tokens: int, rng: np.random.Generator
) -> list[Batch]:
    """The documents of a part in batches of at least `batch_tokens` tokens, in a random order.

    What is left at the end of a part and does not fill a batch is left out.
    """
    documents = [np.array(sequence[:LONGEST], dtype=np.uint16) for sequence in sequences]
    documents = [documents[i] for i in rng.permutation(len(documents))]
    passes = passes_of(documents, pass_tokens)
    batches: list[Batch] = []
    batch: Batch = []
    for i in rng.permutation(len(passes)):
        batch.append(passes[i])
        if sum(rows.size for rows in batch) >= batch_tokens:
            batches.append(batch)
            batch = []
    return batches


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
        self,
        sequences_of: Callable[[int], list[list[int]]],
        batch_tokens: int,
        pass_tokens: int,
        seed: int,
    ) -> None:
        self._sequences_of = sequences_of
        self._batch_tokens = batch_tokens
        self._pass_tokens = pass_tokens
        self._seed = seed
        self._place = Place()
        self._batches: list[Batch] = []
        self._digest = ""  # of all batches read

    def read(self) -> Batch:
        """The passes of the next batch, each `[rows, length]`."""
        if not self._batches:
            self._load()
        if self._place.batch == len(self._batches):
            self._place = Place(self._place.part + 1)
            self._load()
        batch = self._batches[self._place.batch]
        self._place.batch += 1
        read = b"".join(rows.tobytes() for rows in batch)
        self._digest = hashlib.sha256(self._digest.encode() + read).hexdigest()
        return batch

    def _load(self) -> None:
        rng = np.random.default_rng((self._seed, self._place.part))
        self._batches = batches_of(
            self._sequences_of(self._place.part), self._batch_tokens, self._pass_tokens, rng
        )
        self._place.batch = min(self._place.batch, len(self._batches) - 1)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on from here."""
        return {**asdict(self._place), "digest": self._digest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` returned."""
        self._digest = state["digest"]
        self._place = Place(state["part"], state["batch"])
        self._batches = []
