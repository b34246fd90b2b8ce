"""The decoder of the GPT line as it serves: GPT-2, GPT-NeoX, Pythia.

The same computation as `streamtok.model.gpt.reference`, laid out like `streamtok.model.decoder`,
which is to be read first: many sequences in one pass, tiles of one shape, every row's bits
independent of its company. Each norm's scale and shift are folded into the matrix that follows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamtok.model.attention import KVCache
from streamtok.model.batch import Batch, Segment
from streamtok.model.decoder import Decoder, Layout, exponent, matrix_shapes
from streamtok.model.exact.calibration import calibrate
from streamtok.model.exact.linear import Arena, Linear
from streamtok.model.exact.threads import Threads
from streamtok.model.gpt.families import GptConfig
from streamtok.model.weights import Array, Checkpoint

# erf(x) is x P(x^2) / Q(x^2) for |x| < 4, and 1 or -1 beyond, to 5e-7: the coefficients of the
# float32 function in Eigen and XLA, highest power first
ERF_P = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
ERF_Q = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)


@dataclass(frozen=True, slots=True)
class Affine:
    """`y = x @ weight.T + bias`, of [out, in] and [out]."""

    linear: Linear
    bias: Array

    def __call__(self, x: Array) -> Array:
        """Return [rows, out] for `x` [rows, in]; `rows` is a multiple of the granule."""
        out = self.linear(x, np.empty((len(x), self.linear.width), np.float32))
        out = out[:, : len(self.bias)]
        out += self.bias
        return out


@dataclass(frozen=True, slots=True)
class GptLayer:
    """The four matrices of one layer."""

    qkv: Affine
    out: Affine
    up: Affine
    down: Affine


class GptDecoder(Decoder):
    """A loaded model of the GPT line; is used as `Decoder` is."""

    config: GptConfig

    def __init__(self, config: GptConfig, checkpoint: Checkpoint, threads: Threads) -> None:
        """Lay out the tensors of `checkpoint`, taking each of them."""
        names = config.layout
        self.config = config
        self.tiling = calibrate(matrix_shapes(config), config.head_dim)
        arena = Arena()

        def linear(weight: Array) -> Linear:
            return Linear(weight, self.tiling, arena, threads)

        self._embedding = checkpoint.take(names.embedding)  # [V, D]
        self._positions: Array | None = None
        if names.positions:
            self._positions = checkpoint.take(names.positions)  # [context, D]
        self._blocks = [_layer(config, checkpoint, index, linear) for index in range(config.layers)]
        head = self._embedding if config.tied else checkpoint.take(names.head)  # [V, D]
        none = np.zeros(config.vocab, np.float32)  # [V]
        self._final_norm = _norm_of(checkpoint, names.norm)
        self._out = _after_norm(linear, head, none, *self._final_norm)
        self._turns = _turns(config)
        self.digest = checkpoint.digest

    def compute(self, cache: KVCache, segments: Sequence[Segment]) -> tuple[Array, Array]:
        """See `Decoder.compute`."""
        config = self.config
        batch = Batch(config, self.tiling, cache, segments)
        x = np.zeros((batch.padded, config.dim), np.float32)  # [rows, D]
        x[: batch.rows] = self._embedding[batch.ids]
        if self._positions is not None:
            x[: batch.rows] += self._positions[batch.positions]
        turns = np.zeros((batch.padded, 1, config.turned // 2), np.complex64)  # [rows, 1, turned/2]
        turns[: batch.rows, 0] = self._turns[batch.positions]
        gathered = np.zeros_like(x)  # [rows, D]
        for index, layer in enumerate(self._blocks):
            normed = _layer_norm(x, config.norm_eps)  # [rows, D]
            heads = self._heads(layer, normed, turns)  # [rows, 3H, E]
            attended = layer.out(batch.attend(index, heads, gathered))  # [rows, D]
            if config.parallel:  # both norms differ in what is folded away only
                x += attended + self._mlp_of(layer, normed)
            else:
                x += attended
                x += self._mlp_of(layer, _layer_norm(x, config.norm_eps))
        sampled, count = batch.sampled(x)  # [sampled padded, D]
        scale, shift = self._final_norm
        states = _layer_norm(batch.pooled(x), config.norm_eps) * scale + shift  # [pooled, D]
        return self._out(_layer_norm(sampled, config.norm_eps))[:count], states

    def _heads(self, layer: GptLayer, normed: Array, turns: npt.NDArray[np.complex64]) -> Array:
        """Return queries, keys and values of each row: [rows, 3H, E]."""
        config = self.config
        heads: Array = layer.qkv(normed).reshape(len(normed), 3 * config.heads, config.head_dim)
        if config.turned:
            part = heads[:, : 2 * config.heads, : config.turned].copy()  # [rows, 2H, turned]
            pairs = part.view(np.complex64)  # [rows, 2H, turned/2]
            np.multiply(pairs, turns, out=pairs)
            heads[:, : 2 * config.heads, : config.turned] = part
        return heads

    def _mlp_of(self, layer: GptLayer, normed: Array) -> Array:
        """Return the MLP's share of the residual stream: [rows, D] -> [rows, D]."""
        wide = layer.up(normed)  # [rows, F]
        return layer.down(_activated(self.config.activation, wide))


def erf(x: Array) -> Array:
    """Return the error function of each number, to 5e-7; shape as given."""
    x = np.clip(x, np.float32(-4), np.float32(4))
    square = x * x
    result: Array = x * _polynomial(ERF_P, square) / _polynomial(ERF_Q, square)
    return result


def _polynomial(coefficients: Sequence[float], x: Array) -> Array:
    """Return a polynomial of each number by Horner's rule; shape as given."""
    value = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value *= x
        value += np.float32(coefficient)
    return value


def _activated(activation: str, x: Array) -> Array:
    """Return gelu of each number, exact or by tanh; shape as given, in C order."""
    if activation == "gelu":
        share = erf(x * np.float32(np.sqrt(0.5)))
        share += 1
        share *= np.float32(0.5)
        return np.multiply(x, share)
    with np.errstate(over="ignore"):  # where exp is infinite the quotient is rightly zero
        divisor = np.exp(exponent(activation, x, np.empty_like(x)))
    divisor += 1.0
    return np.divide(x, divisor)


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
    names = config.layout
    prefix = names.layer.format(index)

    def take(name: str) -> tuple[Array, Array]:
        weight = checkpoint.take(f"{prefix}{name}.weight")
        weight = np.ascontiguousarray(weight.T) if names.transposed else weight  # [out, in]
        return weight, checkpoint.take(f"{prefix}{name}.bias")  # [out]

    weight, bias = (_in_order(config, tensor) for tensor in take(names.qkv))
    qkv = _after_norm(linear, weight, bias, *_norm_of(checkpoint, prefix + names.attention_norm))
    weight, bias = take(names.out)
    out = Affine(linear(weight), bias)
    up = _after_norm(linear, *take(names.up), *_norm_of(checkpoint, prefix + names.mlp_norm))
    weight, bias = take(names.down)
    return GptLayer(qkv, out, up, Affine(linear(weight), bias))


def _in_order(config: GptConfig, tensor: Array) -> Array:
    """Return rows of queries, keys and values as the cache wants them: [3D, ...].

    All queries, then keys, then values, the queries scaled; and of what is turned in each head the
    pairs (i, i + turned/2) side by side, as in `streamtok.model.decoder`.
    """
    rest = tensor.shape[1:]
    shape = (config.heads, 3) if config.layout.by_head else (3, config.heads)
    parts = tensor.reshape(*shape, config.head_dim, *rest)
    parts = (parts.swapaxes(0, 1) if config.layout.by_head else parts).copy()  # [3, H, E, ...]
    parts[0] /= np.sqrt(config.head_dim, dtype=np.float32)
    half = config.turned // 2
    pairs = parts[:2, :, : config.turned].reshape(2, config.heads, 2, half, *rest)
    parts[:2, :, : config.turned] = pairs.swapaxes(2, 3).reshape(
        2, config.heads, config.turned, *rest
    )
    ordered: Array = parts.reshape(tensor.shape)
    return ordered


def _turns(config: GptConfig) -> npt.NDArray[np.complex64]:
    """Return the rotation of each pair at each position as a complex number: [., turned/2]."""
    if not config.turned:
        return np.zeros((config.context, 0), np.complex64)
    angle = np.outer(np.arange(config.context), config.rope.speeds(config.turned))
    turns: npt.NDArray[np.complex64] = np.exp(1j * angle).astype(np.complex64)
    return turns
