"""What each family of the Llama line is: its keys in `config.json`, and its tensors' names.

One row of `FAMILIES` per `model_type`. A new Llama-like family is a config adaptor and a row. The
computation itself is the same for all (`streamtok.model.decoder`), but for the flags of
`ModelConfig`. What a missing key means, and which keys a family passes over, is as transformers has
it: a checkpoint is what its makers saw there. The GPT line, whose graph is another, is in
`streamtok.model.gpt.families`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from streamtok.errors import ModelError
from streamtok.model.activation import ACTIVATIONS
from streamtok.model.config import ModelConfig
from streamtok.model.families.reader import ConfigReader
from streamtok.model.families.rope_keys import RopeKeys, read_rope
from streamtok.model.families.scaling import LongRope

FULL, SLIDING = "full_attention", "sliding_attention"  # as `layer_types` says


PLAIN_ROPE = RopeKeys()


class Defaults(Struct, frozen=True):
    """What stands in for missing keys where families differ.

    No `head_dim` means dim / heads, no `kv_heads` as many as heads.
    """

    rope: RopeKeys = PLAIN_ROPE
    tied: bool = False
    head_dim: int | None = None
    kv_heads: int | None = None
    context: int = 2048
    norm_eps: float = 1e-6
    activation: str = "silu"


LLAMA = Defaults()
MISTRAL = Defaults(kv_heads=8, context=131072)
QWEN2 = Defaults(kv_heads=32, context=32768)
QWEN3 = Defaults(kv_heads=32, context=32768, head_dim=128)
SMOLLM3 = Defaults(RopeKeys(theta=2_000_000.0), kv_heads=4, context=32768, tied=True)
GEMMA = Defaults(kv_heads=16, context=8192, head_dim=256, tied=True, activation="gelu_pytorch_tanh")
PHI3 = Defaults(
    # What its first files call "yarn" is LongRoPE
    RopeKeys(partial=1.0, original=4096, yarn="longrope"),
    context=4096,
    norm_eps=1e-5,
)


def llama_config(reader: ConfigReader, defaults: Defaults = LLAMA) -> ModelConfig:
    """Read the keys all families share, refusing what would change the computation."""
    dim, heads = reader.integer("hidden_size"), reader.integer("num_attention_heads")
    kv_heads = None if reader.is_null("num_key_value_heads") else defaults.kv_heads
    head_dim = reader.integer("head_dim", defaults.head_dim or max(1, dim // heads))
    context = reader.integer("max_position_embeddings", defaults.context)
    rope, rotary_dim = read_rope(reader, defaults.rope, context, head_dim)
    # Of two lists of factors, only the one for texts up to this length is used
    limit = rope.scaling.context if isinstance(rope.scaling, LongRope) else context
    config = ModelConfig(
        vocab=reader.integer("vocab_size"),
        dim=dim,
        layers=reader.integer("num_hidden_layers"),
        heads=heads,
        kv_heads=reader.integer("num_key_value_heads", kv_heads or heads),
        head_dim=head_dim,
        hidden=reader.integer("intermediate_size"),
        context=min(context, limit),
        norm_eps=reader.number("rms_norm_eps", defaults.norm_eps),
        rope=rope,
        rotary_dim=rotary_dim,
        tied=reader.flag("tie_word_embeddings", defaults.tied),
        activation=read_activation(reader, "hidden_act", defaults.activation),
    )
    _check_heads(reader.path, config)
    return config


def plain_config(reader: ConfigReader) -> ModelConfig:
    """Read a `LlamaConfig`."""
    _refuse_windows(reader)
    return with_biases(reader, llama_config(reader), mlp=True)


def mistral_config(reader: ConfigReader) -> ModelConfig:
    """Read a `MistralConfig`: a Llama whose positions look back over a sliding window."""
    config = llama_config(reader, MISTRAL)
    _refuse_windows(reader)
    if reader.is_null("sliding_window"):
        return config
    return replace(config, window=reader.integer("sliding_window", 4096))


def qwen2_config(reader: ConfigReader, defaults: Defaults = QWEN2) -> ModelConfig:
    """Read a `Qwen2Config` (2.5 too): a Llama with biases on queries, keys and values."""
    config = llama_config(reader, defaults)
    first = reader.integer("max_window_layers", 28, least=0)
    usual = [FULL if layer < first else SLIDING for layer in range(config.layers)]
    window = None if reader.is_null("sliding_window") else reader.integer("sliding_window", 4096)
    return replace(with_windows(reader, config, window, usual), qkv_bias=True)


def qwen3_config(reader: ConfigReader) -> ModelConfig:
    """Read a `Qwen3Config`: a Llama that normalises each head's queries and keys."""
    config = replace(qwen2_config(reader, QWEN3), qkv_bias=False, qk_norm=True)
    return with_biases(reader, config, mlp=False)


def smollm3_config(reader: ConfigReader) -> ModelConfig:
    """Read a `SmolLM3Config`: a Llama some of whose layers do not rotate queries and keys.

    The list `no_rope_layers` holds, its name notwithstanding, a 1 for each layer that rotates them.
    """
    config = llama_config(reader, SMOLLM3)
    interval = reader.integer("no_rope_layer_interval", 4)
    usual = [int((layer + 1) % interval != 0) for layer in range(config.layers)]
    rotated = reader.array("no_rope_layers", usual)
    if len(rotated) < config.layers or not all(flag in (0, 1) for flag in rotated):
        raise ModelError(
            f"{reader.path}: no_rope_layers: expected a 0 or 1 for each of {config.layers} layers, "
            f"found {rotated}"
        )
    types = [FULL if flag else SLIDING for flag in rotated[: config.layers]]
    window = reader.integer("sliding_window") if reader.has("sliding_window") else None
    config = with_biases(reader, with_windows(reader, config, window, types), mlp=True)
    still = frozenset(layer for layer in range(config.layers) if not rotated[layer])
    return replace(config, no_rope_layers=still)


def gemma_config(reader: ConfigReader) -> ModelConfig:
    """Read a `GemmaConfig` (the first Gemma): a Llama with another activation and two offsets.

    Its first files say "gelu" and mean the approximation by tanh.
    """
    config = with_biases(reader, llama_config(reader, GEMMA), mlp=False)
    _refuse_windows(reader)
    reader.require("use_bidirectional_attention", False)
    activation = "gelu_tanh" if config.activation == "gelu" else config.activation
    scale = float(config.dim**0.5)
    return replace(config, activation=activation, norm_offset=1.0, embed_scale=scale)


def phi3_config(reader: ConfigReader) -> ModelConfig:
    """Read a `Phi3Config` (Phi-3, 3.5 and 4-mini): a Llama with fused matrices.

    It may have a window, and may rotate a part of each head only.
    """
    config = llama_config(reader, PHI3)
    _refuse_windows(reader)
    reader.require("lm_head_bias", False)
    window = reader.integer("sliding_window") if reader.has("sliding_window") else None
    return replace(config, window=window, fused=True)


FAMILIES: Mapping[str, Callable[[ConfigReader], ModelConfig]] = {
    "gemma": gemma_config,
    "llama": plain_config,
    "mistral": mistral_config,
    "phi3": phi3_config,
    "qwen2": qwen2_config,
    "qwen3": qwen3_config,
    "smollm3": smollm3_config,
}


def with_biases(reader: ConfigReader, config: ModelConfig, *, mlp: bool) -> ModelConfig:
    """Return `config` with the biases that its flags ask for, of the `mlp` too where it may."""
    attention = reader.flag("attention_bias", False)
    return replace(
        config,
        qkv_bias=config.qkv_bias or attention,
        out_bias=attention,
        mlp_bias=mlp and reader.flag("mlp_bias", False),
    )


def with_windows(
    reader: ConfigReader, config: ModelConfig, window: int | None, usual: list[str]
) -> ModelConfig:
    """Return `config` with a `window` in the layers that `layer_types`, or else `usual`, names."""
    if not reader.flag("use_sliding_window", False):
        window = None
    types = reader.array("layer_types", usual if window else [FULL] * config.layers)
    if len(types) != config.layers or not all(kind in (FULL, SLIDING) for kind in types):
        raise reader.refuse("layer_types", f"{FULL} or {SLIDING} for each of the layers")
    if SLIDING not in types:
        return config
    if window is None:
        raise reader.refuse("layer_types", f"{FULL} only, as there is no window in use")
    full = frozenset(layer for layer, kind in enumerate(types) if kind == FULL)
    return replace(config, window=window, full_layers=full)


def read_activation(reader: ConfigReader, key: str, default: str) -> str:
    """Return the activation named under `key`, in this project's words.

    Raises:
        ModelError: it is none that is computed here.
    """
    name = reader.text(key, default)
    if name not in ACTIVATIONS:
        raise reader.refuse(key, f"one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor a checkpoint must hold."""
    names = config.names
    shapes: dict[str, tuple[int, ...]] = {names.embedding: (config.vocab, config.dim)}
    for layer in range(config.layers):
        for name, shape in _layer_shapes(config).items():
            shapes[names.layer.format(layer) + name] = shape
    shapes["model.norm.weight"] = (config.dim,)
    if not config.tied:
        shapes[names.head] = (config.vocab, config.dim)
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
    for names, biased in (
        (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), config.qkv_bias),
        (("self_attn.o_proj",), config.out_bias),
        (("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"), config.mlp_bias),
    ):
        if biased:
            shapes |= {f"{name}.bias": shapes[f"{name}.weight"][:1] for name in names}
    if config.qk_norm:
        shapes["self_attn.q_norm.weight"] = (config.head_dim,)
        shapes["self_attn.k_norm.weight"] = (config.head_dim,)
    return shapes


def _refuse_windows(reader: ConfigReader) -> None:
    """Refuse what asks for windows in a family that transformers gives none by these keys."""
    reader.require("use_sliding_window", False)
    if any(kind != FULL for kind in reader.array("layer_types", [])):
        raise reader.refuse("layer_types", f"{FULL} only")


def _check_heads(path: Path, config: ModelConfig) -> None:
    if config.heads % config.kv_heads:
        raise ModelError(
            f"{path}: num_key_value_heads: expected a divisor of num_attention_heads "
            f"({config.heads}), found {config.kv_heads}"
        )
    if config.head_dim % 2 and config.rotary_dim == config.head_dim:
        raise ModelError(
            f"{path}: head_dim: expected an even number (rotary embeddings rotate pairs), "
            f"found {config.head_dim}"
        )
