"""Rows in which an answer stutters, to learn how to get out of it.

What it does: repeats a few tokens of an answer on the spot, several times, and says which tokens
those are, so that they are read but not learned. A model that has only seen good texts goes on with
whatever it has begun ("three little three little"), since what was repeated is likely to come once
more; one that has seen stutters goes on with the text. What it does not do: compute a loss (read
`trainer.py` next).
"""

from __future__ import annotations

import numpy as np
from chat_tokenizer import SPECIAL_TOKENS
from numpy.typing import NDArray

Rows = NDArray[np.int64]

SHARE = 0.15  # of the rows
LONGEST_SPAN = 6  # tokens that are repeated
MOST_TIMES = 6
SPECIAL = len(SPECIAL_TOKENS)  # their ids are the first ones
ASSISTANT = SPECIAL_TOKENS.index("<|assistant|>")


def places(row: Rows, span: int) -> NDArray[np.intp]:
    """Where in a row `span` tokens of one answer have just been written."""
    plain = row >= SPECIAL
    marks = np.where(plain, 0, np.arange(len(row)))  # of the last special token before
    last = np.maximum.accumulate(marks)
    answered = row[last] == ASSISTANT
    ends = np.arange(len(row)) + 1
    return ends[plain & answered & (ends - 1 - last >= span)]


def stutter(rows: Rows, rng: np.random.Generator) -> tuple[Rows, NDArray[np.bool_]]:
    """The rows, some of which stutter and lose as much at their end; and which tokens are extra.

    Both are `[rows, length]`, as `rows` are.
    """
    stuttered, extra = rows.copy(), np.zeros(rows.shape, dtype=np.bool_)
    for i in np.flatnonzero(rng.random(len(rows)) < SHARE):
        row, span = rows[i], int(rng.integers(1, LONGEST_SPAN + 1))
        found = places(row, span)
        if len(found) == 0:
            continue
        at = int(rng.choice(found))
        again = np.tile(row[at - span : at], int(rng.integers(1, MOST_TIMES + 1)))
        stuttered[i] = np.concatenate([row[:at], again, row[at:]])[: len(row)]
        extra[i, at : at + len(again)] = True
    return stuttered, extra
