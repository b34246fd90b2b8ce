"""What checkpoints of the GPT line look like: GPT-2, and GPT-NeoX with Pythia.

Their graph differs from Llama's (`streamtok.model.families`): layer norms with a bias, biases on
every matrix, an MLP without a gate. Between the two of them it is positions (a learned vector each,
or a part of each head that turns), the activation, and whether MLP and attention see the same
input. The computation is in `streamtok.model.gpt.decoder`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from streamtok.errors import ModelError
from streamtok.model.config import ConfigReader, ModelConfig
from streamtok.model.rope import Rope


@dataclass(frozen=True, slots=True)
class Layout:
    """The tensors' names: of a layer's parts without the layer's own prefix `layer`.

    GPT-2's matrices are [in, out], all others [out, in]; NeoX's queries, keys and values stand
    together head by head, GPT-2's one kind behind the other.
    """

    embedding: str
    layer: str
    attention_norm: str
    mlp_norm: str
    qkv: str
    out: str
    up: str
    down: str
    norm: str
    head: str
    positions: str = ""
    transposed: bool = False
    by_head: bool = False


GPT2 = Layout(
    embedding="transformer.wte.weight",
    layer="transformer.h.{}.",
    attention_norm="ln_1",
    mlp_norm="ln_2",
    qkv="attn.c_attn",
    out="attn.c_proj",
    up="mlp.c_fc",
    down="mlp.c_proj",
    norm="transformer.ln_f",
    head="lm_head.weight",
    positions="transformer.wpe.weight",
    transposed=True,
)
NEOX = Layout(
    embedding="gpt_neox.embed_in.weight",
    layer="gpt_neox.layers.{}.",
    attention_norm="input_layernorm",
    mlp_norm="post_attention_layernorm",
    qkv="attention.query_key_value",
    out="attention.dense",
    up="mlp.dense_h_to_4h",
    down="mlp.dense_4h_to_h",
    norm="gpt_neox.final_layer_norm",
    head="embed_out.weight",
    by_head=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GptConfig(ModelConfig):
    """A decoder-only transformer of the GPT line.

    The first `turned` numbers of each head's queries and keys are turned by their position. Where
    `parallel`, MLP and attention of a layer have the same input. `activation` is "gelu_tanh" or
    "gelu".
    """

    layout: Layout
    turned: int
    parallel: bool

    @property
    def parameters(self) -> int:
        """How many weights the model has; a tied head counts once."""
        dim, hidden = self.dim, self.hidden
        attention = 4 * dim * (dim + 1)
        mlp = dim * hidden * 2 + hidden + dim
        embeddings = self.vocab * dim * (1 if self.tied else 2)
        positions = self.context * dim if self.layout.positions else 0
        return self.layers * (attention + mlp + 4 * dim) + embeddings + positions + 2 * dim


def gpt2_config(reader: ConfigReader) -> GptConfig:
    """Read a `GPT2Config`."""
    dim, heads = reader.integer("n_embd"), reader.integer("n_head")
    for key, expected in (
        ("scale_attn_weights", True),
        ("scale_attn_by_inverse_layer_idx", False),
        ("add_cross_attention", False),
    ):
        reader.require(key, expected)
    return GptConfig(
        vocab=reader.integer("vocab_size"),
        dim=dim,
        layers=reader.integer("n_layer"),
        heads=heads,
        kv_heads=heads,
        head_dim=_head_dim(reader, "n_embd", dim, heads),
        hidden=reader.integer("n_inner", 4 * dim),
        context=reader.integer("n_positions", 1024),
        norm_eps=reader.number("layer_norm_epsilon", 1e-5),
        rope=Rope(10000.0),
        tied=reader.flag("tie_word_embeddings", True),
        activation=_activation(reader, "activation_function", "gelu_new"),
        layout=GPT2,
        turned=0,
        parallel=False,
    )


def neox_config(reader: ConfigReader) -> GptConfig:
    """Read a `GPTNeoXConfig`, of Pythia too."""
    dim, heads = reader.integer("hidden_size"), reader.integer("num_attention_heads")
    reader.require("attention_bias", True)
    reader.require("rope_scaling", {})
    head_dim = _head_dim(reader, "hidden_size", dim, heads)
    rope, share = _neox_rope(reader)
    turned = int(head_dim * share)
    if turned < 2 or turned % 2:
        raise ModelError(
            f"{reader.path}: rotary_pct: expected an even number of the {head_dim} in a head "
            f"(rotary embeddings turn pairs), found {turned}"
        )
    return GptConfig(
        vocab=reader.integer("vocab_size"),
        dim=dim,
        layers=reader.integer("num_hidden_layers"),
        heads=heads,
        kv_heads=heads,
        head_dim=head_dim,
        hidden=reader.integer("intermediate_size"),
        context=reader.integer("max_position_embeddings", 2048),
        norm_eps=reader.number("layer_norm_eps", 1e-5),
        rope=rope,
        tied=reader.flag("tie_word_embeddings", False),
        activation=_activation(reader, "hidden_act", "gelu"),
        layout=NEOX,
        turned=turned,
        parallel=reader.flag("use_parallel_residual", True),
    )


ACTIVATIONS: Mapping[str, str] = {  # as configurations name them -> as `ModelConfig` does
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


def _activation(reader: ConfigReader, key: str, default: str) -> str:
    name = reader.text(key, default)
    if name not in ACTIVATIONS:
        raise ModelError(
            f"{reader.path}: {key}: expected one of {', '.join(ACTIVATIONS)}, found {name!r}"
        )
    return ACTIVATIONS[name]


def _neox_rope(reader: ConfigReader) -> tuple[Rope, float]:
    """Return how fast positions turn, and the share of each head that does.

    Newer files say it in `rope_parameters`, older ones in two keys.
    """
    section = reader.section("rope_parameters")
    section.require("rope_type", "default")
    theta = section.number("rope_theta", reader.number("rotary_emb_base", 10000.0))
    share = section.number("partial_rotary_factor", reader.number("rotary_pct", 0.25))
    if share > 1:
        raise ModelError(f"{reader.path}: rotary_pct: expected at most 1, found {share}")
    return Rope(theta), share


def _head_dim(reader: ConfigReader, key: str, dim: int, heads: int) -> int:
    if dim % heads:
        raise ModelError(
            f"{reader.path}: {key}: expected a multiple of the {heads} heads, found {dim}"
        )
    return dim // heads


def gpt_shapes(config: GptConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor a checkpoint must hold, and no other."""
    layout, dim, hidden = config.layout, config.dim, config.hidden
    shapes: dict[str, tuple[int, ...]] = {layout.embedding: (config.vocab, dim)}
    if layout.positions:
        shapes[layout.positions] = (config.context, dim)
    for layer in range(config.layers):
        prefix = layout.layer.format(layer)
        for name in (layout.attention_norm, layout.mlp_norm):
            shapes |= {f"{prefix}{name}.weight": (dim,), f"{prefix}{name}.bias": (dim,)}
        for name, out, inner in (
            (layout.qkv, 3 * dim, dim),
            (layout.out, dim, dim),
            (layout.up, hidden, dim),
            (layout.down, dim, hidden),
        ):
            shapes[f"{prefix}{name}.weight"] = (inner, out) if layout.transposed else (out, inner)
            shapes[f"{prefix}{name}.bias"] = (out,)
    shapes |= {f"{layout.norm}.weight": (dim,), f"{layout.norm}.bias": (dim,)}
    if not config.tied:
        shapes[layout.head] = (config.vocab, dim)
    return shapes
