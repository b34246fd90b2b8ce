"""Rotary position embedding: how far each pair of a head is rotated by its position.

It (arXiv:2104.09864) rotates pair i of the first R numbers of a head by theta^(-2i/R) radians per
position. A model trained on short texts reads longer ones if these frequencies are scaled; the ways
to do it are in `streamtok.model.families.scaling`. Decoders see `Rope.rotations` only.

Read next: `streamtok.model.weights`.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt
from msgspec import Struct

Frequencies = npt.NDArray[np.float64]  # [R/2]: radians per position of each pair


class Scaling(Protocol):
    """A way to change the frequencies of a model that reads longer texts than it first learned."""

    def scaled(self, frequencies: Frequencies, theta: float) -> Frequencies:
        """Return what the plain `frequencies` [R/2] are scaled to."""


class Rope(Struct, frozen=True):
    """The base `theta`, and what is done to the frequencies.

    What is rotated is multiplied by `attention_factor`, which corrects the scores for the scaling.
    """

    theta: float
    scaling: Scaling | None = None
    attention_factor: float = 1.0

    def inverse_frequencies(self, rotary_dim: int) -> Frequencies:
        """Return the radians per position of each pair of `rotary_dim` numbers: [R/2]."""
        half = rotary_dim // 2
        frequencies: Frequencies = self.theta ** (-np.arange(half) / half)  # [R/2]
        return self.scaling.scaled(frequencies, self.theta) if self.scaling else frequencies

    def rotations(self, rotary_dim: int, context: int) -> npt.NDArray[np.complex64]:
        """Return what each pair at each position is multiplied by, as complex: [context, R/2]."""
        if not rotary_dim:
            return np.zeros((context, 0), np.complex64)
        angle = np.outer(np.arange(context), self.inverse_frequencies(rotary_dim))
        exact = self.attention_factor * np.exp(1j * angle)  # [context, R/2]
        rotations: npt.NDArray[np.complex64] = exact.astype(np.complex64)
        return rotations
