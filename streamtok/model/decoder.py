"""The decoder as it serves: many sequences in one pass, each position computed once.

The same computation as `streamtok.model.reference`, laid out for speed: query, key and value
weights in one matrix, gate and up in another, each norm's weight and the 1/sqrt(E) of attention
folded into the matrix that follows, rotary pairs side by side so that turning them is one complex
product. Every row of the result is bitwise independent of what else is in the pass.

Does not know requests, sampling or text. Read next: `streamtok.engine.runner`, which feeds it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streamtok.model.attention import KVCache, Positions, Rows, attend
from streamtok.model.config import ModelConfig
from streamtok.model.families import read_config, tensor_shapes
from streamtok.model.gpt_families import GptConfig
from streamtok.model.linear import GRANULE, PANEL, Linear, is_exact, padded
from streamtok.model.weights import Array, Checkpoint


@dataclass(frozen=True, slots=True)
class Segment:
    """Part of one pass: `ids` [N, R] at `positions` [N, R] of the neighbouring slots `slots`.

    Decoding is N sequences of one position each, prefill one sequence of R positions. Logits are
    computed after the last `sampled` positions of each sequence.
    """

    slots: slice
    ids: npt.NDArray[np.intp]
    positions: Positions
    sampled: int


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


class Decoder:
    """A loaded model. Holds no state of any sequence: that is in the KVCache given to each pass."""

    def __init__(self, config: ModelConfig, checkpoint: Checkpoint) -> None:
        """Lay out the tensors of `checkpoint`, taking each of them."""
        self.config = config
        self._embedding = checkpoint.take("model.embed_tokens.weight")  # [V, D]
        self._layers = [_layer(config, checkpoint, index) for index in range(config.layers)]
        norm = checkpoint.take("model.norm.weight") + np.float32(config.norm_offset)  # [D]
        head = self._embedding if config.tied else checkpoint.take("lm_head.weight")  # [V, D]
        self._head = Linear(head * norm)
        self._embedding *= np.float32(config.embed_scale)
        self._turns = _turns(config)
        self.digest = checkpoint.digest

    def forward(self, cache: KVCache, segments: Sequence[Segment]) -> Array:
        """Compute the positions of `segments`, store their keys and values, return logits.

        The result is [sampled, V], in the order of the segments, of their slots and positions.
        """
        config = self.config
        ids = np.concatenate([segment.ids.ravel() for segment in segments])  # [rows]
        count = padded(len(ids), GRANULE)
        x = np.zeros((count, config.dim), np.float32)  # [rows, D], padded with zeros
        np.take(self._embedding, ids, axis=0, out=x[: len(ids)])
        rows = [Rows(config, segment.slots, segment.positions) for segment in segments]
        turns = np.zeros((count, 1, config.head_dim // 2), np.complex64)  # [rows, 1, E/2]
        np.take(
            self._turns,
            np.concatenate([segment.positions.ravel() for segment in segments]),
            axis=0,
            out=turns[: len(ids), 0],
        )
        # exp(-gate) of a strongly negative gate is infinite and gate / infinity rightly zero
        with np.errstate(over="ignore"):
            for index, layer in enumerate(self._layers):
                x += self._attention(layer, index, cache, rows, turns, x)
                x += self._mlp(layer, x)
        return self._logits(x, segments)

    def _attention(
        self,
        layer: Layer,
        index: int,
        cache: KVCache,
        rows: Sequence[Rows],
        turns: npt.NDArray[np.complex64],
        x: Array,
    ) -> Array:
        """Return attention's share of the residual stream: [rows, D] -> [rows, D]."""
        config, count = self.config, len(x)
        width, turned = config.head_dim, config.heads + config.kv_heads
        qkv = layer.qkv(_norm(x, config.norm_eps), np.empty((count, layer.qkv.width), np.float32))
        heads = qkv[:, : (turned + config.kv_heads) * width]
        if layer.qkv_bias is not None:
            heads += layer.qkv_bias
        heads = heads.reshape(count, turned + config.kv_heads, width)  # [rows, H + 2K, E]
        if layer.qk_norm is not None:
            qk = heads[:, :turned]  # [rows, H + K, E]
            np.multiply(_norm(qk, config.norm_eps), layer.qk_norm, out=qk)
        if layer.turned:
            pairs = heads[:, :turned].view(np.complex64)  # [rows, H + K, E/2]
            np.multiply(pairs, turns, out=pairs)
        gathered = gather(config, cache, index, rows, heads)  # [rows, H * E]
        out = layer.out(gathered, np.empty((count, layer.out.width), np.float32))
        return out[:, : config.dim]

    def _mlp(self, layer: Layer, x: Array) -> Array:
        """Return the MLP's share of the residual stream: [rows, D] -> [rows, D]."""
        config, count, hidden = self.config, len(x), self.config.hidden
        normed = _norm(x, config.norm_eps)
        both = layer.gate_up(normed, np.empty((count, layer.gate_up.width), np.float32))
        gate, up = both[:, :hidden], both[:, hidden : 2 * hidden]  # [rows, F] each
        gated = exponent(config.activation, gate)  # [rows, F]
        np.exp(gated, out=gated)
        gated += 1.0
        np.divide(gate, gated, out=gated)
        gated *= up
        out = layer.down(gated, np.empty((count, layer.down.width), np.float32))
        return out[:, : config.dim]

    def _logits(self, x: Array, segments: Sequence[Segment]) -> Array:
        """Return the scores after the sampled positions of every sequence: [sampled, V]."""
        rows, count = sampled_rows(x, segments)  # [sampled padded, D]
        out = np.empty((len(rows), self._head.width), np.float32)  # [sampled padded, V padded]
        return self._head(_norm(rows, self.config.norm_eps), out)[:count, : self.config.vocab]

    def is_exact(self) -> bool:
        """Try whether this machine computes a row alike in any company, for this model's shapes."""
        config = self.config
        attention = config.heads * config.head_dim
        return all(is_exact(inner, PANEL) for inner in {config.dim, config.hidden, attention})


def load(folder: Path) -> Decoder:
    """Load the model in a Hugging Face folder.

    Raises:
        ModelError: anything in the folder is missing, damaged or not supported.
    """
    from streamtok.model.gpt import GptDecoder  # which is built on what stands here

    config = read_config(folder)
    checkpoint = Checkpoint(folder, tensor_shapes(config))
    if isinstance(config, GptConfig):
        return GptDecoder(config, checkpoint)
    return Decoder(config, checkpoint)


def gather(
    config: ModelConfig, cache: KVCache, layer: int, rows: Sequence[Rows], heads: Array
) -> Array:
    """Store the keys and values in `heads` [rows, H + 2K, E], and attend: [rows, H * E]."""
    width, turned = config.head_dim, config.heads + config.kv_heads
    gathered = np.zeros((len(heads), config.heads * width), np.float32)  # [rows, H * E]
    start = 0
    for part in rows:
        stop = start + part.count * part.length
        mine = heads[start:stop].reshape(part.count, part.length, -1, width)  # [N, R, ., E]
        keys, values = mine[:, :, config.heads : turned], mine[:, :, turned:]  # [N, R, K, E]
        cache.write(layer, part, keys, values)
        found = attend(config, cache, layer, part, mine[:, :, : config.heads])
        gathered[start:stop] = found.reshape(stop - start, -1)
        start = stop
    return gathered


def sampled_rows(x: Array, segments: Sequence[Segment]) -> tuple[Array, int]:
    """Return the sampled positions of every sequence in `x` [rows, D], and how many they are.

    The result is [sampled padded, D]: padded to whole tiles.
    """
    sampled: list[int] = []
    start = 0
    for segment in segments:
        count, length = segment.ids.shape
        for _ in range(count):
            start += length
            sampled.extend(range(start - segment.sampled, start))
    rows = np.zeros((padded(len(sampled), GRANULE), x.shape[1]), np.float32)  # [sampled padded, D]
    if sampled:
        rows[: len(sampled)] = x[sampled]
    return rows, len(sampled)


def _norm(x: Array, eps: float) -> Array:
    """Scale each row of `x` [..., D] to a root mean square of one, without a weight."""
    mean = np.add.reduce(x * x, axis=-1, keepdims=True)  # [..., 1]
    mean /= x.shape[-1]
    mean += eps
    return np.divide(x, np.sqrt(mean))


def exponent(activation: str, gate: Array) -> Array:
    """Return the `e` for which the activation of a gate g is g / (1 + exp(e)), shape as given.

    For silu that is -g; 1 + tanh(z) is 2 / (1 + exp(-2z)), which gives gelu_tanh the same form.
    """
    if activation == "silu":
        return np.negative(gate)
    exponent = gate * gate
    exponent *= np.float32(-2 * np.sqrt(2 / np.pi) * 0.044715)
    exponent -= np.float32(2 * np.sqrt(2 / np.pi))
    exponent *= gate
    return exponent


def _layer(config: ModelConfig, checkpoint: Checkpoint, index: int) -> Layer:
    def take(name: str) -> Array:
        return checkpoint.take(f"model.layers.{index}.{name}")

    def take_qkv(kind: str) -> Array:
        q, k = (_side_by_side(take(f"self_attn.{n}_proj.{kind}"), config.head_dim) for n in "qk")
        # a norm of the queries would undo a scale in their weight, and bears it itself
        scaled = q if config.qk_norm else q / scale
        return np.concatenate([scaled, k, take(f"self_attn.v_proj.{kind}")])

    scale = np.sqrt(config.head_dim, dtype=np.float32)
    offset = np.float32(config.norm_offset)
    norm = take("input_layernorm.weight") + offset  # [D]
    qkv = Linear(take_qkv("weight") * norm)
    bias = take_qkv("bias") if config.qkv_bias else None  # [(H + 2K) * E]
    qk_norm = None
    if config.qk_norm:
        q, k = (_side_by_side(take(f"self_attn.{n}_norm.weight"), config.head_dim) for n in "qk")
        # [H + K, E]
        qk_norm = np.stack([q / scale] * config.heads + [k] * config.kv_heads)
    out = Linear(take("self_attn.o_proj.weight"))
    norm = take("post_attention_layernorm.weight") + offset  # [D]
    gate_up = np.concatenate([take("mlp.gate_proj.weight"), take("mlp.up_proj.weight")])
    down = Linear(take("mlp.down_proj.weight"))
    turned = index not in config.no_rope_layers
    return Layer(qkv, bias, qk_norm, turned, out, Linear(gate_up * norm), down)


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
