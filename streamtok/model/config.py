"""The shape of a model, read from a Hugging Face folder's `config.json`.

Knows no family's quirks (`streamtok.model.families` turns each family's keys into this form) and
loads no tensor (`streamtok.model.weights`).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamtok.errors import ModelError


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A decoder-only transformer of the Llama line: sizes in elements, `context` in tokens."""

    vocab: int
    dim: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    context: int
    norm_eps: float
    rope_theta: float
    tied: bool

    @property
    def group(self) -> int:
        """How many query heads share one key-value head (GQA, arXiv:2305.13245)."""
        return self.heads // self.kv_heads

    @property
    def parameters(self) -> int:
        """How many weights the model has; a tied head counts once."""
        attention = self.dim * self.head_dim * 2 * (self.heads + self.kv_heads)
        layer = attention + 3 * self.dim * self.hidden + 2 * self.dim
        embeddings = self.vocab * self.dim * (1 if self.tied else 2)
        return self.layers * layer + embeddings + self.dim


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

    def integer(self, key: str, default: int | None = None) -> int:
        """Return a positive integer; `default` stands in for a missing or null key."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self._wrong(key, "a positive integer", value)
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Return a positive number; `default` stands in for a missing or null key."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise self._wrong(key, "a positive number", value)
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """Return a boolean; `default` stands in for a missing or null key."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false", value)
        return value

    def text(self, key: str) -> str:
        """Return a string."""
        value = self._get(key, None)
        if not isinstance(value, str):
            raise self._wrong(key, "a string", value)
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        """Return an object; a missing or null key gives an empty one."""
        value = self._get(key, {})
        if not isinstance(value, dict):
            raise self._wrong(key, "an object", value)
        return value

    def require(self, key: str, expected: Any) -> None:
        """Insist that `key` is absent, null or `expected`: other values are not implemented.

        Raises:
            ModelError: the key has another value.
        """
        value = self._get(key, expected)
        if value != expected:
            raise self._wrong(key, f"{json.dumps(expected)} (nothing else is supported)", value)

    def _get(self, key: str, default: Any) -> Any:
        value = self._values.get(key)
        return default if value is None else value

    def _wrong(self, key: str, expected: str, value: Any) -> ModelError:
        found = "nothing" if value is None else json.dumps(value)
        return ModelError(f"{self.path}: {key}: expected {expected}, found {found}")
