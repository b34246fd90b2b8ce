"""The decoder interface, and helpers to lay out weights.

`streamtok.model.decoder` is the Llama line, `streamtok.model.gpt` the GPT line;
`streamtok.model.load` chooses. Read next: `streamtok.model.decoder`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from streamtok.model.attention import KVCache
from streamtok.model.batch import Segment
from streamtok.model.config import ModelConfig
from streamtok.model.exact.batch_invariance import Tiling
from streamtok.model.exact.linear import Linear
from streamtok.model.weights import Array

Layout = Callable[[Array], Linear]  # lays out a weight [out, in]


class Decoder(ABC):
    """A loaded model. Holds no state of any sequence: that is in the KVCache given to each pass.

    `digest` is 16 hexadecimal digits that depend on every weight.
    """

    config: ModelConfig
    tiling: Tiling
    digest: str

    def forward(self, cache: KVCache, segments: Sequence[Segment]) -> Array:
        """Compute the positions of `segments`, store their keys and values, return logits.

        The result is [sampled, V], in the order of the segments, of their slots and positions.
        """
        return self.compute(cache, segments)[0]

    @abstractmethod
    def compute(self, cache: KVCache, segments: Sequence[Segment]) -> tuple[Array, Array]:
        """Return what `forward` does, and the final states that are wanted: [pooled, D].

        The states are in the same order; they are what the last norm gives, with its weight.
        """


def matrix_shapes(config: ModelConfig) -> list[tuple[int, int]]:
    """Return the shapes of the weights, each [out, in], one for each number of terms at least."""
    return [
        (config.vocab, config.dim),
        (config.dim, config.hidden),
        (config.dim, config.heads * config.head_dim),
    ]


def side_by_side(weight: Array, head_dim: int, rotary_dim: int) -> Array:
    """Reorder each head's rows of `weight` [heads * E, ...] from (i, i + R/2) pairs to neighbours.

    Shape as given. Only the first `rotary_dim` of a head's rows are pairs. A pair whose numbers are
    neighbours in memory is one complex number, and its rotation one product. A score is a sum over
    the pairs, so that one order for queries and keys is as good as another.
    """
    rest = weight.shape[1:]
    heads = weight.reshape(-1, head_dim, *rest).copy()  # [heads, E, ...]
    halves = heads[:, :rotary_dim].reshape(-1, 2, rotary_dim // 2, *rest)  # [heads, 2, R/2, ...]
    heads[:, :rotary_dim] = halves.swapaxes(1, 2).reshape(-1, rotary_dim, *rest)
    ordered: Array = heads.reshape(weight.shape)
    return ordered
