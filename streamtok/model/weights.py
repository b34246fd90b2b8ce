"""Tensors out of safetensors files: mapped, checked against what is expected, made float32.

`safetensors` validates each file's header; the data is then read once, through a memory map,
straight into the arrays the caller keeps. numpy has no bfloat16, so those are widened by hand.
Read next: `streamtok.model.decoder`, which lays the tensors out for speed.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from streamtok.errors import ModelError
from streamtok.model.config import read_json

Array: TypeAlias = npt.NDArray[np.float32]
Shape: TypeAlias = tuple[int, ...]

# What some checkpoints hold needlessly: a table and masks that follow from the configuration, and
# the output matrix where it is the embedding (it is surplus only then).
NEEDLESS = (
    ".rotary_emb.inv_freq",
    ".attn.bias",
    ".attn.masked_bias",
    ".attention.bias",
    ".attention.masked_bias",
    "lm_head.weight",
    "embed_out.weight",
)
PREFIX = "transformer."  # which GPT-2's first files leave out

# safetensors' name of an element type -> the numpy type its bytes are mapped as
STORED_TYPES: Mapping[str, npt.DTypeLike] = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
MASK_TYPES: Mapping[str, npt.DTypeLike] = {"BOOL": "u1", "U8": "u1"}  # of what is needless


class Checkpoint:
    """The tensors of a model folder, by name.

    `model.safetensors`, or the shards that `model.safetensors.index.json` lists.

    Raises:
        ModelError: a file is missing or damaged, or a tensor is missing, surplus, of another shape
            than `expected`, or of a type other than float32, float16 and bfloat16.
    """

    def __init__(self, folder: Path, expected: Mapping[str, Shape]) -> None:
        self._tensors: dict[str, tuple[str, npt.NDArray[np.generic]]] = {}
        found: dict[str, tuple[Path, Shape]] = {}
        for path in _files(folder):
            for own, (stored, array) in _map_file(path).items():
                name = PREFIX + own if PREFIX + own in expected else own
                if name in found:
                    raise ModelError(f"{path}: tensor {name} stands in {found[name][0].name} too")
                found[name] = (path, array.shape)
                self._tensors[name] = (stored, array)
        for name in [n for n in found if n.endswith(NEEDLESS) and n not in expected]:
            del found[name], self._tensors[name]
        _compare(folder, found, expected)
        self._digest = hashlib.blake2b(digest_size=8)

    def take(self, name: str) -> Array:
        """Return tensor `name` as a new float32 array, and let go of the mapping under it.

        Raises:
            KeyError: there is no such tensor, or it was taken before.
        """
        stored, array = self._tensors.pop(name)
        self._digest.update(name.encode() + np.ascontiguousarray(array).data)
        return widen(stored, array)

    @property
    def digest(self) -> str:
        """Return 16 hexadecimal digits that depend on every tensor taken so far, in order."""
        return self._digest.hexdigest()


def widen(stored: str, array: npt.NDArray[np.generic]) -> Array:
    """Return `array`, mapped from the safetensors type `stored`, as float32.

    A bfloat16 is the upper half of a float32: shifted left by 16 bits it has the same value.
    """
    if stored == "BF16":
        return np.left_shift(array.astype(np.uint32), np.uint32(16)).view(np.float32)
    return array.astype(np.float32)


def _files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model folder."""
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder; expected a Hugging Face model folder")
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return [folder / "model.safetensors"]
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(v, str) for v in shards.values()):
        raise ModelError(f"{index}: weight_map: expected an object of tensor name to file name")
    return [folder / name for name in sorted(set(shards.values()))]


def _map_file(path: Path) -> dict[str, tuple[str, npt.NDArray[np.generic]]]:
    """Map every tensor of one file: name -> (stored type, array over the file)."""
    if not path.is_file():
        raise ModelError(f"{path}: no such file; expected the model's tensors")
    try:
        with safe_open(path, framework="np") as header:
            names = header.offset_keys()
            slices = [header.get_slice(name) for name in names]
            specs = [(str(s.get_dtype()), tuple(s.get_shape())) for s in slices]
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a complete safetensors file: {error}") from error
    known = {**STORED_TYPES, **MASK_TYPES}
    for name, (stored, _) in zip(names, specs, strict=True):
        if stored not in (known if name.endswith(NEEDLESS) else STORED_TYPES):
            raise ModelError(
                f"{path}: tensor {name}: type {stored}; expected one of {', '.join(STORED_TYPES)}"
            )
    # The header has been checked to cover the data without gaps, so that in offset order each
    # tensor begins where the one before it ends, and the last one ends with the file.
    sizes = [int(np.prod(shape)) * np.dtype(known[t]).itemsize for t, shape in specs]
    offset = path.stat().st_size - sum(sizes)
    data = np.memmap(path, mode="r")
    tensors = {}
    for name, (stored, shape), size in zip(names, specs, sizes, strict=True):
        array = data[offset : offset + size].view(known[stored]).reshape(shape)
        tensors[name] = (stored, array)
        offset += size
    return tensors


def _compare(
    folder: Path, found: Mapping[str, tuple[Path, Shape]], expected: Mapping[str, Shape]
) -> None:
    """Check that `found` holds the tensors `expected`, of the same shapes, and no others."""
    for name, shape in expected.items():
        if name not in found:
            raise ModelError(f"{folder}: tensor {name} is missing; expected shape {list(shape)}")
        path, actual = found[name]
        if actual != shape:
            raise ModelError(f"{path}: tensor {name}: shape {list(actual)}; expected {list(shape)}")
    if surplus := sorted(found.keys() - expected.keys()):
        path, shape = found[surplus[0]]
        raise ModelError(
            f"{path}: tensor {surplus[0]} of shape {list(shape)} is not part of this architecture"
            + (f", nor are {len(surplus) - 1} others" if len(surplus) > 1 else "")
        )
