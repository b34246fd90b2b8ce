"""Scaled rotary frequencies, for texts longer than those a model first learned.

The definitions are those of transformers' `modeling_rope_utils`.
"""

import math

import numpy as np
from msgspec import Struct

from streamtok.model.rope import Frequencies


class Linear(Struct, frozen=True):
    """All frequencies are divided by `factor` (arXiv:2306.15595)."""

    factor: float

    def scaled(self, frequencies: Frequencies, theta: float) -> Frequencies:
        """See `Scaling.scaled`."""
        return frequencies / self.factor


class Llama3(Struct, frozen=True):
    """Divided by `factor` are those with few rotations within `context` tokens (arXiv:2407.21783).

    Pairs with more than `high` rotations keep their frequency, those with fewer than `low` have it
    divided by the whole factor, and those between in proportion.
    """

    factor: float
    context: int
    low: float
    high: float

    def scaled(self, frequencies: Frequencies, theta: float) -> Frequencies:
        """See `Scaling.scaled`."""
        rotations = self.context * frequencies / (2 * np.pi)  # [R/2]
        kept = np.clip((rotations - self.low) / (self.high - self.low), 0, 1)
        mixed: Frequencies = kept * frequencies + (1 - kept) * frequencies / self.factor
        return mixed


class Yarn(Struct, frozen=True):
    """As `Llama3`, but in proportion to the number of the pair (arXiv:2309.00071).

    Between the pairs that rotate `fast` and `slow` times within `context` tokens the share grows;
    the two are rounded to whole pairs where it is to `truncate`.
    """

    factor: float
    context: int
    fast: float = 32.0
    slow: float = 1.0
    truncate: bool = True

    def scaled(self, frequencies: Frequencies, theta: float) -> Frequencies:
        """See `Scaling.scaled`."""
        half = len(frequencies)
        first, last = (self._pair(times, 2 * half, theta) for times in (self.fast, self.slow))
        if self.truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, 2 * half - 1)
        last += 0.001 if first == last else 0  # as transformers does, against a division by zero
        slowed = np.clip((np.arange(half) - first) / (last - first), 0, 1)  # [R/2]
        mixed: Frequencies = slowed * frequencies / self.factor + (1 - slowed) * frequencies
        return mixed

    def _pair(self, times: float, width: int, theta: float) -> float:
        """Return the number of the pair that rotates so many times within the context."""
        return width * math.log(self.context / (times * 2 * math.pi)) / (2 * math.log(theta))


class LongRope(Struct, frozen=True):
    """Each frequency is divided by its own of `factors` (LongRoPE, arXiv:2402.13753).

    A checkpoint has a second list for texts longer than `context`. Where a text grows over that,
    every key that was computed so far would be wrong, so the model is served for texts up to
    `context`, for which this list is right.
    """

    factors: tuple[float, ...]
    context: int

    def scaled(self, frequencies: Frequencies, theta: float) -> Frequencies:
        """See `Scaling.scaled`."""
        divided: Frequencies = frequencies / np.array(self.factors)
        return divided
