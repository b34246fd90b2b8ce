"""An interpolated Kneser-Ney 5-gram model over tokens: the baseline that the decoder must beat.

It reads the same training text through the same tokenizer, counts, and gives held-out text its
price in bits. It generates nothing. `evaluate.py` prints its figures beside the decoder's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ORDER = 5
TOKEN_BITS = 12  # five tokens fit into one 64-bit key
DISCOUNT = 0.75

Keys = NDArray[np.int64]
Floats = NDArray[np.float64]


def ngram_keys(sequences: list[list[int]], order: int) -> Keys:
    """The n-gram that ends at each token but the first of every sequence, as one integer.

    The first token is repeated to the left, so that every token has a whole context.
    """
    padded = [[sequence[0]] * (ORDER - 2) + sequence for sequence in sequences]
    tokens = np.concatenate([np.array(row, dtype=np.int64) for row in padded])  # [tokens]
    keys = np.zeros(len(tokens) - ORDER + 1, dtype=np.int64)  # [windows]
    for i in range(ORDER - order, ORDER):
        keys = (keys << TOKEN_BITS) | tokens[i : i + len(keys)]  # [windows]
    begins = np.cumsum([0, *map(len, padded[:-1])])  # [sequences]
    lengths = np.array([len(sequence) - 1 for sequence in sequences])  # [sequences]
    inside = np.zeros(len(keys) + 1, dtype=np.int64)  # [windows + 1]
    np.add.at(inside, begins, 1)
    np.add.at(inside, begins + lengths, -1)
    return keys[np.cumsum(inside[:-1]) > 0]  # [predicted tokens]


def look_up(table: Keys, values: Keys, keys: Keys) -> Keys:
    """The value of each key in a sorted table, 0 where it is missing; `[keys]`."""
    at = np.minimum(np.searchsorted(table, keys), len(table) - 1)  # [keys]
    return np.where(table[at] == keys, values[at], 0)


@dataclass(frozen=True)
class Counts:
    """The n-grams of one order and, by their context, how many there are."""

    ngrams: Keys
    counts: Keys
    contexts: Keys
    totals: Keys
    followers: Keys

    @classmethod
    def of(cls, ngrams: Keys, counts: Keys) -> Counts:
        """Count by context; `ngrams` are sorted and distinct."""
        contexts, first = np.unique(ngrams >> TOKEN_BITS, return_index=True)  # [contexts]
        totals = np.add.reduceat(counts, first)  # [contexts]
        followers = np.diff(np.append(first, len(ngrams)))  # [contexts]
        return cls(ngrams, counts, contexts, totals, followers)


class KneserNey:
    """Chen and Goodman (1998), section 2.7, with one discount for all orders."""

    def __init__(self, sequences: list[list[int]], vocab_size: int) -> None:
        self._vocab_size = vocab_size
        ngrams, counts = np.unique(ngram_keys(sequences, ORDER), return_counts=True)  # [ngrams]
        self._orders = [Counts.of(ngrams, counts)]
        for order in range(ORDER - 1, 0, -1):
            shorter = ngrams & ((1 << TOKEN_BITS * order) - 1)  # [ngrams]
            ngrams, counts = np.unique(shorter, return_counts=True)  # distinct left neighbours
            self._orders.insert(0, Counts.of(ngrams, counts))

    def total_bits(self, sequences: list[list[int]]) -> float:
        """Bits for all tokens but the first of every sequence."""
        return float(-np.log2(self.probabilities(sequences)).sum())

    def probabilities(self, sequences: list[list[int]]) -> Floats:
        """The probability of every token but the first of every sequence, `[tokens]`."""
        longest = ngram_keys(sequences, ORDER)  # [tokens]
        probability = np.full(len(longest), 1 / self._vocab_size)  # [tokens]
        for order, table in enumerate(self._orders, start=1):
            keys = longest & ((1 << TOKEN_BITS * order) - 1)  # [tokens]
            contexts = keys >> TOKEN_BITS  # [tokens]
            count = look_up(table.ngrams, table.counts, keys)  # [tokens]
            total = look_up(table.contexts, table.totals, contexts)  # [tokens]
            followers = look_up(table.contexts, table.followers, contexts)  # [tokens]
            known = np.maximum(count - DISCOUNT, 0) + DISCOUNT * followers * probability  # [tokens]
            probability = np.where(total > 0, known / np.maximum(total, 1), probability)  # [tokens]
        return probability
