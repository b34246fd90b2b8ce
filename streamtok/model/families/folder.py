"""A model folder, whoever wrote it: which file, and which tensor is which.

Folders that other tools write differ from a fresh `save_pretrained` in a few ways, and all of them
are decided here, in the way of transformers 5:

  * a model without its head leaves out the base model's prefix of every name, or has it before all;
  * the matrix of the head is the embedding (`tie_word_embeddings`) unless the files hold another
    one beside it: what is stored goes before what is said; if there is only one, it is both;
  * some families store queries, keys and values, and gate and up, in one tensor;
  * tensors of other heads, of layers beyond the last, and tables that follow from the configuration
    are no part of the model. Anything else in a layer that is computed would change the result,
    and is an error: transformers only warns there, and computes something else than was trained.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from msgspec.structs import replace

from streamtok.errors import ModelError
from streamtok.model.config import ModelConfig, Names
from streamtok.model.families import llama
from streamtok.model.families.reader import ConfigReader
from streamtok.model.families.scaling import LongRope
from streamtok.model.gpt import families as gpt
from streamtok.model.weights import Array, Checkpoint, Shape, Stored, equal, read_tensors

log = logging.getLogger(__name__)

# What files hold needlessly in the layers: tables and masks that follow from the configuration
NEEDLESS = (
    ".rotary_emb.inv_freq",
    ".rotary_emb.cos_cached",
    ".rotary_emb.sin_cached",
    ".position_ids",
    ".attn.bias",
    ".attn.masked_bias",
    ".attention.bias",
    ".attention.masked_bias",
)
# Where tools say that weights are quantised -> how to call it where the object has no method's name
QUANTISED = {
    "quantization_config": "",
    "quantization": "mlx",  # its own key, which holds a group size and bits
    "compression_config": "compressed-tensors",
}
FAMILIES: Mapping[str, Callable[[ConfigReader], ModelConfig]] = {
    **llama.FAMILIES,
    **gpt.FAMILIES,
}


def read_config(folder: Path) -> ModelConfig:
    """Read `folder`/config.json.

    Raises:
        ModelError: the file is missing or wrong, the architecture is not known here, or the weights
            are quantised.
    """
    reader = ConfigReader(folder / "config.json")
    _refuse_quantised(reader)
    family = reader.text("model_type")
    if family not in FAMILIES:
        raise ModelError(
            f"{reader.path}: model_type: unknown architecture {family!r}; "
            f"supported: {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[family](reader)


def tensor_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Return the name and shape of every tensor that the decoder of a model takes."""
    if isinstance(config, gpt.GptConfig):
        return gpt.tensor_shapes(config)
    return llama.tensor_shapes(config)


def open_checkpoint(folder: Path) -> tuple[ModelConfig, Checkpoint]:
    """Return what a model is, and its tensors; the head is its own if the files have another one.

    Raises:
        ModelError: anything in the folder is missing, damaged or not supported.
    """
    config = read_config(folder)
    reader = ConfigReader(folder / "config.json")
    file = reader.text("transformers_weights") if reader.has("transformers_weights") else None
    tensors = _named(config, read_tensors(folder, file))
    if config.tied:
        config = _with_head(folder, config, tensors)
    if any(tensor.kind == "F64" for tensor in tensors.values()):
        log.warning("%s: float64 weights are rounded to float32", folder)
    if isinstance(config.rope.scaling, LongRope):
        log.warning("%s: longrope: texts of up to %d tokens are served", folder, config.context)
    expected = tensor_shapes(config)
    checkpoint = Checkpoint(folder, tensors, expected)
    _pass_over(folder, config, tensors, expected)
    return config, checkpoint


def read_weights(folder: Path) -> tuple[ModelConfig, dict[str, Array]]:
    """Return what a model is, and all its weights, as `streamtok.model.reference` computes them.

    Raises:
        ModelError: anything in the folder is missing, damaged or not supported.
    """
    config, checkpoint = open_checkpoint(folder)
    return config, {name: checkpoint.take(name) for name in tensor_shapes(config)}


def _refuse_quantised(reader: ConfigReader) -> None:
    """Refuse weights that are not plain numbers, or that are computed with in another precision."""
    for key, usual in QUANTISED.items():
        if settings := reader.mapping(key):
            method = str(settings.get("quant_method") or usual or _unnamed(settings))
            raise ModelError(
                f"{reader.path}: {key}: quantised weights ({method}) are not supported; "
                "use the model's float32, float16 or bfloat16 weights"
            )


def _unnamed(settings: Mapping[str, object]) -> str:
    """Return the method of settings that do not name it, as the oldest of bitsandbytes do not."""
    return "bitsandbytes" if any("load_in" in key for key in settings) else "method not named"


def _named(config: ModelConfig, stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """Return the tensors under the names that the decoder asks for, where they are among these."""
    asked = tensor_shapes(replace(config, tied=False)).keys()
    tensors: dict[str, Stored] = {}
    for own, tensor in stored.items():
        for name, part in _parts(config, own, tensor):
            known = next((n for n in _spellings(config.names, name) if n in asked), name)
            if known in tensors:
                where = f"{tensors[known].path.name} and {part.path.name}"
                raise ModelError(f"{part.path}: tensor {known} is there twice, in {where}")
            tensors[known] = part
    return tensors


def _spellings(names: Names, name: str) -> tuple[str, str, str]:
    """Return a name as it stands, with the base model's prefix, and without it."""
    return name, names.base + name, name.removeprefix(names.base)


def _parts(config: ModelConfig, name: str, tensor: Stored) -> Iterator[tuple[str, Stored]]:
    """Yield a tensor, or the parts of a fused one, each with its name."""
    query, value = config.heads * config.head_dim, config.kv_heads * config.head_dim
    fused = {
        "self_attn.qkv_proj": (("q_proj", query), ("k_proj", value), ("v_proj", value)),
        "mlp.gate_up_proj": (("gate_proj", config.hidden), ("up_proj", config.hidden)),
    }
    module = name.removesuffix(".weight")
    parts = next((p for end, p in fused.items() if config.fused and module.endswith(end)), ())
    if not parts or tensor.shape[:1] != (sum(rows for _, rows in parts),):
        yield name, tensor
        return
    start = 0
    for part, rows in parts:
        yield f"{module.rpartition('.')[0]}.{part}.weight", tensor.rows(start, start + rows)
        start += rows


def _with_head(folder: Path, config: ModelConfig, tensors: dict[str, Stored]) -> ModelConfig:
    """Decide what the head of a model is that is said to be tied to its embedding.

    Of two tensors that are the same one is dropped; one that is there alone is both.
    """
    embedding, head = config.names.embedding, config.names.head
    if head not in tensors:
        return config
    if embedding not in tensors:
        tensors[embedding] = tensors.pop(head)
        return config
    if equal(tensors[embedding], tensors[head]):
        del tensors[head]
        return config
    log.warning(
        "%s: tie_word_embeddings is true, yet %s differs from %s: they are not tied",
        folder,
        head,
        embedding,
    )
    return replace(config, tied=False)


def _pass_over(
    folder: Path, config: ModelConfig, tensors: Mapping[str, Stored], expected: Mapping[str, Shape]
) -> None:
    """Say which tensors are no part of the model.

    Raises:
        ModelError: one of them stands in what is computed.
    """
    names = config.names
    computed = (
        *(names.layer.format(layer) for layer in range(config.layers)),
        *{f"{name.rpartition('.')[0]}." for name in (*expected, names.head)},
    )
    surplus = [n for n in sorted(tensors.keys() - expected.keys()) if not n.endswith(NEEDLESS)]
    for name in surplus:
        if any(spelling.startswith(computed) for spelling in _spellings(names, name)):
            others = f", nor are {len(surplus) - 1} others" if len(surplus) > 1 else ""
            raise ModelError(
                f"{tensors[name].path}: tensor {name} of shape {list(tensors[name].shape)} is not "
                f"part of this architecture{others}"
            )
    if surplus:
        more = f" and {len(surplus) - 3} more" if len(surplus) > 3 else ""
        log.warning("%s: no part of the model: %s%s", folder, ", ".join(surplus[:3]), more)
