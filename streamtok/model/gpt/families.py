"""What checkpoints of the GPT line look like: GPT-2, and GPT-NeoX with Pythia.

Their graph differs from Llama's: layer norms with a bias, biases on
every matrix, an MLP without a gate. Between the two of them it is positions (a learned vector each,
or a part of each head that is rotated), the activation, and whether MLP and attention see the same
input. The computation is in `streamtok.model.gpt.decoder`.
"""

import math
from collections.abc import Callable, Mapping

from streamtok.errors import ModelError
from streamtok.model.config import ModelConfig, Names
from streamtok.model.families.llama import read_activation
from streamtok.model.families.reader import ConfigReader
from streamtok.model.families.rope_keys import RopeKeys, read_rope
from streamtok.model.families.scaling import LongRope
from streamtok.model.rope import Rope


class GptNames(Names, frozen=True, kw_only=True):
    """The tensors' names: of a layer's parts without the layer's own prefix `layer`.

    GPT-2's matrices are [in, out], all others [out, in]; NeoX's queries, keys and values stand
    together head by head, GPT-2's one kind behind the other.
    """

    attention_norm: str
    mlp_norm: str
    qkv: str
    out: str
    up: str
    down: str
    norm: str
    positions: str = ""
    transposed: bool = False
    by_head: bool = False


GPT2 = GptNames(
    base="transformer.",
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
NEOX = GptNames(
    base="gpt_neox.",
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


class GptConfig(ModelConfig, frozen=True, kw_only=True):
    """A decoder-only transformer of the GPT line.

    The first `rotary_dim` numbers of each head's queries and keys are rotated by their position.
    Where `parallel`, MLP and attention of a layer have the same input. The matrices of attention
    may have no `attention_bias`. Scores are divided by the root of a head's width if they are
    `scores_by_width`, and by the number of the layer, from 1, if they are `scores_by_layer`.
    """

    layout: GptNames
    parallel: bool
    attention_bias: bool = True
    scores_by_width: bool = True
    scores_by_layer: bool = False

    @property
    def names(self) -> GptNames:
        """What a checkpoint calls its tensors."""
        return self.layout

    @property
    def parameters(self) -> int:
        """How many weights the model has; a tied head counts once."""
        dim, hidden = self.dim, self.hidden
        attention = 4 * dim * (dim + self.attention_bias)
        mlp = dim * hidden * 2 + hidden + dim
        embeddings = self.vocab * dim * (1 if self.tied else 2)
        positions = self.context * dim if self.layout.positions else 0
        return self.layers * (attention + mlp + 4 * dim) + embeddings + positions + 2 * dim

    def score_divisor(self, layer: int) -> float:
        """Return what the product of a query and a key is divided by in a layer."""
        width = math.sqrt(self.head_dim) if self.scores_by_width else 1.0
        return width * (layer + 1 if self.scores_by_layer else 1)


def gpt2_config(reader: ConfigReader) -> GptConfig:
    """Read a `GPT2Config`."""
    dim, heads = reader.integer("n_embd", 768), reader.integer("n_head", 12)
    reader.require("add_cross_attention", False)
    return GptConfig(
        vocab=reader.integer("vocab_size", 50257),
        dim=dim,
        layers=reader.integer("n_layer", 12),
        heads=heads,
        kv_heads=heads,
        head_dim=_head_dim(reader, "n_embd", dim, heads),
        hidden=reader.integer("n_inner", 4 * dim),
        context=reader.integer("n_positions", 1024),
        norm_eps=reader.number("layer_norm_epsilon", 1e-5),
        rope=Rope(10000.0),
        rotary_dim=0,
        tied=reader.flag("tie_word_embeddings", True),
        activation=read_activation(reader, "activation_function", "gelu_new"),
        layout=GPT2,
        parallel=False,
        scores_by_width=reader.flag("scale_attn_weights", True),
        scores_by_layer=reader.flag("scale_attn_by_inverse_layer_idx", False),
    )


def neox_config(reader: ConfigReader) -> GptConfig:
    """Read a `GPTNeoXConfig`, of Pythia too."""
    dim, heads = reader.integer("hidden_size"), reader.integer("num_attention_heads")
    head_dim = _head_dim(reader, "hidden_size", dim, heads)
    context = reader.integer("max_position_embeddings", 2048)
    keys = RopeKeys(theta_key="rotary_emb_base", partial=0.25, partial_key="rotary_pct")
    rope, rotary_dim = read_rope(reader, keys, context, head_dim)
    limit = rope.scaling.context if isinstance(rope.scaling, LongRope) else context
    return GptConfig(
        vocab=reader.integer("vocab_size"),
        dim=dim,
        layers=reader.integer("num_hidden_layers"),
        heads=heads,
        kv_heads=heads,
        head_dim=head_dim,
        hidden=reader.integer("intermediate_size"),
        context=min(context, limit),
        norm_eps=reader.number("layer_norm_eps", 1e-5),
        rope=rope,
        rotary_dim=rotary_dim,
        tied=reader.flag("tie_word_embeddings", False),
        activation=read_activation(reader, "hidden_act", "gelu"),
        layout=NEOX,
        parallel=reader.flag("use_parallel_residual", True),
        attention_bias=reader.flag("attention_bias", True),
    )


FAMILIES: Mapping[str, Callable[[ConfigReader], GptConfig]] = {
    "gpt2": gpt2_config,
    "gpt_neox": neox_config,
}


def _head_dim(reader: ConfigReader, key: str, dim: int, heads: int) -> int:
    if dim % heads:
        raise ModelError(
            f"{reader.path}: {key}: expected a multiple of the {heads} heads, found {dim}"
        )
    return dim // heads


def tensor_shapes(config: GptConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor a checkpoint must hold."""
    layout, dim, hidden = config.layout, config.dim, config.hidden
    shapes: dict[str, tuple[int, ...]] = {layout.embedding: (config.vocab, dim)}
    if layout.positions:
        shapes[layout.positions] = (config.context, dim)
    for layer in range(config.layers):
        prefix = layout.layer.format(layer)
        for name in (layout.attention_norm, layout.mlp_norm):
            shapes |= {f"{prefix}{name}.weight": (dim,), f"{prefix}{name}.bias": (dim,)}
        for name, out, inner, biased in (
            (layout.qkv, 3 * dim, dim, config.attention_bias),
            (layout.out, dim, dim, config.attention_bias),
            (layout.up, hidden, dim, True),
            (layout.down, dim, hidden, True),
        ):
            shapes[f"{prefix}{name}.weight"] = (inner, out) if layout.transposed else (out, inner)
            if biased:
                shapes[f"{prefix}{name}.bias"] = (out,)
    shapes |= {f"{layout.norm}.weight": (dim,), f"{layout.norm}.bias": (dim,)}
    if not config.tied:
        shapes[layout.head] = (config.vocab, dim)
    return shapes
