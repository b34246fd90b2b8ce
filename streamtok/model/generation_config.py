"""`generation_config.json`: a model's end tokens and sampling defaults.

`generation_config.json` says it, which many folders lack; `config.json` has the ends in older ones.
Everything is checked here, once: what is read later is right. A null is a key that is not set.

Read next: `streamtok.model.base`.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from streamtok.errors import ModelError
from streamtok.model.config import read_json


class Range(Struct, frozen=True):
    """The numbers that a sampling parameter may have, and the neutral one, which does nothing."""

    neutral: float
    least: float
    most: float = math.inf
    whole: bool = False

    def __contains__(self, value: Any) -> bool:
        kind = int if self.whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kind):
            return False
        return math.isfinite(value) and self.least <= value <= self.most

    def __str__(self) -> str:
        kind = "an integer" if self.whole else "a number"
        end = f" to {self.most:g}" if self.most < math.inf else ""
        return f"{kind} from {self.least:g}{end}"


SAMPLING: Mapping[str, Range] = {
    "temperature": Range(1.0, least=0),
    "top_p": Range(1.0, least=0, most=1),
    "top_k": Range(0, least=-1, whole=True),  # -1 is another way to say that there is no limit
    "min_p": Range(0.0, least=0, most=1),
    "repetition_penalty": Range(1.0, least=0.01),
}


class GenerationConfig(Struct, frozen=True):
    """The tokens that end a text, and the sampling parameters of a request that names none."""

    end_ids: frozenset[int]
    sampling: Mapping[str, float]


def read_generation_config(folder: Path) -> GenerationConfig:
    """Read what `generation_config.json` says, and `config.json` where that is silent.

    Raises:
        ModelError: a value is of the wrong kind or out of range.
    """
    path = folder / "generation_config.json"
    said = read_optional(path)
    ends = _end_ids(path, said.get("eos_token_id"))
    if not ends:  # transformers has a text without end then, if there is a generation_config.json
        path_of_model = folder / "config.json"
        ends = _end_ids(path_of_model, read_optional(path_of_model).get("eos_token_id"))
    return GenerationConfig(ends, {name: _number(path, name, said.get(name)) for name in SAMPLING})


def read_optional(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`; an empty one if there is no such file.

    Raises:
        ModelError: the file is there but holds something else.
    """
    return read_json(path) if path.exists() else {}


def _end_ids(path: Path, named: Any) -> frozenset[int]:
    ids = named if isinstance(named, list) else [] if named is None else [named]
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in ids):
        raise ModelError(f"{path}: eos_token_id: expected an integer or a list of them")
    return frozenset(token for token in ids if token >= 0)  # -1 stands for none in some files


def _number(path: Path, name: str, value: Any) -> float:
    allowed = SAMPLING[name]
    if value is None:
        return allowed.neutral
    if value not in allowed:
        raise ModelError(f"{path}: {name}: expected {allowed}, found {value!r}")
    return max(0, value) if name == "top_k" else value  # type: ignore[no-any-return]
