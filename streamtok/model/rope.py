"""How fast each pair of a head turns with the position: rotary embedding and its stretched forms.

Rotary position embedding (arXiv:2104.09864) turns pair i of a head by theta^(-2i/E) per position.
A model trained on short texts reads longer ones if its turns are slowed down. The turning itself
is in `streamtok.model.reference` and, laid out for speed, in `streamtok.model.decoder`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Bands:
    """Which pairs Llama 3.1 slows down (arXiv:2407.21783), by full turns within `context` tokens.

    Pairs with more than `high` turns keep their speed, those with fewer than `low` are slowed by
    the whole factor, and those between in proportion.
    """

    context: int
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Rope:
    """The base `theta` and the `factor` by which turns are slowed: all, or as `bands` say."""

    theta: float
    factor: float = 1.0
    bands: Bands | None = None

    def speeds(self, head_dim: int) -> npt.NDArray[np.float64]:
        """Return the angle per position of each pair of a head, in radians: [E/2]."""
        half = head_dim // 2
        speeds = self.theta ** (-np.arange(half) / half)  # [E/2]
        slowed: npt.NDArray[np.float64] = speeds / self.factor  # [E/2]
        if self.bands is None:
            return slowed
        turns = self.bands.context * speeds / (2 * np.pi)  # [E/2]
        kept = np.clip((turns - self.bands.low) / (self.bands.high - self.bands.low), 0, 1)
        mixed: npt.NDArray[np.float64] = kept * speeds + (1 - kept) * slowed  # [E/2]
        return mixed
