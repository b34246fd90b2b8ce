"""What each model family's checkpoint looks like: its keys in `config.json`, its tensors' names.

One row of `FAMILIES` per `model_type`. A new Llama-like family is a config adaptor and a row. The
computation itself is the same for all (`streamtok.model.decoder`), but for the flags of
`ModelConfig`. The GPT line, whose graph is another, is in `streamtok.model.gpt.families`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from streamtok.errors import ModelError
from streamtok.model.config import ConfigReader, ModelConfig
from streamtok.model.gpt.families import GptConfig, gpt2_config, gpt_shapes, neox_config
from streamtok.model.rope import Bands, Rope


@dataclass(frozen=True, slots=True)
class Defaults:
    """What stands in for missing keys where families differ; no `head_dim` means dim / heads."""

    rope_theta: float = 10000.0
    tied: bool = False
    head_dim: int | None = None
    activation: str = "silu"


LLAMA = Defaults()
GEMMA = Defaults(tied=True, head_dim=256, activation="gelu_pytorch_tanh")
QWEN3 = Defaults(head_dim=128)
SMOLLM3 = Defaults(rope_theta=2_000_000.0, tied=True)


def llama_config(reader: ConfigReader, defaults: Defaults = LLAMA) -> ModelConfig:
    """Read the keys all families share, refusing what would change the computation."""
    dim, heads = reader.integer("hidden_size"), reader.integer("num_attention_heads")
    config = ModelConfig(
        vocab=reader.integer("vocab_size"),
        dim=dim,
        layers=reader.integer("num_hidden_layers"),
        heads=heads,
        kv_heads=reader.integer("num_key_value_heads", heads),
        head_dim=reader.integer("head_dim", defaults.head_dim or max(1, dim // heads)),
        hidden=reader.integer("intermediate_size"),
        context=reader.integer("max_position_embeddings", 2048),
        norm_eps=reader.number("rms_norm_eps", 1e-6),
        rope=read_rope(reader, defaults.rope_theta),
        tied=reader.flag("tie_word_embeddings", defaults.tied),
    )
    for key, expected in (
        ("hidden_act", defaults.activation),
        ("attention_bias", False),
        ("mlp_bias", False),
        ("pretraining_tp", 1),
        ("partial_rotary_factor", 1.0),
        ("use_sliding_window", False),
        ("layer_types", ["full_attention"] * config.layers),
    ):
        reader.require(key, expected)
    _check_heads(reader.path, config)
    return config


def mistral_config(reader: ConfigReader) -> ModelConfig:
    """Read a `MistralConfig`: a Llama whose positions look back over a sliding window."""
    config = llama_config(reader)
    if reader.is_null("sliding_window"):
        return config
    return replace(config, window=reader.integer("sliding_window", 4096))


def qwen2_config(reader: ConfigReader) -> ModelConfig:
    """Read a `Qwen2Config` (2.5 too): a Llama with biases on queries, keys and values."""
    return replace(llama_config(reader), qkv_bias=True)


def qwen3_config(reader: ConfigReader) -> ModelConfig:
    """Read a `Qwen3Config`: a Llama that normalises each head's queries and keys."""
    return replace(llama_config(reader, QWEN3), qk_norm=True)


def smollm3_config(reader: ConfigReader) -> ModelConfig:
    """Read a `SmolLM3Config`: a Llama some of whose layers do not turn queries and keys.

    The list `no_rope_layers` holds, its name notwithstanding, a 1 for each layer that turns them.
    """
    config = llama_config(reader, SMOLLM3)
    interval = reader.integer("no_rope_layer_interval", 4)
    usual = [int((layer + 1) % interval != 0) for layer in range(config.layers)]
    turned = reader.array("no_rope_layers", usual)
    if len(turned) < config.layers or not all(flag in (0, 1) for flag in turned):
        raise ModelError(
            f"{reader.path}: no_rope_layers: expected a 0 or 1 for each of {config.layers} layers, "
            f"found {turned}"
        )
    still = frozenset(layer for layer in range(config.layers) if not turned[layer])
    return replace(config, no_rope_layers=still)


def gemma_config(reader: ConfigReader) -> ModelConfig:
    """Read a `GemmaConfig` (the first Gemma): a Llama with another activation and two offsets.

    Its first files say "gelu" and mean the approximation by tanh.
    """
    said = "gelu" if reader.text("hidden_act", "") == "gelu" else GEMMA.activation
    config = llama_config(reader, replace(GEMMA, activation=said))
    reader.require("use_bidirectional_attention", False)
    return replace(
        config, activation="gelu_tanh", norm_offset=1.0, embed_scale=float(config.dim**0.5)
    )


FAMILIES: Mapping[str, Callable[[ConfigReader], ModelConfig]] = {
    "gemma": gemma_config,
    "gpt2": gpt2_config,
    "gpt_neox": neox_config,
    "llama": llama_config,
    "mistral": mistral_config,
    "qwen2": qwen2_config,
    "qwen3": qwen3_config,
    "smollm3": smollm3_config,
}


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


def read_rope(reader: ConfigReader, theta: float) -> Rope:
    """Read how positions turn: newer files say it in `rope_parameters`, older in two other keys."""
    older = reader.mapping("rope_scaling")
    section = reader.section("rope_scaling" if older else "rope_parameters")
    section.require("partial_rotary_factor", 1.0)
    theta = section.number("rope_theta", reader.number("rope_theta", theta))
    kind = section.text("rope_type", section.text("type", "default"))
    if kind == "default":
        return Rope(theta)
    if kind == "linear":
        return Rope(theta, section.number("factor"))
    if kind == "llama3":
        context = section.integer("original_max_position_embeddings")
        low, high = section.number("low_freq_factor"), section.number("high_freq_factor")
        if low < high:
            return Rope(theta, section.number("factor"), Bands(context, low, high))
        raise ModelError(f"{reader.path}: low_freq_factor: expected less than high_freq_factor")
    raise ModelError(
        f"{reader.path}: rope_type: expected default, linear or llama3, found {kind!r}"
    )


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor a checkpoint must hold, and no other."""
    if isinstance(config, GptConfig):
        return gpt_shapes(config)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab, config.dim)}
    for layer in range(config.layers):
        for name, shape in _layer_shapes(config).items():
            shapes[f"model.layers.{layer}.{name}"] = shape
    shapes["model.norm.weight"] = (config.dim,)
    if not config.tied:
        shapes["lm_head.weight"] = (config.vocab, config.dim)
    return shapes


def _layer_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    query, value = config.heads * config.head_dim, config.kv_heads * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (config.dim,),
        "self_attn.q_proj.weight": (query, config.dim),
        "self_attn.k_proj.weight": (value, config.dim),
        "self_attn.v_proj.weight": (value, config.dim),
        "self_attn.o_proj.weight": (config.dim, query),
        "post_attention_layernorm.weight": (config.dim,),
        "mlp.gate_proj.weight": (config.hidden, config.dim),
        "mlp.up_proj.weight": (config.hidden, config.dim),
        "mlp.down_proj.weight": (config.dim, config.hidden),
    }
    if config.qkv_bias:
        shapes["self_attn.q_proj.bias"] = (query,)
        shapes["self_attn.k_proj.bias"] = (value,)
        shapes["self_attn.v_proj.bias"] = (value,)
    if config.qk_norm:
        shapes["self_attn.q_norm.weight"] = (config.head_dim,)
        shapes["self_attn.k_norm.weight"] = (config.head_dim,)
    return shapes


def _check_heads(path: Path, config: ModelConfig) -> None:
    if config.heads % config.kv_heads:
        raise ModelError(
            f"{path}: num_key_value_heads: expected a divisor of num_attention_heads "
            f"({config.heads}), found {config.kv_heads}"
        )
    if config.head_dim % 2:
        raise ModelError(
            f"{path}: head_dim: expected an even number (rotary embeddings turn pairs), "
            f"found {config.head_dim}"
        )
