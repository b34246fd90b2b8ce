"""The shape of a model, read from a Hugging Face folder's `config.json`.

Knows no family's quirks (`streamtok.model.families` turns each family's keys into this form) and
loads no tensor (`streamtok.model.weights`).

Read next: `streamtok.model.families`.
"""

import json
import math
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamtok.errors import ModelError
from streamtok.model.rope import Rope


@dataclass(frozen=True, slots=True)
class Names:
    """What a checkpoint calls its tensors.

    Files that hold the model without its head leave out the prefix `base`. A layer's tensors begin
    with `layer`, which has the place of its number.
    """

    base: str
    embedding: str
    head: str
    layer: str


LLAMA = Names("model.", "model.embed_tokens.weight", "lm_head.weight", "model.layers.{}.")


@dataclass(frozen=True, slots=True)
class ModelConfig:
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
    rope: Rope
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


class ConfigReader:
    """Typed access to a `config.json`, with errors that name the file and the key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._values = read_json(path)
        self._within = ""

    def section(self, key: str) -> "ConfigReader":
        """Return access to the object under `key`; a missing or null key gives an empty one."""
        inner = copy(self)
        inner._values = self.mapping(key)
        inner._within = f"{self._within}{key}."
        return inner

    def has(self, key: str) -> bool:
        """Whether `key` is there and not null."""
        return self._values.get(key) is not None

    def is_null(self, key: str) -> bool:
        """Say whether `key` is there and null: for some keys that differs from a missing one."""
        return key in self._values and self._values[key] is None

    def integer(self, key: str, default: int | None = None, least: int = 1) -> int:
        """Return an integer from `least` on; `default` stands in for a missing or null key."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            expected = "a positive integer" if least == 1 else f"an integer from {least} on"
            raise self._wrong(key, expected, value)
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Return a positive number; `default` stands in for a missing or null key."""
        value = self._get(key, default)
        if not _is_positive(value):
            raise self._wrong(key, "a positive number", value)
        return float(value)

    def numbers(self, key: str) -> list[float]:
        """Return an array of positive numbers."""
        values = self.array(key, [])
        if not all(map(_is_positive, values)):
            raise self._wrong(key, "positive numbers", values)
        return [float(value) for value in values]

    def flag(self, key: str, default: bool) -> bool:
        """Return a boolean; `default` stands in for a missing or null key."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false", value)
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """Return a string; `default` stands in for a missing or null key."""
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, "a string", value)
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        """Return an object; a missing or null key gives an empty one."""
        value = self._get(key, {})
        if not isinstance(value, dict):
            raise self._wrong(key, "an object", value)
        return value

    def array(self, key: str, default: list[Any]) -> list[Any]:
        """Return an array; `default` stands in for a missing or null key."""
        value = self._get(key, default)
        if not isinstance(value, list):
            raise self._wrong(key, "an array", value)
        return value

    def require(self, key: str, expected: Any) -> None:
        """Insist that `key` is absent, null or `expected`: other values are not implemented.

        Raises:
            ModelError: the key has another value.
        """
        value = self._get(key, expected)
        if value != expected:
            raise self._wrong(key, f"{json.dumps(expected)} (nothing else is supported)", value)

    def refuse(self, key: str, expected: str) -> ModelError:
        """Return the error that `key` is not what was `expected`."""
        return self._wrong(key, expected, self._values.get(key))

    def _get(self, key: str, default: Any) -> Any:
        value = self._values.get(key)
        return default if value is None else value

    def _wrong(self, key: str, expected: str, value: Any) -> ModelError:
        found = "nothing" if value is None else json.dumps(value)
        return ModelError(f"{self.path}: {self._within}{key}: expected {expected}, found {found}")


def _is_positive(value: Any) -> bool:
    """Whether a value of JSON is a positive number, which JSON's own NaN and Infinity are not."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value > 0
