"""The decoder as it serves: many sequences in one pass, each position computed once.

The same computation as `streamtok.model.reference`, laid out for speed: query, key and value
weights in one matrix, gate and up in another, each norm's weight and the 1/sqrt(E) of attention
folded into the matrix that follows, rotary pairs side by side so that turning them is one complex
product. What a pass needs room for is allocated once and serves every layer. Every row of the
result is bitwise independent of what else is in the pass.

Does not know requests, sampling or text. Read next: `streamtok.engine.runner`, which feeds it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from streamtok.model.attention import KVCache
from streamtok.model.batch import Batch, Segment
from streamtok.model.config import ModelConfig
from streamtok.model.exact.calibration import calibrate
from streamtok.model.exact.linear import Arena, Linear
from streamtok.model.exact.threads import Threads, available
from streamtok.model.families import read_config, tensor_shapes
from streamtok.model.gpt.families import GptConfig
from streamtok.model.weights import Array, Checkpoint

Layout = Callable[[Array], Linear]  # lays out a weight [out, in]


@dataclass(frozen=True, slots=True)
class Layer:
    """The four matrices of one layer, and what some families add to its queries and keys."""

    qkv: Linear
    qkv_bias: Array | None  # [(H + 2K) * E]
    qk_norm: Array | None  # [H + K, E]
    turned: bool
    out: Linear
    gate_up: Linear
    down: Linear


class Room:
    """Where one pass keeps what it computes, layer after layer; `rows` of everything."""

    def __init__(self, config: ModelConfig, layer: Layer, rows: int) -> None:
        width, turned = config.head_dim, config.heads + config.kv_heads
        self.normed: Array = np.empty((rows, config.dim), np.float32)  # [rows, D]
        self.qkv: Array = np.empty((rows, layer.qkv.width), np.float32)
        self.flat = self.qkv[:, : (turned + config.kv_heads) * width]  # [rows, (H + 2K) * E]
        self.heads = self.flat.reshape(rows, -1, width)  # [rows, H + 2K, E]
        self.qk = self.heads[:, :turned]  # [rows, H + K, E]
        self.pairs = self.qk.view(np.complex64)  # [rows, H + K, E/2]
        self.gathered: Array = np.zeros((rows, config.heads * width), np.float32)  # [rows, H * E]
        self.both: Array = np.empty((rows, layer.gate_up.width), np.float32)
        self.gate = self.both[:, : config.hidden]  # [rows, F]
        self.up = self.both[:, config.hidden : 2 * config.hidden]  # [rows, F]
        self.gated: Array = np.empty((rows, config.hidden), np.float32)  # [rows, F]
        self.wide: Array = np.empty((rows, layer.out.width), np.float32)
        self.share = self.wide[:, : config.dim]  # [rows, D]: what is added to the residual stream


class Decoder:
    """A loaded model. Holds no state of any sequence: that is in the KVCache given to each pass."""

    def __init__(self, config: ModelConfig, checkpoint: Checkpoint, threads: Threads) -> None:
        """Lay out the tensors of `checkpoint`, taking each of them."""
        self.config = config
        self.tiling = calibrate(matrix_shapes(config), config.head_dim)
        arena = Arena()

        def linear(weight: Array) -> Linear:
            return Linear(weight, self.tiling, arena, threads)

        self._embedding = checkpoint.take("model.embed_tokens.weight")  # [V, D]
        self._layers = [_layer(config, checkpoint, index, linear) for index in range(config.layers)]
        norm = checkpoint.take("model.norm.weight") + np.float32(config.norm_offset)  # [D]
        norm *= np.sqrt(config.dim, dtype=np.float32)
        head = self._embedding if config.tied else checkpoint.take("lm_head.weight")  # [V, D]
        self._head = linear(head * norm)
        self._norm = norm  # which the head holds already, for states
        self._embedding *= np.float32(config.embed_scale)
        self._turns = _turns(config)
        self.digest = checkpoint.digest

    def forward(self, cache: KVCache, segments: Sequence[Segment]) -> Array:
        """Compute the positions of `segments`, store their keys and values, return logits.

        The result is [sampled, V], in the order of the segments, of their slots and positions.
        """
        return self.compute(cache, segments)[0]

    def compute(self, cache: KVCache, segments: Sequence[Segment]) -> tuple[Array, Array]:
        """Return what `forward` does, and the final states that are wanted: [pooled, D].

        The states are in the same order; they are what the last norm gives, with its weight.
        """
        config = self.config
        batch = Batch(config, self.tiling, cache, segments)
        room = Room(config, self._layers[0], batch.padded)
        x = np.zeros((batch.padded, config.dim), np.float32)  # [rows, D], padded with zeros
        np.take(self._embedding, batch.ids, axis=0, out=x[: batch.rows])
        turns = np.zeros((batch.padded, 1, config.head_dim // 2), np.complex64)  # [rows, 1, E/2]
        np.take(self._turns, batch.positions, axis=0, out=turns[: batch.rows, 0])
        # exp(-gate) of a strongly negative gate is infinite and gate / infinity rightly zero
        with np.errstate(over="ignore"):
            for index, layer in enumerate(self._layers):
                x += self._attention(layer, index, batch, turns, room, x)
                x += self._mlp(layer, room, x)
        states = batch.pooled(x)  # [pooled, D]
        states = _norm(states, config.norm_eps, states) * self._norm
        return self._logits(x, batch), states

    def _attention(
        self,
        layer: Layer,
        index: int,
        batch: Batch,
        turns: npt.NDArray[np.complex64],
        room: Room,
        x: Array,
    ) -> Array:
        """Return attention's share of the residual stream: [rows, D] -> [rows, D]."""
        config = self.config
        layer.qkv(_norm(x, config.norm_eps, room.normed), room.qkv)
        if layer.qkv_bias is not None:
            room.flat += layer.qkv_bias
        if layer.qk_norm is not None:
            _norm(room.qk, config.norm_eps, room.qk)
            np.multiply(room.qk, layer.qk_norm, out=room.qk)
        if layer.turned:
            np.multiply(room.pairs, turns, out=room.pairs)
        layer.out(batch.attend(index, room.heads, room.gathered), room.wide)
        return room.share

    def _mlp(self, layer: Layer, room: Room, x: Array) -> Array:
        """Return the MLP's share of the residual stream: [rows, D] -> [rows, D]."""
        layer.gate_up(_norm(x, self.config.norm_eps, room.normed), room.both)
        gated = exponent(self.config.activation, room.gate, room.gated)  # [rows, F]
        np.exp(gated, out=gated)
        gated += 1.0
        np.divide(room.gate, gated, out=gated)
        gated *= room.up
        layer.down(gated, room.wide)
        return room.share

    def _logits(self, x: Array, batch: Batch) -> Array:
        """Return the scores after the sampled positions of every sequence: [sampled, V]."""
        rows, count = batch.sampled(x)  # [sampled padded, D]
        out = np.empty((len(rows), self._head.width), np.float32)  # [sampled padded, V padded]
        normed = _norm(rows, self.config.norm_eps, np.empty_like(rows))  # [sampled padded, D]
        return self._head(normed, out)[:count, : self.config.vocab]


def matrix_shapes(config: ModelConfig) -> list[tuple[int, int]]:
    """Return the shapes of the weights, each [out, in], one for each number of terms at least."""
    return [
        (config.vocab, config.dim),
        (config.dim, config.hidden),
        (config.dim, config.heads * config.head_dim),
    ]


def load(folder: Path, threads: int | None = None) -> Decoder:
    """Load the model in a Hugging Face folder, to be computed by so many threads.

    Raises:
        ModelError: anything in the folder is missing, damaged or not supported.
    """
    from streamtok.model.gpt.decoder import GptDecoder  # which is built on what stands here

    # A BLAS that shares a product among threads adds in an order that depends on how many there
    # are; ours share its panels instead.
    threadpool_limits(limits=1, user_api="blas")

    config = read_config(folder)
    checkpoint = Checkpoint(folder, tensor_shapes(config))
    shared = Threads(available() if threads is None else threads)
    if isinstance(config, GptConfig):
        return GptDecoder(config, checkpoint, shared)
    return Decoder(config, checkpoint, shared)


def _norm(x: Array, eps: float, out: Array) -> Array:
    """Scale each row of `x` [..., D] to a length of one, and write it to `out`, which is returned.

    The factor sqrt(D), to a root mean square of one, stands in the weight that is to follow.
    """
    length = np.vecdot(x, x)  # [...]
    length += x.shape[-1] * eps
    np.sqrt(length, out=length)
    scaled: Array = np.divide(x, length[..., None], out=out)
    return scaled


def exponent(activation: str, gate: Array, out: Array) -> Array:
    """Write the `e` for which the activation of a gate g is g / (1 + exp(e)) to `out`; return it.

    For silu that is -g; 1 + tanh(z) is 2 / (1 + exp(-2z)), which gives gelu_tanh the same form.
    """
    if activation == "silu":
        return np.negative(gate, out=out)
    exponent = np.multiply(gate, gate, out=out)
    exponent *= np.float32(-2 * np.sqrt(2 / np.pi) * 0.044715)
    exponent -= np.float32(2 * np.sqrt(2 / np.pi))
    exponent *= gate
    return exponent


def _layer(config: ModelConfig, checkpoint: Checkpoint, index: int, linear: Layout) -> Layer:
    def take(name: str) -> Array:
        return checkpoint.take(f"model.layers.{index}.{name}")

    def take_qkv(kind: str) -> Array:
        q, k = (_side_by_side(take(f"self_attn.{n}_proj.{kind}"), config.head_dim) for n in "qk")
        # a norm of the queries would undo a scale in their weight, and bears it itself
        scaled = q if config.qk_norm else q / scale
        return np.concatenate([scaled, k, take(f"self_attn.v_proj.{kind}")])

    scale = np.sqrt(config.head_dim, dtype=np.float32)
    offset, root = np.float32(config.norm_offset), np.sqrt(config.dim, dtype=np.float32)
    norm = (take("input_layernorm.weight") + offset) * root  # [D]
    qkv = linear(take_qkv("weight") * norm)
    bias = take_qkv("bias") if config.qkv_bias else None  # [(H + 2K) * E]
    qk_norm = None
    if config.qk_norm:
        q, k = (_side_by_side(take(f"self_attn.{n}_norm.weight"), config.head_dim) for n in "qk")
        # [H + K, E]: sqrt(E) for both, and 1 / sqrt(E) for the scores, which is the queries'
        qk_norm = np.stack([q] * config.heads + [k * scale] * config.kv_heads)
    out = linear(take("self_attn.o_proj.weight"))
    norm = (take("post_attention_layernorm.weight") + offset) * root  # [D]
    gate_up = np.concatenate([take("mlp.gate_proj.weight"), take("mlp.up_proj.weight")])
    down = linear(take("mlp.down_proj.weight"))
    turned = index not in config.no_rope_layers
    return Layer(qkv, bias, qk_norm, turned, out, linear(gate_up * norm), down)


def _side_by_side(weight: Array, head_dim: int) -> Array:
    """Reorder each head's rows of `weight` [heads * E, ...] from (i, i + E/2) pairs to neighbours.

    A score is a sum over the pairs, so that one order for queries and keys is as good as another.
    """
    halves = weight.reshape(-1, 2, head_dim // 2, *weight.shape[1:])  # [heads, 2, E/2, ...]
    return halves.swapaxes(1, 2).reshape(weight.shape)


def _turns(config: ModelConfig) -> npt.NDArray[np.complex64]:
    """Return the rotation of each pair at each position as a complex number: [context, E/2]."""
    speeds = config.rope.speeds(config.head_dim)  # [E/2]
    angle = np.outer(np.arange(config.context), speeds)  # [context, E/2]
    turns: npt.NDArray[np.complex64] = np.exp(1j * angle).astype(np.complex64)
    return turns
