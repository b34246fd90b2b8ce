"""Typed access to a `config.json`: missing keys have defaults, errors name the key."""

import json
import math
from copy import copy
from pathlib import Path
from typing import Any

from streamtok.errors import ModelError
from streamtok.model.config import read_json


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
