"""Tensors out of safetensors files: mapped, checked against what is expected, made float32.

`safetensors` validates each file's header; the data is then read once, through a memory map,
straight into the arrays the caller keeps. numpy has no bfloat16, so those are widened by hand.
Knows no family's names: `streamtok.model.families.folder` says which tensor is which.

Read next: `streamtok.model.load`.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from msgspec.structs import replace
from safetensors import SafetensorError, safe_open

from streamtok.errors import ModelError
from streamtok.model.config import read_json

log = logging.getLogger(__name__)

Array: TypeAlias = npt.NDArray[np.float32]
Shape: TypeAlias = tuple[int, ...]

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
OTHERS = ("*.bin", "*.pt", "*.pth", "*.gguf", "*.npz", "*.safetensors")  # weights not read here

# safetensors' name of an element type -> the numpy type its bytes are mapped as
STORED_TYPES: Mapping[str, npt.DTypeLike] = {
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "F64": "<f8",
}
ROWS = 1024  # of two tensors that are compared, at once


class Stored(Struct, frozen=True):
    """A tensor in a file, mapped: `data` are its bytes, of the safetensors type `kind`."""

    path: Path
    kind: str
    shape: Shape
    data: npt.NDArray[np.uint8]

    def rows(self, start: int, stop: int) -> "Stored":
        """Return some rows of a tensor of two dimensions."""
        width = len(self.data) // self.shape[0]  # bytes
        part = self.data[start * width : stop * width]
        return replace(self, shape=(stop - start, *self.shape[1:]), data=part)

    def widened(self) -> Array:
        """Return a new float32 array with the same values, or those nearest to them."""
        return widen(self.kind, self.data.view(STORED_TYPES[self.kind]).reshape(self.shape))


class Checkpoint:
    """The tensors of a model, by name, to be taken once each.

    Raises:
        ModelError: a tensor is missing, of another shape than `expected`, or of a type other than
            float64, float32, float16 and bfloat16.
    """

    def __init__(
        self, folder: Path, tensors: Mapping[str, Stored], expected: Mapping[str, Shape]
    ) -> None:
        for name, shape in expected.items():
            _check(folder, name, shape, tensors)
        self._tensors = {name: tensors[name] for name in expected}
        self._digest = hashlib.blake2b(digest_size=8)

    def take(self, name: str) -> Array:
        """Return tensor `name` as a new float32 array, and release its memory map.

        Raises:
            KeyError: there is no such tensor, or it was taken before.
        """
        stored = self._tensors.pop(name)
        self._digest.update(name.encode() + stored.data.data)
        return stored.widened()

    @property
    def digest(self) -> str:
        """Return 16 hexadecimal digits that depend on every tensor taken so far, in order."""
        return self._digest.hexdigest()


def read_tensors(folder: Path, file: str | None = None) -> dict[str, Stored]:
    """Map every tensor of a model folder, under the names that its files have.

    They are in `model.safetensors`, else in the shards that `model.safetensors.index.json` lists;
    or in `file`, which is one or the other, where the configuration names it.

    Raises:
        ModelError: a file is missing or damaged, or two files have a tensor of the same name.
    """
    tensors: dict[str, Stored] = {}
    for path in _files(folder, file):
        for name, stored in _map_file(path).items():
            if name in tensors:
                raise ModelError(f"{path}: tensor {name} is in {tensors[name].path.name} too")
            tensors[name] = stored
    return tensors


def equal(one: Stored, other: Stored) -> bool:
    """Whether two tensors have the same shape and, in float32, the same values."""
    if one.shape != other.shape or not one.shape:
        return False
    if {one.kind, other.kind} - STORED_TYPES.keys():
        return False
    for start in range(0, one.shape[0], ROWS):
        part = (start, min(start + ROWS, one.shape[0]))
        if not np.array_equal(one.rows(*part).widened(), other.rows(*part).widened()):
            return False
    return True


def widen(stored: str, array: npt.NDArray[np.generic]) -> Array:
    """Return `array`, mapped from the safetensors type `stored`, as float32.

    A bfloat16 is the upper half of a float32: shifted left by 16 bits it has the same value.
    """
    if stored == "BF16":
        return np.left_shift(array.astype(np.uint32), np.uint32(16)).view(np.float32)
    return array.astype(np.float32)


def _files(folder: Path, file: str | None) -> list[Path]:
    """Return the safetensors files of a model folder."""
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder; expected a Hugging Face model folder")
    if file is None:
        file = INDEX if not (folder / WHOLE).exists() and (folder / INDEX).exists() else WHOLE
        if file == WHOLE and (folder / INDEX).exists():  # of another way to store the same model
            log.warning("%s: %s is there, so %s is not used", folder, WHOLE, INDEX)
    elif Path(file).name != file:
        raise ModelError(f"{folder}: the weights must be in the folder itself, not at {file}")
    path = folder / file
    if not path.exists():
        others = sorted({found.name for form in OTHERS for found in folder.glob(form)})
        instead = f"; {', '.join(others)}, which stands there, is not read" if others else ""
        raise ModelError(f"{path}: no such file; expected the model's tensors{instead}")
    if not file.endswith(".json"):
        return [path]
    shards = read_json(path).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(v, str) for v in shards.values()):
        raise ModelError(f"{path}: weight_map: expected an object of tensor name to file name")
    return [folder / name for name in sorted(set(shards.values()))]


def _map_file(path: Path) -> dict[str, Stored]:
    """Map every tensor of one file."""
    if not path.is_file():
        raise ModelError(f"{path}: no such file; expected the model's tensors")
    try:
        with safe_open(path, framework="np"):  # which checks the header, its offsets and the size
            data = np.memmap(path, mode="r")
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a complete safetensors file: {error}") from error
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:start].tobytes())
    header.pop("__metadata__", None)
    values = data[start:]
    return {
        name: Stored(path, one["dtype"], tuple(one["shape"]), values[slice(*one["data_offsets"])])
        for name, one in header.items()
    }


def _check(folder: Path, name: str, shape: Shape, tensors: Mapping[str, Stored]) -> None:
    """Check that a tensor is there, of a type that can be read, and of this shape."""
    stored = tensors.get(name)
    if stored is None:
        module = name.rpartition(".")[0]
        packed = [other for other in tensors if _is_packed(other, module)]
        instead = f"; {packed[0]} looks quantised, which is not supported" if packed else ""
        raise ModelError(
            f"{folder}: tensor {name} is missing; expected shape {list(shape)}{instead}"
        )
    if stored.kind not in STORED_TYPES:
        raise ModelError(
            f"{stored.path}: tensor {name}: type {stored.kind}; "
            f"expected one of {', '.join(STORED_TYPES)}"
        )
    if stored.shape != shape:
        raise ModelError(
            f"{stored.path}: tensor {name}: shape {list(stored.shape)}; expected {list(shape)}"
        )


def _is_packed(name: str, module: str) -> bool:
    """Whether a tensor of this name stands for a weight of `module` that was packed."""
    return name.startswith(f"{module}.") and not name.endswith((".weight", ".bias"))
