"""The decoder as it serves: many sequences in one pass, each position computed once.

The same computation as `streamtok.model.reference`, laid out for speed: query, key and value
weights in one matrix, gate and up in another, each norm's weight and the 1/sqrt(E) of attention
folded into the matrix that follows, rotary pairs side by side so that turning them is one complex
product. What a pass needs room for is allocated once and serves every layer. Every row of the
result is bitwise independent of what else is in the pass.

Does not know requests, sampling or text.

Read next: `streamtok.model.batch`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamtok.model.activation import activate
from streamtok.model.attention import KVCache
from streamtok.model.base import Decoder, Layout, side_by_side
from streamtok.model.batch import Batch, Segment
from streamtok.model.config import ModelConfig
from streamtok.model.exact.linear import Linear, Products
from streamtok.model.weights import Array, Checkpoint


@dataclass(frozen=True, slots=True)
class Layer:
    """The four matrices of one layer, and what some families add to them."""

    qkv: Linear
    qkv_bias: Array | None  # [(H + 2K) * E]
    qk_norm: Array | None  # [H + K, E]
    rotated: bool
    out: Linear
    out_bias: Array | None  # [D]
    gate_up: Linear
    gate_up_bias: Array | None  # [2F]
    down: Linear
    down_bias: Array | None  # [D]


class Workspace:
    """Where one pass keeps what it computes, layer after layer; `rows` of everything."""

    def __init__(self, config: ModelConfig, layer: Layer, rows: int) -> None:
        width, rotated = config.head_dim, config.heads + config.kv_heads
        self.normed: Array = np.empty((rows, config.dim), np.float32)  # [rows, D]
        self.qkv: Array = np.empty((rows, layer.qkv.width), np.float32)
        self.flat = self.qkv[:, : (rotated + config.kv_heads) * width]  # [rows, (H + 2K) * E]
        self.heads = self.flat.reshape(rows, -1, width)  # [rows, H + 2K, E]
        self.qk = self.heads[:, :rotated]  # [rows, H + K, E]
        pairs = self.qk[:, :, : config.rotary_dim]  # [rows, H + K, R]
        self.pairs = pairs.view(np.complex64)  # [rows, H + K, R/2]
        self.gathered: Array = np.zeros((rows, config.heads * width), np.float32)  # [rows, H * E]
        self.both: Array = np.empty((rows, layer.gate_up.width), np.float32)
        self.gate_up = self.both[:, : 2 * config.hidden]  # [rows, 2F]
        self.gate = self.both[:, : config.hidden]  # [rows, F]
        self.up = self.both[:, config.hidden : 2 * config.hidden]  # [rows, F]
        self.gated: Array = np.empty((rows, config.hidden), np.float32)  # [rows, F]
        self.wide: Array = np.empty((rows, layer.out.width), np.float32)
        self.share = self.wide[:, : config.dim]  # [rows, D]: what is added to the residual stream


class LlamaDecoder(Decoder):
    """A model of the Llama line: its families differ by the flags of its configuration only."""

    def __init__(self, config: ModelConfig, checkpoint: Checkpoint, products: Products) -> None:
        """Lay out the tensors of `checkpoint`, taking each of them."""
        self.config = config
        self.tiling = products.tiling
        linear = products.linear

        names = config.names
        self._embedding = checkpoint.take(names.embedding)  # [V, D]
        self._layers = [_layer(config, checkpoint, index, linear) for index in range(config.layers)]
        norm = checkpoint.take("model.norm.weight") + np.float32(config.norm_offset)  # [D]
        norm *= np.sqrt(config.dim, dtype=np.float32)
        head = self._embedding if config.tied else checkpoint.take(names.head)  # [V, D]
        self._head = linear(head * norm)
        self._norm = norm  # which the head holds already, for states
        self._embedding *= np.float32(config.embed_scale)
        self._rotations = config.rope.rotations(config.rotary_dim, config.context)  # [., R/2]
        self.digest = checkpoint.digest

    def compute(self, cache: KVCache, segments: Sequence[Segment]) -> tuple[Array, Array]:
        """See `Decoder.compute`."""
        config = self.config
        batch = Batch(config, self.tiling, cache, segments)
        space = Workspace(config, self._layers[0], batch.padded)
        x = np.zeros((batch.padded, config.dim), np.float32)  # [rows, D], padded with zeros
        np.take(self._embedding, batch.ids, axis=0, out=x[: batch.rows])
        rotations = np.zeros((batch.padded, 1, config.rotary_dim // 2), np.complex64)
        np.take(self._rotations, batch.positions, axis=0, out=rotations[: batch.rows, 0])
        for index, layer in enumerate(self._layers):
            x += self._attention(layer, index, batch, rotations, space, x)
            x += self._mlp(layer, space, x)
        states = batch.pooled(x)  # [pooled, D]
        states = _norm(states, config.norm_eps, states) * self._norm
        return self._logits(x, batch), states

    def _attention(
        self,
        layer: Layer,
        index: int,
        batch: Batch,
        rotations: npt.NDArray[np.complex64],
        space: Workspace,
        x: Array,
    ) -> Array:
        """Return attention's share of the residual stream: [rows, D] -> [rows, D].

        `rotations` are those of each row: [rows, 1, R/2].
        """
        config = self.config
        layer.qkv(_norm(x, config.norm_eps, space.normed), space.qkv)
        _plus(space.flat, layer.qkv_bias)
        if layer.qk_norm is not None:
            _norm(space.qk, config.norm_eps, space.qk)
            np.multiply(space.qk, layer.qk_norm, out=space.qk)
        if layer.rotated:
            np.multiply(space.pairs, rotations, out=space.pairs)
        layer.out(batch.attend(index, space.heads, space.gathered), space.wide)
        return _plus(space.share, layer.out_bias)

    def _mlp(self, layer: Layer, space: Workspace, x: Array) -> Array:
        """Return the MLP's share of the residual stream: [rows, D] -> [rows, D]."""
        layer.gate_up(_norm(x, self.config.norm_eps, space.normed), space.both)
        _plus(space.gate_up, layer.gate_up_bias)
        gated = activate(self.config.activation, space.gate, space.gated)  # [rows, F]
        gated *= space.up
        layer.down(gated, space.wide)
        return _plus(space.share, layer.down_bias)

    def _logits(self, x: Array, batch: Batch) -> Array:
        """Return the scores after the sampled positions of every sequence: [sampled, V]."""
        rows, count = batch.sampled(x)  # [sampled padded, D]
        out = np.empty((len(rows), self._head.width), np.float32)  # [sampled padded, V padded]
        normed = _norm(rows, self.config.norm_eps, np.empty_like(rows))  # [sampled padded, D]
        return self._head(normed, out)[:count, : self.config.vocab]


def _plus(x: Array, bias: Array | None) -> Array:
    """Add a bias, if there is one, to each row of `x` [rows, out], in place; return it."""
    if bias is not None:
        x += bias
    return x


def _norm(x: Array, eps: float, out: Array) -> Array:
    """Scale each row of `x` [..., D] to a length of one, and write it to `out`, which is returned.

    The factor sqrt(D), to a root mean square of one, stands in the weight that is to follow.
    """
    length = np.vecdot(x, x)  # [...]
    length += x.shape[-1] * eps
    np.sqrt(length, out=length)
    scaled: Array = np.divide(x, length[..., None], out=out)
    return scaled


def _layer(config: ModelConfig, checkpoint: Checkpoint, index: int, linear: Layout) -> Layer:
    def take(name: str) -> Array:
        return checkpoint.take(config.names.layer.format(index) + name)

    def take_norm(name: str) -> Array:
        """Take what the columns of the matrix behind a norm are multiplied by: [D]."""
        norm = take(name) + np.float32(config.norm_offset)  # [D]
        norm *= np.sqrt(config.dim, dtype=np.float32)
        return norm

    def take_qkv(kind: str) -> Array:
        q, k = (in_pairs(take(f"self_attn.{n}_proj.{kind}")) for n in "qk")
        # a norm of the queries would undo a scale in their weight, and bears it itself
        scaled = q if config.qk_norm else q / scale
        return np.concatenate([scaled, k, take(f"self_attn.v_proj.{kind}")])

    def take_gate_up(kind: str) -> Array:
        return np.concatenate([take(f"mlp.gate_proj.{kind}"), take(f"mlp.up_proj.{kind}")])

    def in_pairs(weight: Array) -> Array:
        return side_by_side(weight, config.head_dim, config.rotary_dim)

    scale = np.sqrt(config.head_dim, dtype=np.float32)
    norm = take_norm("input_layernorm.weight")  # [D]
    qkv = linear(take_qkv("weight") * norm)
    qk_norm = None
    if config.qk_norm:
        q, k = (in_pairs(take(f"self_attn.{n}_norm.weight")) for n in "qk")
        # [H + K, E]: sqrt(E) for both, and 1 / sqrt(E) for the scores, which is the queries'
        qk_norm = np.stack([q] * config.heads + [k * scale] * config.kv_heads)
    qkv_bias = take_qkv("bias") if config.qkv_bias else None
    out = linear(take("self_attn.o_proj.weight"))
    out_bias = take("self_attn.o_proj.bias") if config.out_bias else None
    norm = take_norm("post_attention_layernorm.weight")  # [D]
    return Layer(
        qkv=qkv,
        qkv_bias=qkv_bias,
        qk_norm=qk_norm,
        rotated=index not in config.no_rope_layers,
        out=out,
        out_bias=out_bias,
        gate_up=linear(take_gate_up("weight") * norm),
        gate_up_bias=take_gate_up("bias") if config.mlp_bias else None,
        down=linear(take("mlp.down_proj.weight")),
        down_bias=take("mlp.down_proj.bias") if config.mlp_bias else None,
    )
