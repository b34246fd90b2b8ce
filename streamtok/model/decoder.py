"""The decoder as it serves: many sequences in one pass, each position computed once.

The same computation as `streamtok.model.reference`, laid out for speed: query, key and value
weights in one matrix, gate and up in another, each norm's weight and the 1/sqrt(E) of attention
folded into the matrix that follows, rotary pairs adjacent so that a rotation is one complex
product. Buffers are allocated once per pass and shared by all layers. Every row of the
result is bitwise independent of what else is in the pass.

Does not know requests, sampling or text.

Read next: `streamtok.model.batch`.
"""

from collections.abc import Callable, Sequence
from copy import copy

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from streamtok.model.activation import activate
from streamtok.model.attention import KVCache
from streamtok.model.base import Decoder, Layout, side_by_side
from streamtok.model.batch import Batch, Segment
from streamtok.model.config import ModelConfig
from streamtok.model.exact.linear import Linear, Products
from streamtok.model.weights import Array, Checkpoint


class Layer(Struct, frozen=True):
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
        gathered, turned = config.heads * config.head_dim, config.rotary_dim // 2
        wide = (layer.qkv.width, gathered, layer.gate_up.width, config.hidden, layer.out.width)
        arrays = [np.zeros((rows, n), np.float32) for n in (config.dim, config.dim, *wide)]
        self._config = config
        self._look(arrays, np.zeros((rows, 1, turned), np.complex64))

    def part(self, rows: slice) -> "Workspace":
        """Return the same for some of its rows."""
        part = copy(self)
        part._look([array[rows] for array in self._arrays], self.rotations[rows])
        return part

    def _look(self, arrays: list[Array], rotations: npt.NDArray[np.complex64]) -> None:
        config, self._arrays = self._config, arrays
        self.x, self.normed, self.qkv, self.gathered, self.both, self.gated, self.wide = arrays
        width, rotated = config.head_dim, config.heads + config.kv_heads
        self.flat = self.qkv[:, : (rotated + config.kv_heads) * width]  # [rows, (H + 2K) * E]
        self.heads = self.flat.reshape(len(self.x), -1, width)  # [rows, H + 2K, E]
        self.qk = self.heads[:, :rotated]  # [rows, H + K, E]
        pairs = self.qk[:, :, : config.rotary_dim]  # [rows, H + K, R]
        self.pairs = pairs.view(np.complex64)  # [rows, H + K, R/2]
        self.rotations = rotations  # [rows, 1, R/2], of each row
        self.gate_up = self.both[:, : 2 * config.hidden]  # [rows, 2F]
        self.gate = self.both[:, : config.hidden]  # [rows, F]
        self.up = self.both[:, config.hidden : 2 * config.hidden]  # [rows, F]
        self.share = self.wide[:, : config.dim]  # [rows, D]: what is added to the residual stream


# Brings the residual stream through all layers, or returns False if the rows are too few
ManyRows = Callable[[Batch, Workspace], bool]


class LlamaDecoder(Decoder):
    """A model of the Llama line: its families differ by the flags of its configuration only."""

    def __init__(self, config: ModelConfig, checkpoint: Checkpoint, products: Products) -> None:
        """Lay out the tensors of `checkpoint`, taking each of them."""
        self.config = config
        self.tiling = products.tiling
        linear = products.linear

        names = config.names
        table = checkpoint.take(names.embedding)  # [V, D]
        self.layers = [_layer(config, checkpoint, index, linear) for index in range(config.layers)]
        norm = checkpoint.take("model.norm.weight") + np.float32(config.norm_offset)  # [D]
        self._norm = norm * np.sqrt(config.dim, dtype=np.float32)
        self._head = linear(table if config.tied else checkpoint.take(names.head))
        self._embedded = self._head.rows if config.tied else table.__getitem__  # of ids
        self._rotations = config.rope.rotations(config.rotary_dim, config.context)  # [., R/2]
        self.digest = checkpoint.digest
        self._space = self._part = Workspace(config, self.layers[0], 1)  # the largest, the last
        self.many_rows: ManyRows | None = None  # a faster way for many (`streamtok.model.wide`)

    def compute(self, cache: KVCache, segments: Sequence[Segment]) -> tuple[Array, Array]:
        """See `Decoder.compute`."""
        config = self.config
        batch = Batch(config, self.tiling, cache, segments)
        space, scale = self._workspace(batch.padded), np.float32(config.embed_scale)
        np.multiply(self._embedded(batch.ids), scale, out=space.x[: batch.rows])
        space.x[batch.rows :] = 0
        np.take(self._rotations, batch.positions, axis=0, out=space.rotations[: batch.rows, 0])
        if not (self.many_rows and self.many_rows(batch, space)):
            for index, layer in enumerate(self.layers):
                self.project(layer, space)
                batch.store(index, space.heads, slice(None))
                batch.attend(index, space.heads, space.gathered)
                self.close(layer, space)
        return self._logits(space.x, batch), self._last_norm(batch.pooled(space.x))

    def _workspace(self, rows: int) -> Workspace:
        """Return room for a pass: memory that was used before costs less than new memory."""
        if len(self._space.x) < rows:
            self._space = self._part = Workspace(self.config, self.layers[0], rows)
        if len(self._part.x) != rows:  # the next pass has often as many
            self._part = self._space.part(slice(rows))
        return self._part

    def project(self, layer: Layer, space: Workspace) -> None:
        """Compute queries, keys and values, ready for attention."""
        eps = self.config.norm_eps
        layer.qkv(_norm(space.x, eps, space.normed), space.qkv)
        _plus(space.flat, layer.qkv_bias)
        if layer.qk_norm is not None:
            _norm(space.qk, eps, space.qk)
            np.multiply(space.qk, layer.qk_norm, out=space.qk)
        if layer.rotated:
            np.multiply(space.pairs, space.rotations, out=space.pairs)

    def close(self, layer: Layer, space: Workspace) -> None:
        """Add to the residual stream what attention has gathered, then the MLP's share."""
        layer.out(space.gathered, space.wide)
        space.x += _plus(space.share, layer.out_bias)
        layer.gate_up(_norm(space.x, self.config.norm_eps, space.normed), space.both)
        _plus(space.gate_up, layer.gate_up_bias)
        gated = activate(self.config.activation, space.gate, space.gated)  # [rows, F]
        gated *= space.up
        layer.down(gated, space.wide)
        space.x += _plus(space.share, layer.down_bias)

    def _logits(self, x: Array, batch: Batch) -> Array:
        """Return the scores after the sampled positions of every sequence: [sampled, V]."""
        rows, count = batch.sampled(x)  # [sampled padded, D]
        out = np.empty((len(rows), self._head.width), np.float32)  # [sampled padded, V padded]
        return self._head(self._last_norm(rows), out)[:count, : self.config.vocab]

    def _last_norm(self, x: Array) -> Array:
        """Return the final states of `x` [rows, D]."""
        states = _norm(x, self.config.norm_eps, np.empty_like(x))
        states *= self._norm
        return states


def _plus(x: Array, bias: Array | None) -> Array:
    """Add a bias, if there is one, to each row of `x` [rows, out], in place; return it."""
    if bias is not None:
        x += bias
    return x


def _norm(x: Array, eps: float, out: Array) -> Array:
    """Scale each row of `x` [..., D] to a length of one, and write it to `out`, which is returned.

    The factor sqrt(D), to a root mean square of one, is folded into the weight that follows.
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
        """Take what the columns of the matrix after a norm are multiplied by: [D]."""
        norm = take(name) + np.float32(config.norm_offset)  # [D]
        norm *= np.sqrt(config.dim, dtype=np.float32)
        return norm

    def take_qkv(kind: str) -> Array:
        q, k = (in_pairs(take(f"self_attn.{n}_proj.{kind}")) for n in "qk")
        # a norm of the queries would undo a scale in their weight, so the norm's weight has it
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
