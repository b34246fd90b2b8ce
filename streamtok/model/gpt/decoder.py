"""The decoder of the GPT line as it serves: GPT-2, GPT-NeoX, Pythia.

The same computation as `streamtok.model.gpt.reference`, laid out like `streamtok.model.decoder`,
which is to be read first: many sequences in one pass, tiles of one shape, every row's bits
independent of the batch. Each norm's scale and shift are folded into the matrix that follows.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from streamtok.model.activation import activate
from streamtok.model.attention import KVCache
from streamtok.model.base import Decoder, Layout, side_by_side
from streamtok.model.batch import Batch, Segment
from streamtok.model.exact.linear import Linear, Products
from streamtok.model.gpt.families import GptConfig
from streamtok.model.weights import Array, Checkpoint


class Affine(Struct, frozen=True):
    """`y = x @ weight.T + bias`, of [out, in] and [out]."""

    linear: Linear
    bias: Array

    def __call__(self, x: Array) -> Array:
        """Return [rows, out] for `x` [rows, in]; see `Tiling.padded` for `rows`."""
        out = self.linear(x, np.empty((len(x), self.linear.width), np.float32))
        out = out[:, : len(self.bias)]
        out += self.bias
        return out


class GptLayer(Struct, frozen=True):
    """The four matrices of one layer."""

    qkv: Affine
    out: Affine
    up: Affine
    down: Affine


class GptDecoder(Decoder):
    """A model of the GPT line."""

    config: GptConfig

    def __init__(self, config: GptConfig, checkpoint: Checkpoint, products: Products) -> None:
        """Lay out the tensors of `checkpoint`, taking each of them."""
        names = config.names
        self.config = config
        self.tiling = products.tiling
        linear = products.linear

        self._embedding = checkpoint.take(names.embedding)  # [V, D]
        self._positions: Array | None = None
        if names.positions:
            self._positions = checkpoint.take(names.positions)  # [context, D]
        self._blocks = [_layer(config, checkpoint, index, linear) for index in range(config.layers)]
        head = self._embedding if config.tied else checkpoint.take(names.head)  # [V, D]
        none = np.zeros(config.vocab, np.float32)  # [V]
        self._final_norm = _norm_of(checkpoint, names.norm)
        self._out = _after_norm(linear, head, none, *self._final_norm)
        self._rotations = config.rope.rotations(config.rotary_dim, config.context)  # [., R/2]
        self.digest = checkpoint.digest

    def compute(self, cache: KVCache, segments: Sequence[Segment]) -> tuple[Array, Array]:
        """See `Decoder.compute`."""
        config = self.config
        batch = Batch(config, self.tiling, cache, segments)
        x = np.zeros((batch.padded, config.dim), np.float32)  # [rows, D]
        x[: batch.rows] = self._embedding[batch.ids]
        if self._positions is not None:
            x[: batch.rows] += self._positions[batch.positions]
        rotations = np.zeros((batch.padded, 1, config.rotary_dim // 2), np.complex64)
        rotations[: batch.rows, 0] = self._rotations[batch.positions]  # [rows, 1, R/2]
        gathered = np.zeros_like(x)  # [rows, D]
        for index, layer in enumerate(self._blocks):
            normed = _layer_norm(x, config.norm_eps)  # [rows, D]
            heads = self._heads(layer, normed, rotations)  # [rows, 3H, E]
            batch.store(index, heads, slice(None))
            batch.attend(index, heads, gathered)
            attended = layer.out(gathered)  # [rows, D]
            if config.parallel:  # both norms differ in what is folded away only
                x += attended + self._mlp_of(layer, normed)
            else:
                x += attended
                x += self._mlp_of(layer, _layer_norm(x, config.norm_eps))
        sampled, count = batch.sampled(x)  # [sampled padded, D]
        scale, shift = self._final_norm
        states = _layer_norm(batch.pooled(x), config.norm_eps) * scale + shift  # [pooled, D]
        return self._out(_layer_norm(sampled, config.norm_eps))[:count], states

    def _heads(self, layer: GptLayer, normed: Array, rotations: npt.NDArray[np.complex64]) -> Array:
        """Return queries, keys and values of each row: [rows, 3H, E]."""
        config = self.config
        heads: Array = layer.qkv(normed).reshape(len(normed), 3 * config.heads, config.head_dim)
        if config.rotary_dim:
            part = heads[:, : 2 * config.heads, : config.rotary_dim].copy()  # [rows, 2H, R]
            pairs = part.view(np.complex64)  # [rows, 2H, R/2]
            np.multiply(pairs, rotations, out=pairs)
            heads[:, : 2 * config.heads, : config.rotary_dim] = part
        return heads

    def _mlp_of(self, layer: GptLayer, normed: Array) -> Array:
        """Return the MLP's share of the residual stream: [rows, D] -> [rows, D]."""
        wide = layer.up(normed)  # [rows, F]
        bent = np.empty(wide.shape, np.float32)  # [rows, F], in C order
        return layer.down(activate(self.config.activation, wide, bent))


def _layer_norm(x: Array, eps: float) -> Array:
    """Give each row of `x` [rows, D] mean 0 and variance 1."""
    mean = np.add.reduce(x, axis=-1, keepdims=True)  # [rows, 1]
    mean /= x.shape[-1]
    centred = np.subtract(x, mean)  # [rows, D]
    variance = np.add.reduce(centred * centred, axis=-1, keepdims=True)  # [rows, 1]
    variance /= x.shape[-1]
    variance += eps
    centred /= np.sqrt(variance)
    return centred


def _after_norm(linear: Layout, weight: Array, bias: Array, scale: Array, shift: Array) -> Affine:
    """Return the matrix [out, in] behind a norm, with the norm's own `scale` and `shift` in it."""
    shifted = np.add.reduce(weight * shift, axis=1)  # [out]
    return Affine(linear(weight * scale), bias + shifted)


def _norm_of(checkpoint: Checkpoint, name: str) -> tuple[Array, Array]:
    """Take the scale and the shift of a norm, [D] each."""
    return checkpoint.take(f"{name}.weight"), checkpoint.take(f"{name}.bias")


def _layer(config: GptConfig, checkpoint: Checkpoint, index: int, linear: Layout) -> GptLayer:
    names = config.names
    prefix = names.layer.format(index)

    def take(name: str) -> tuple[Array, Array]:
        weight = checkpoint.take(f"{prefix}{name}.weight")
        weight = np.ascontiguousarray(weight.T) if names.transposed else weight  # [out, in]
        if name in (names.qkv, names.out) and not config.attention_bias:
            return weight, np.zeros(len(weight), np.float32)
        return weight, checkpoint.take(f"{prefix}{name}.bias")  # [out]

    divisor = np.float32(config.score_divisor(index))
    weight, bias = (_in_order(config, tensor, divisor) for tensor in take(names.qkv))
    qkv = _after_norm(linear, weight, bias, *_norm_of(checkpoint, prefix + names.attention_norm))
    weight, bias = take(names.out)
    out = Affine(linear(weight), bias)
    up = _after_norm(linear, *take(names.up), *_norm_of(checkpoint, prefix + names.mlp_norm))
    weight, bias = take(names.down)
    return GptLayer(qkv, out, up, Affine(linear(weight), bias))


def _in_order(config: GptConfig, tensor: Array, divisor: np.float32) -> Array:
    """Return rows of queries, keys and values as the cache wants them: [3D, ...].

    All queries, then keys, then values, the queries divided by `divisor`; of what is rotated in
    each head the pairs stand side by side.
    """
    rest = tensor.shape[1:]
    shape = (config.heads, 3) if config.names.by_head else (3, config.heads)
    parts = tensor.reshape(*shape, config.head_dim, *rest)
    parts = (parts.swapaxes(0, 1) if config.names.by_head else parts).copy()  # [3, H, E, ...]
    parts[0] /= divisor
    if config.rotary_dim:
        rows = parts[:2].reshape(-1, *rest)  # [2 * H * E, ...]
        parts[:2] = side_by_side(rows, config.head_dim, config.rotary_dim).reshape(parts[:2].shape)
    ordered: Array = parts.reshape(tensor.shape)
    return ordered
