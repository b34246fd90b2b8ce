"""Model folders as other tools write them: tiny checkpoints that differ in one thing each.

Every folder is made here from numbers that depend on names only, so that what transformers computes
of it can be stored (`tests/golden/variants.json`, by `scripts/golden/variants.py`) without storing
the weights. Uses nothing of the package under test.
"""

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

VOCAB, DIM, HIDDEN, HEADS, KV_HEADS, LAYERS = 33, 16, 24, 4, 2, 2
HEAD_DIM = DIM // HEADS
CONTEXT = 64

Array = np.ndarray[Any, Any]

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": VOCAB,
    "hidden_size": DIM,
    "intermediate_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
}
GPT2: dict[str, Any] = {
    "model_type": "gpt2",
    "vocab_size": VOCAB,
    "n_embd": DIM,
    "n_layer": LAYERS,
    "n_head": HEADS,
    "n_positions": CONTEXT,
    "eos_token_id": 2,
}
NEOX: dict[str, Any] = {
    "model_type": "gpt_neox",
    "vocab_size": VOCAB,
    "hidden_size": DIM,
    "intermediate_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "max_position_embeddings": CONTEXT,
    "rotary_pct": 0.5,
    "eos_token_id": 2,
}
BASES: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "mistral": LLAMA | {"model_type": "mistral", "sliding_window": 7},
    "qwen2": LLAMA | {"model_type": "qwen2"},
    "qwen3": LLAMA | {"model_type": "qwen3", "head_dim": 6},
    "smollm3": LLAMA | {"model_type": "smollm3", "no_rope_layers": [1, 0], "pad_token_id": 0},
    "gemma": LLAMA
    | {
        "model_type": "gemma",
        "head_dim": 6,
        "hidden_act": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
    },
    "phi3": LLAMA | {"model_type": "phi3", "pad_token_id": 0},
    "gpt2": GPT2,
    "gpt_neox": NEOX,
}


@dataclass
class Folder:
    """What is to be written: each file's JSON, and the tensors of each safetensors file."""

    config: dict[str, Any]
    tensors: dict[str, Array]
    files: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    shards: dict[str, list[str]] = field(default_factory=dict)  # file -> names; else one file
    types: dict[str, str] = field(default_factory=dict)  # numpy's name in the header -> the real
    metadata: dict[str, str] = field(default_factory=lambda: {"format": "pt"})


Edit = Callable[[Folder], None]


@dataclass(frozen=True)
class Variant:
    """A folder: a family's base with `keys` of its config replaced (or left out: ...), then `edit`.

    `shape` are keys that shape the tensors but are not written. One that is `refused` must say so.
    """

    family: str
    keys: Mapping[str, Any] = field(default_factory=dict)
    edit: Edit | None = None
    shape: Mapping[str, Any] = field(default_factory=dict)
    refused: str = ""


def numbers(name: str, shape: tuple[int, ...], seed: int = 0) -> Array:
    """Return numbers that depend on `name` and `seed` alone, of a size that matters: float32."""
    random = np.random.default_rng([zlib.crc32(name.encode()), seed])
    uniform = random.random(shape) - 0.5
    scale = 5 / np.sqrt(shape[-1]) if len(shape) > 1 else 0.9
    offset = 1.0 if "norm" in name and name.endswith("weight") else 0.0
    offset = 1.0 if name.split(".")[-2][:2] == "ln" and name.endswith("weight") else offset
    return (uniform * scale + offset).astype(np.float32)


def shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the tensors that `save_pretrained` writes for a model of this configuration."""
    kind = config["model_type"]
    if kind == "gpt2":
        return gpt2_shapes(config)
    if kind == "gpt_neox":
        return neox_shapes(config)
    dim, hidden = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or dim // heads
    query, value = heads * width, (config.get("num_key_value_heads") or heads) * width
    found = {"model.embed_tokens.weight": (config["vocab_size"], dim)}
    for layer in range(config["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        norms = ("input_layernorm", "post_attention_layernorm")
        found |= {f"{p}{name}.weight": (dim,) for name in norms}
        matrices = {
            "self_attn.q_proj": (query, dim),
            "self_attn.k_proj": (value, dim),
            "self_attn.v_proj": (value, dim),
            "self_attn.o_proj": (dim, query),
            "mlp.gate_proj": (hidden, dim),
            "mlp.up_proj": (hidden, dim),
            "mlp.down_proj": (dim, hidden),
        }
        if kind == "phi3":
            matrices = {
                "self_attn.qkv_proj": (query + 2 * value, dim),
                "self_attn.o_proj": (dim, query),
                "mlp.gate_up_proj": (2 * hidden, dim),
                "mlp.down_proj": (dim, hidden),
            }
        for name, shape in matrices.items():
            found[f"{p}{name}.weight"] = shape
            attention = "attn" in name
            biased = config.get("attention_bias" if attention else "mlp_bias", False)
            if kind == "qwen2":
                biased = attention and "o_proj" not in name
            if biased and (kind in ("llama", "smollm3", "qwen2") or attention):
                found[f"{p}{name}.bias"] = shape[:1]
        if kind == "qwen3":
            found |= {p + f"self_attn.{n}_norm.weight": (width,) for n in "qk"}
    found["model.norm.weight"] = (dim,)
    if not config.get("tie_word_embeddings"):
        found["lm_head.weight"] = (config["vocab_size"], dim)
    return found


def gpt2_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    dim = config["n_embd"]
    hidden = config.get("n_inner") or 4 * dim
    found = {
        "transformer.wte.weight": (config["vocab_size"], dim),
        "transformer.wpe.weight": (config["n_positions"], dim),
    }
    for layer in range(config["n_layer"]):
        p = f"transformer.h.{layer}."
        for name, inner, out in (
            ("attn.c_attn", dim, 3 * dim),
            ("attn.c_proj", dim, dim),
            ("mlp.c_fc", dim, hidden),
            ("mlp.c_proj", hidden, dim),
        ):
            found |= {f"{p}{name}.weight": (inner, out), f"{p}{name}.bias": (out,)}
        for name in ("ln_1", "ln_2"):
            found |= {f"{p}{name}.{kind}": (dim,) for kind in ("weight", "bias")}
    found |= {f"transformer.ln_f.{kind}": (dim,) for kind in ("weight", "bias")}
    if config.get("tie_word_embeddings") is False:
        found["lm_head.weight"] = (config["vocab_size"], dim)
    return found


def neox_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    dim, hidden = config["hidden_size"], config["intermediate_size"]
    found = {"gpt_neox.embed_in.weight": (config["vocab_size"], dim)}
    for layer in range(config["num_hidden_layers"]):
        p = f"gpt_neox.layers.{layer}."
        for name, out, inner in (
            ("attention.query_key_value", 3 * dim, dim),
            ("attention.dense", dim, dim),
            ("mlp.dense_h_to_4h", hidden, dim),
            ("mlp.dense_4h_to_h", dim, hidden),
        ):
            found[f"{p}{name}.weight"] = (out, inner)
            if "attention" not in name or config.get("attention_bias", True):
                found[f"{p}{name}.bias"] = (out,)
        for name in ("input_layernorm", "post_attention_layernorm"):
            found |= {f"{p}{name}.{kind}": (dim,) for kind in ("weight", "bias")}
    found |= {f"gpt_neox.final_layer_norm.{kind}": (dim,) for kind in ("weight", "bias")}
    if not config.get("tie_word_embeddings"):
        found["embed_out.weight"] = (config["vocab_size"], dim)
    return found


# Edits


def generation(**keys: Any) -> Edit:
    def edit(folder: Folder) -> None:
        folder.files["generation_config.json"] = keys

    return edit


def rename(change: Callable[[str], str]) -> Edit:
    def edit(folder: Folder) -> None:
        folder.tensors = {change(name): value for name, value in folder.tensors.items()}

    return edit


def add(**tensors: tuple[int, ...]) -> Edit:
    """Add tensors of these shapes; a double underscore stands for a dot."""

    def edit(folder: Folder) -> None:
        for name, shape in tensors.items():
            name = name.replace("__", ".")
            folder.tensors[name] = numbers(name, shape)

    return edit


def cast(kind: str) -> Edit:
    def edit(folder: Folder) -> None:
        if kind != "bfloat16":
            folder.tensors = {name: t.astype(kind) for name, t in folder.tensors.items()}
            return
        folder.types = {"U16": "BF16"}  # numpy has none: the upper halves of float32
        folder.tensors = {
            name: (np.ascontiguousarray(tensor).view(np.uint32) >> 16).astype(np.uint16)
            for name, tensor in folder.tensors.items()
        }

    return edit


def mixed_types(folder: Folder) -> None:
    for index, name in enumerate(sorted(folder.tensors)):
        folder.tensors[name] = folder.tensors[name].astype(("f2", "f4", "f8")[index % 3])


def shard(folder: Folder) -> None:
    names = sorted(folder.tensors)
    folder.shards = {
        f"model-0000{number}-of-00002.safetensors": names[number - 1 :: 2] for number in (1, 2)
    }
    folder.files["model.safetensors.index.json"] = {
        "metadata": {"total_size": 1},
        "weight_map": {name: file for file, held in folder.shards.items() for name in held},
    }


def stale_index(folder: Folder) -> None:
    folder.files["model.safetensors.index.json"] = {
        "metadata": {},
        "weight_map": dict.fromkeys(folder.tensors, "model-00001-of-00007.safetensors"),
    }


def named_weights(folder: Folder) -> None:
    folder.shards = {"other.safetensors": sorted(folder.tensors)}
    folder.config["transformers_weights"] = "other.safetensors"


def head_equal(folder: Folder, head: str, embedding: str) -> None:
    folder.tensors[head] = folder.tensors[embedding].copy()


def head_only(folder: Folder, head: str, embedding: str) -> None:
    folder.tensors[head] = folder.tensors.pop(embedding)


def extra_layer(folder: Folder) -> None:
    for name in [name for name in folder.tensors if "layers.1." in name]:
        other = name.replace("layers.1.", "layers.2.")
        folder.tensors[other] = numbers(other, folder.tensors[name].shape)


def tables(folder: Folder) -> None:
    for layer in range(LAYERS):
        name = f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"
        folder.tensors[name] = np.ones(HEAD_DIM // 2, np.float32)


def masks(folder: Folder, prefix: str) -> None:
    folder.tensors[f"{prefix}0.attn.bias"] = np.ones((1, 1, CONTEXT, CONTEXT), np.bool_)
    folder.tensors[f"{prefix}0.attn.masked_bias"] = np.array(-1e4, np.float32)


def neox_masks(folder: Folder) -> None:
    prefix = "gpt_neox.layers.0.attention."
    folder.tensors[prefix + "bias"] = np.ones((1, 1, CONTEXT, CONTEXT), np.bool_)
    folder.tensors[prefix + "masked_bias"] = np.array(-1e9, np.float32)
    folder.tensors[prefix + "rotary_emb.inv_freq"] = np.ones(2, np.float32)


def padded_tokenizer(folder: Folder) -> None:
    folder.files["tokenizer.json"] = tokenizer(VOCAB + 1)


def no_generation(folder: Folder) -> None:
    folder.files.pop("generation_config.json", None)


def drop(*names: str) -> Edit:
    def edit(folder: Folder) -> None:
        for name in names:
            del folder.tensors[name]

    return edit


def both(*edits: Edit) -> Edit:
    def edit(folder: Folder) -> None:
        for one in edits:
            one(folder)

    return edit


def file(name: str, content: Any) -> Edit:
    def edit(folder: Folder) -> None:
        if isinstance(content, str):
            folder.texts[name] = content
        else:
            folder.files[name] = content

    return edit


def metadata(**pairs: str) -> Edit:
    def edit(folder: Folder) -> None:
        folder.metadata = pairs

    return edit


HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
TIED = {"tie_word_embeddings": True}
LINEAR = {"rope_type": "linear", "factor": 2.5}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LONG = {
    "rope_type": "longrope",
    "short_factor": [1.1, 1.7],
    "long_factor": [2.5, 5.5],
    "original_max_position_embeddings": 32,
}
QUANTISED: dict[str, dict[str, Any]] = {
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"},
    "bitsandbytes": {"load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_quant_type": "nf4"},
    "bitsandbytes-named": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "compressed-tensors": {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "config_groups": {},
    },
    "bitnet": {"quant_method": "bitnet", "quantization_mode": "online"},
    "fp8": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    "mxfp4": {"quant_method": "mxfp4"},
    "torchao": {"quant_method": "torchao", "quant_type": "int4_weight_only"},
    "hqq": {"quant_method": "hqq", "quant_config": {}},
    "unnamed": {"bits": 4},
}


def _cases() -> dict[str, Variant]:
    V = Variant
    cases: dict[str, Variant] = {f"{family}": V(family) for family in BASES}
    # The head and the embedding
    for family in ("llama", "qwen2", "qwen3", "smollm3", "gemma", "mistral", "phi3"):
        head = partial(head_equal, head=HEAD, embedding=EMBEDDING)
        only = partial(head_only, head=HEAD, embedding=EMBEDDING)
        cases[f"{family}: tied, another head"] = V(family, TIED, add(lm_head__weight=(VOCAB, DIM)))
        cases[f"{family}: tied, the same head"] = V(family, TIED, head)
        cases[f"{family}: tied, the head only"] = V(family, TIED, only)
        cases[f"{family}: no flag for the head"] = V(
            family,
            {"tie_word_embeddings": ...},
            shape={"tie_word_embeddings": family in ("gemma", "smollm3")},
        )
    for family, head_name, embedding in (
        ("gpt2", "lm_head.weight", "transformer.wte.weight"),
        ("gpt_neox", "embed_out.weight", "gpt_neox.embed_in.weight"),
    ):
        extra = add(**{head_name.replace(".", "__"): (VOCAB, DIM)})
        cases[f"{family}: tied, another head"] = V(family, TIED, extra)
        only = partial(head_only, head=head_name, embedding=embedding)
        cases[f"{family}: tied, the head only"] = V(family, TIED, only)
        cases[f"{family}: not tied"] = V(family, {"tie_word_embeddings": False})
    cases["gpt2: no flag, another head"] = V("gpt2", {}, add(lm_head__weight=(VOCAB, DIM)))
    # Names
    for family, prefix in (
        ("llama", "model."),
        ("qwen3", "model."),
        ("gemma", "model."),
        ("gpt2", "transformer."),
        ("gpt_neox", "gpt_neox."),
    ):
        change = rename(lambda name, prefix=prefix: name.removeprefix(prefix))
        cases[f"{family}: no prefix"] = V(family, TIED, change)
    cases["llama: no prefix, a head"] = V("llama", {}, rename(lambda n: n.removeprefix("model.")))
    cases["llama: some without prefix"] = V(
        "llama", {}, rename(lambda n: n.removeprefix("model.") if ".0." in n else n)
    )
    cases["llama: both spellings"] = V(
        "llama", {}, add(norm__weight=(DIM,)), refused="model.norm.weight is there twice"
    )
    cases["llama: tied, no prefix, the head only"] = V(
        "llama",
        TIED,
        both(
            partial(head_only, head=HEAD, embedding=EMBEDDING),
            rename(lambda n: n.removeprefix("model.")),
        ),
    )
    # Ends of texts
    cases["llama: ends in config.json only"] = V("llama", {"eos_token_id": [5, 9]})
    cases["llama: one end in config.json only"] = V("llama", {"eos_token_id": 7})
    cases["llama: ends in both files"] = V(
        "llama", {"eos_token_id": 7}, generation(eos_token_id=[5, 9])
    )
    cases["llama: ends in config.json, none in generation_config.json"] = V(
        "llama", {"eos_token_id": [5, 9]}, generation(temperature=0.5)
    )
    cases["llama: null ends in generation_config.json"] = V(
        "llama", {"eos_token_id": [5, 9]}, generation(eos_token_id=None)
    )
    cases["llama: no end"] = V("llama", {"eos_token_id": None})
    cases["llama: ends not named"] = V("llama", {"eos_token_id": ...})
    cases["llama: nulls in generation_config.json"] = V(
        "llama",
        {},
        generation(
            eos_token_id=2,
            temperature=None,
            top_p=None,
            top_k=None,
            repetition_penalty=None,
            do_sample=None,
            pad_token_id=None,
        ),
    )
    cases["llama: samples with a negative pad"] = V("llama", {"pad_token_id": -1})
    # Files
    cases["llama: a pad token beyond the embedding"] = V("llama", {}, padded_tokenizer)
    cases["llama: shards"] = V("llama", {}, shard)
    cases["llama: shards, tied, another head"] = V(
        "llama", TIED, both(add(lm_head__weight=(VOCAB, DIM)), shard)
    )
    cases["llama: a stale index"] = V("llama", {}, stale_index)
    cases["llama: weights under another name"] = V("llama", {}, named_weights)
    cases["llama: no metadata"] = V("llama", {}, metadata())
    cases["llama: strange metadata"] = V("llama", {}, metadata(format="mlx", total="x" * 99))
    cases["llama: another tool's weights too"] = V(
        "llama", {}, file("pytorch_model.bin", "not a pickle")
    )
    for kind in ("float64", "float16", "bfloat16"):
        cases[f"llama: {kind}"] = V("llama", {"torch_dtype": kind}, cast(kind))
    cases["gpt2: float64"] = V("gpt2", {"dtype": "float64"}, cast("float64"))
    cases["llama: types side by side"] = V("llama", {"dtype": "float32"}, mixed_types)
    # Tensors that are not of the model
    cases["llama: a value head"] = V(
        "llama", {}, add(v_head__summary__weight=(1, DIM), v_head__summary__bias=(1,))
    )
    cases["llama: a score"] = V("llama", TIED, add(score__weight=(1, DIM)))
    cases["llama: layers beyond the last"] = V("llama", {}, extra_layer)
    cases["llama: layers beyond the last, no prefix"] = V(
        "llama", {}, both(extra_layer, rename(lambda n: n.removeprefix("model.")))
    )
    cases["llama: tables of angles"] = V("llama", {}, tables)
    cases["gpt2: masks"] = V("gpt2", {}, partial(masks, prefix="transformer.h."))
    cases["gpt2: masks, no prefix"] = V(
        "gpt2",
        {},
        both(rename(lambda n: n.removeprefix("transformer.")), partial(masks, prefix="h.")),
    )
    cases["gpt_neox: masks"] = V("gpt_neox", {}, neox_masks)
    cases["llama: a bias the configuration has not"] = V(
        "llama",
        {},
        add(model__layers__0__self_attn__q_proj__bias=(HEADS * HEAD_DIM,)),
        refused="self_attn.q_proj.bias",
    )
    cases["llama: a norm of queries it has not"] = V(
        "llama",
        {},
        add(model__layers__1__self_attn__q_norm__weight=(HEAD_DIM,)),
        refused="self_attn.q_norm.weight",
    )
    cases["llama: a bias of the head"] = V(
        "llama", {}, add(lm_head__bias=(VOCAB,)), refused="lm_head.bias"
    )
    cases["llama: no last norm"] = V(
        "llama", {}, drop("model.norm.weight"), refused="model.norm.weight is missing"
    )
    cases["llama: not tied, no head"] = V("llama", {}, drop(HEAD), refused="lm_head.weight is miss")
    cases["llama: rows beyond the vocabulary"] = V(
        "llama", {"vocab_size": VOCAB - 1}, shape={"vocab_size": VOCAB}, refused="shape"
    )
    # Keys that are not there, and what they mean then
    for family in ("llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma", "phi3"):
        kv = {"mistral": 8, "qwen2": 32, "qwen3": 32, "smollm3": 4, "gemma": 16}.get(family)
        heads = {"num_attention_heads": kv, "head_dim": 2} if kv else {}
        cases[f"{family}: few keys"] = V(
            family,
            {
                "num_key_value_heads": ...,
                "rms_norm_eps": ...,
                "hidden_act": ...,
                "bos_token_id": ...,
                **heads,
            },
            shape={"num_key_value_heads": kv},
        )
    for family in ("llama", "qwen2", "qwen3", "smollm3", "phi3"):  # others refuse a null
        cases[f"{family}: nulls"] = V(
            family, {"num_key_value_heads": None, "rope_scaling": None, "rope_parameters": None}
        )
    for family in ("llama", "mistral"):
        cases[f"{family}: head_dim null"] = V(family, {"head_dim": None})
    cases["llama: heads wider than the model"] = V("llama", {"head_dim": 6})
    cases["qwen2: head_dim"] = V("qwen2", {"head_dim": 6})
    cases["phi3: head_dim"] = V("phi3", {"head_dim": 6})
    cases["qwen3: head_dim not there"] = V("qwen3", {"head_dim": ...}, shape={"head_dim": 128})
    cases["gemma: head_dim not there"] = V("gemma", {"head_dim": ...}, shape={"head_dim": 256})
    # Activations
    for family in ("llama", "mistral", "qwen2", "phi3"):
        cases[f"{family}: swish"] = V(family, {"hidden_act": "swish"})
    for name in ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu"):
        cases[f"llama: {name}"] = V("llama", {"hidden_act": name})
        cases[f"gpt2: {name}"] = V("gpt2", {"activation_function": name})
        cases[f"gpt_neox: {name}"] = V("gpt_neox", {"hidden_act": name})
    cases["gemma: gelu"] = V("gemma", {"hidden_act": "gelu"})
    cases["gemma: another key"] = V("gemma", {"hidden_activation": "gelu_pytorch_tanh"})
    # Biases
    for family in ("llama", "qwen3", "gemma", "smollm3"):
        cases[f"{family}: attention_bias"] = V(family, {"attention_bias": True})
    for family in ("llama", "smollm3"):
        cases[f"{family}: mlp_bias"] = V(family, {"mlp_bias": True})
        cases[f"{family}: both biases"] = V(family, {"mlp_bias": True, "attention_bias": True})
    cases["gpt_neox: no attention_bias"] = V("gpt_neox", {"attention_bias": False})
    cases["qwen2: attention_bias said"] = V("qwen2", {"attention_bias": True})
    # Windows
    sliding = {"use_sliding_window": True, "sliding_window": 5}
    for family in ("qwen2", "qwen3"):
        cases[f"{family}: window in no layer"] = V(family, sliding | {"max_window_layers": LAYERS})
        cases[f"{family}: window in one layer"] = V(family, sliding | {"max_window_layers": 1})
        cases[f"{family}: window in all layers"] = V(family, sliding | {"max_window_layers": 0})
        cases[f"{family}: window by layer types"] = V(
            family, sliding | {"layer_types": ["sliding_attention", "full_attention"]}
        )
        cases[f"{family}: window not used"] = V(
            family, {"use_sliding_window": False, "sliding_window": 5, "max_window_layers": 0}
        )
    cases["smollm3: window"] = V("smollm3", sliding)
    cases["smollm3: layer types"] = V(
        "smollm3", sliding | {"layer_types": ["sliding_attention", "full_attention"]}
    )
    cases["llama: layer types"] = V("llama", {"layer_types": ["full_attention"] * LAYERS})
    cases["llama: window"] = V("llama", {"sliding_window": 5})
    cases["mistral: no window"] = V("mistral", {"sliding_window": None})
    cases["mistral: layer types"] = V(
        "mistral", {"layer_types": ["sliding_attention"] * LAYERS}, refused="layer_types"
    )
    cases["phi3: window"] = V("phi3", {"sliding_window": 5})
    cases["gemma: both directions"] = V(
        "gemma", {"use_bidirectional_attention": True}, refused="use_bidirectional_attention"
    )
    # Positions
    for family in ("llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma", "gpt_neox"):
        for name, scaling in (("linear", LINEAR), ("llama3", LLAMA3), ("yarn", YARN)):
            if family in ("llama", "gpt_neox") or name == "yarn":
                cases[f"{family}: {name}"] = V(
                    family, {"rope_scaling": scaling, "rope_theta": 500.0}
                )
    rope = {"rope_theta": 500.0}
    cases["llama: newer keys"] = V("llama", {"rope_parameters": LLAMA3 | rope})
    cases["llama: newer keys, default"] = V("llama", {"rope_parameters": rope})
    cases["llama: newer keys, theta outside"] = V(
        "llama", {"rope_parameters": {"rope_type": "default"}} | rope
    )
    cases["llama: both keys"] = V(
        "llama", {"rope_parameters": {"rope_type": "default"} | rope, "rope_scaling": LINEAR}
    )
    cases["llama: type in the older key"] = V(
        "llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}
    )
    cases["llama: dynamic"] = V("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}})
    cases["llama: yarn, more keys"] = V(
        "llama",
        {"rope_scaling": YARN | {"beta_fast": 8, "beta_slow": 2, "attention_factor": 1.3}},
    )
    cases["llama: yarn, mscale"] = V(
        "llama", {"rope_scaling": YARN | {"mscale": 0.7, "mscale_all_dim": 1.0}}
    )
    cases["llama: yarn, not truncated"] = V("llama", {"rope_scaling": YARN | {"truncate": False}})
    cases["llama: yarn, no original context"] = V(
        "llama", {"rope_scaling": {"type": "yarn", "factor": 4.0}}
    )
    cases["llama: yarn, original context outside"] = V(
        "llama",
        {
            "rope_scaling": {"type": "yarn", "factor": 4.0},
            "original_max_position_embeddings": 16,
        },
    )
    cases["llama: llama3, original context outside"] = V(
        "llama", {"rope_scaling": LLAMA3, "original_max_position_embeddings": 8}
    )
    cases["llama: longrope"] = V("llama", {"rope_scaling": LONG})
    cases["llama: longrope, factors"] = V(
        "llama", {"rope_scaling": LONG | {"factor": 8.0, "attention_factor": 1.2}}
    )
    for name in ("longrope", "yarn"):
        cases[f"phi3: {name}"] = V(
            "phi3",
            {
                "original_max_position_embeddings": 32,
                "rope_scaling": {
                    "type": name,
                    "short_factor": LONG["short_factor"],
                    "long_factor": LONG["long_factor"],
                },
            },
        )
    cases["phi3: su"] = V("phi3", {"rope_scaling": LONG | {"rope_type": "su"}}, refused="'su'")
    cases["phi3: partial rotation"] = V("phi3", {"partial_rotary_factor": 0.5})
    cases["gpt_neox: newer keys"] = V(
        "gpt_neox",
        {
            "rotary_pct": ...,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 500.0,
                "partial_rotary_factor": 0.5,
            },
        },
    )
    cases["gpt_neox: whole rotation"] = V("gpt_neox", {"rotary_pct": 1.0, "rotary_emb_base": 500})
    cases["gpt_neox: no rotary_pct"] = V("gpt_neox", {"rotary_pct": ...})
    cases["gpt_neox: dynamic"] = V("gpt_neox", {"rope_scaling": {"type": "dynamic", "factor": 2.0}})
    cases["gpt_neox: one after the other"] = V("gpt_neox", {"use_parallel_residual": False})
    for family in ("llama", "qwen2"):
        cases[f"{family}: partial rotation"] = V(
            family, {"partial_rotary_factor": 0.5}, refused="partial_rotary_factor"
        )
    cases["llama: unknown rope"] = V(
        "llama", {"rope_scaling": {"rope_type": "proportional"}}, refused="rope_type"
    )
    # The GPT line's own flags
    cases["gpt2: scores not scaled"] = V("gpt2", {"scale_attn_weights": False})
    cases["gpt2: scores scaled by layer"] = V("gpt2", {"scale_attn_by_inverse_layer_idx": True})
    cases["gpt2: upcast"] = V("gpt2", {"reorder_and_upcast_attn": True})
    cases["gpt2: inner width"] = V("gpt2", {"n_inner": 40})
    cases["gpt2: cross attention"] = V(
        "gpt2", {"add_cross_attention": True}, refused="add_cross_attention"
    )
    cases["llama: pretraining_tp"] = V("llama", {"pretraining_tp": 2})
    cases["llama: null quantisation"] = V("llama", {"quantization_config": None})
    # Quantised weights
    for name, keys in QUANTISED.items():
        said = str(keys.get("quant_method", "quantization_config"))
        cases[f"llama: {name}"] = V("llama", {"quantization_config": keys}, refused=said)
    cases["llama: mlx"] = V("llama", {"quantization": {"group_size": 64, "bits": 4}}, refused="mlx")
    cases["llama: older compressed tensors"] = V(
        "llama", {"compression_config": {"format": "dense"}}, refused="compression_config"
    )
    cases["llama: quantised tensors, nothing said"] = V(
        "llama",
        {},
        both(
            drop("model.layers.0.self_attn.q_proj.weight"),
            add(model__layers__0__self_attn__q_proj__qweight=(DIM, DIM)),
        ),
        refused="quantised",
    )
    return cases


VARIANTS = _cases()


def tokenizer(vocab: int) -> dict[str, Any]:
    """Return a `tokenizer.json` of as many words, of which the first three and those from VOCAB
    on are special tokens.
    """
    words = [f"w{index}" for index in range(VOCAB)]
    special = [0, 1, 2, *range(VOCAB, vocab)]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": index, "content": f"<{index}>" if index >= VOCAB else f"w{index}", **flags}
            | {"special": True}
            for index in special
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {word: index for index, word in enumerate(words)},
            "unk_token": "w0",
        },
    }


def build(name: str, folder: Path, seed: int = 0) -> Variant:
    """Write the folder of a variant, of which `seed` decides the weights."""
    variant = VARIANTS[name]
    keys = BASES[variant.family] | dict(variant.keys)
    config = {key: value for key, value in keys.items() if value is not ...}
    shaped = {key: value for key, value in (keys | dict(variant.shape)).items() if value is not ...}
    if not variant.shape:
        shaped = config
    tensors = {tensor: numbers(tensor, shape, seed) for tensor, shape in shapes(shaped).items()}
    made = Folder(config, tensors, {"tokenizer.json": tokenizer(VOCAB)})
    if variant.edit:
        variant.edit(made)
    write(made, folder)
    return variant


def write(made: Folder, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {"config.json": made.config, **made.files}.items():
        (folder / name).write_text(json.dumps(content))
    for name, text in made.texts.items():
        (folder / name).write_text(text)
    for name, held in (made.shards or {"model.safetensors": sorted(made.tensors)}).items():
        tensors = {tensor: np.ascontiguousarray(made.tensors[tensor]) for tensor in held}
        save_file(tensors, folder / name, made.metadata or None)
        if made.types:
            rename_types(folder / name, made.types)


def rename_types(path: Path, types: Mapping[str, str]) -> None:
    """Give other types to the tensors of a file: numpy has no name for them."""
    raw = path.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    header = raw[8:end]
    for old, new in types.items():
        header = header.replace(f'"{old}"'.encode(), f'"{new}"'.encode())
    path.write_bytes(len(header).to_bytes(8, "little") + header + raw[end:])
