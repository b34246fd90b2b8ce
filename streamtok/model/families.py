"""What each model family's checkpoint looks like: its keys in `config.json`, its tensors' names.

One row of `FAMILIES` per `model_type`. A new Llama-like family is a config adaptor and a row. The
computation itself is the same for all (`streamtok.model.decoder`).
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from streamtok.errors import ModelError
from streamtok.model.config import ConfigReader, ModelConfig


def llama_config(reader: ConfigReader) -> ModelConfig:
    """Read the keys of Hugging Face's `LlamaConfig`, refusing what would change the computation."""
    for key, expected in (
        ("hidden_act", "silu"),
        ("attention_bias", False),
        ("mlp_bias", False),
        ("rope_scaling", None),
        ("pretraining_tp", 1),
    ):
        reader.require(key, expected)
    rope = reader.mapping("rope_parameters")
    if rope.get("rope_type", "default") != "default":
        raise ModelError(f"{reader.path}: rope_parameters: only rope_type 'default' is supported")
    dim, heads = reader.integer("hidden_size"), reader.integer("num_attention_heads")
    config = ModelConfig(
        vocab=reader.integer("vocab_size"),
        dim=dim,
        layers=reader.integer("num_hidden_layers"),
        heads=heads,
        kv_heads=reader.integer("num_key_value_heads", heads),
        head_dim=reader.integer("head_dim", max(1, dim // heads)),
        hidden=reader.integer("intermediate_size"),
        context=reader.integer("max_position_embeddings", 2048),
        norm_eps=reader.number("rms_norm_eps", 1e-6),
        rope_theta=reader.number("rope_theta", float(rope.get("rope_theta", 10000.0))),
        tied=reader.flag("tie_word_embeddings", False),
    )
    if config.heads % config.kv_heads:
        raise ModelError(
            f"{reader.path}: num_key_value_heads: expected a divisor of num_attention_heads "
            f"({config.heads}), found {config.kv_heads}"
        )
    if config.head_dim % 2:
        raise ModelError(
            f"{reader.path}: head_dim: expected an even number (rotary embeddings turn pairs), "
            f"found {config.head_dim}"
        )
    return config


FAMILIES: Mapping[str, Callable[[ConfigReader], ModelConfig]] = {"llama": llama_config}


def read_config(folder: Path) -> ModelConfig:
    """Read `folder`/config.json.

    Raises:
        ModelError: the file is missing or wrong, or the architecture is not known here.
    """
    reader = ConfigReader(folder / "config.json")
    family = reader.text("model_type")
    if family not in FAMILIES:
        raise ModelError(
            f"{reader.path}: model_type: unknown architecture {family!r}; "
            f"supported: {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[family](reader)


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor a checkpoint must hold, and no other."""
    query, value = config.heads * config.head_dim, config.kv_heads * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab, config.dim)}
    for layer in range(config.layers):
        for name, shape in (
            ("input_layernorm", (config.dim,)),
            ("self_attn.q_proj", (query, config.dim)),
            ("self_attn.k_proj", (value, config.dim)),
            ("self_attn.v_proj", (value, config.dim)),
            ("self_attn.o_proj", (config.dim, query)),
            ("post_attention_layernorm", (config.dim,)),
            ("mlp.gate_proj", (config.hidden, config.dim)),
            ("mlp.up_proj", (config.hidden, config.dim)),
            ("mlp.down_proj", (config.dim, config.hidden)),
        ):
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
    shapes["model.norm.weight"] = (config.dim,)
    if not config.tied:
        shapes["lm_head.weight"] = (config.vocab, config.dim)
    return shapes
