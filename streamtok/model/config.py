"""The shape of a model: sizes, and the flags by which families differ.

Knows no family's keys: `streamtok.model.families` reads each family's `config.json` into this form.

Read next: `streamtok.model.rope`.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from streamtok.errors import ModelError

if TYPE_CHECKING:  # who reads a folder's JSON alone needs no numpy
    from streamtok.model.rope import Rope


class Names(Struct, frozen=True):
    """What a checkpoint calls its tensors.

    Files that hold the model without its head leave out the prefix `base`. A layer's tensors begin
    with `layer`, which has the place of its number.
    """

    base: str
    embedding: str
    head: str
    layer: str


LLAMA = Names("model.", "model.embed_tokens.weight", "lm_head.weight", "model.layers.{}.")


class ModelConfig(Struct, frozen=True):
    """A decoder-only transformer of the Llama line: sizes in elements, `context` in tokens.

    The fields with a default are what sets its families apart. The first `rotary_dim` numbers of
    each head's queries and keys are rotated by their position, except in `no_rope_layers`;
    `qk_norm` normalises each head of them first. With a `window` a position looks at that many
    positions at most, itself included, except in `full_layers`. `activation` is one of those in
    `streamtok.model.activation`. `norm_offset` is added to every norm's weight, `embed_scale`
    multiplies embeddings. A file may have queries, keys and values in one `fused` tensor, and so
    gate and up.
    """

    vocab: int
    dim: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    context: int
    norm_eps: float
    rope: "Rope"
    rotary_dim: int
    tied: bool
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    window: int | None = None
    full_layers: frozenset[int] = frozenset()
    no_rope_layers: frozenset[int] = frozenset()
    activation: str = "silu"
    norm_offset: float = 0.0
    embed_scale: float = 1.0
    fused: bool = False

    @property
    def names(self) -> Names:
        """What a checkpoint calls its two largest tensors, and the model within it."""
        return LLAMA

    @property
    def group(self) -> int:
        """How many query heads share one key-value head (GQA, arXiv:2305.13245)."""
        return self.heads // self.kv_heads

    @property
    def parameters(self) -> int:
        """How many weights the model has; a tied head counts once."""
        attention = self.dim * self.head_dim * 2 * (self.heads + self.kv_heads)
        bias = self.qkv_bias * self.head_dim * (self.heads + 2 * self.kv_heads)
        bias += self.out_bias * self.dim + self.mlp_bias * (2 * self.hidden + self.dim)
        norms = 2 * self.dim + self.qk_norm * 2 * self.head_dim
        layer = attention + bias + norms + 3 * self.dim * self.hidden
        embeddings = self.vocab * self.dim * (1 if self.tied else 2)
        return self.layers * layer + embeddings + self.dim

    def window_of(self, layer: int) -> int | None:
        """Return how many positions one looks back on in a layer, itself included; None for all."""
        return None if layer in self.full_layers else self.window


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in the file `path`.

    Raises:
        ModelError: the file is missing, unreadable, not JSON, or not an object.
    """
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value
