"""What a Llama computes, written to be read: no cache, no batch, no trick. Start here.

`logits` takes the ids of a whole text and returns, for each position, one score per vocabulary
entry for what comes next. Everything in `streamtok.model.decoder` is the same computation laid out
for speed, and a test holds the two together.

Shape letters: T time (positions), D model width, H query heads, K key-value heads, E width of a
head, F hidden width of the MLP, V vocabulary.

Its relatives differ by a line each: Mistral looks back over a sliding window (arXiv:2310.06825),
Qwen 2 adds biases (arXiv:2407.10671), Qwen 3 normalises queries and keys (arXiv:2505.09388),
SmolLM3 does not rotate them in some layers (arXiv:2501.18795), Gemma has another activation and
two more constants (arXiv:2403.08295).

Sources: Llama (arXiv:2302.13971), RMSNorm (arXiv:1910.07467), rotary position embedding
(arXiv:2104.09864), SwiGLU (arXiv:2002.05202), grouped-query attention (arXiv:2305.13245).

Read next: `streamtok.model.activation`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from streamtok.model.config import ModelConfig
from streamtok.model.rope import Rope

Float = npt.NDArray[Any]  # float32 or float64


def logits(config: ModelConfig, weights: Mapping[str, Float], ids: Sequence[int]) -> Float:
    """Return the scores of every possible next token after each of `ids`: [T, V].

    `weights` are the checkpoint's tensors under their own names; the computation is done in their
    type, so that float64 weights give a float64 answer.
    """
    head = weights["model.embed_tokens.weight" if config.tied else "lm_head.weight"]  # [V, D]
    scores: Float = states(config, weights, ids) @ head.T  # [T, V]
    return scores


def states(config: ModelConfig, weights: Mapping[str, Float], ids: Sequence[int]) -> Float:
    """Return the final state after each of `ids`, of which scores are made: [T, D]."""
    weights = {
        name: tensor + config.norm_offset if "norm" in name else tensor
        for name, tensor in weights.items()
    }
    x = weights["model.embed_tokens.weight"][np.asarray(ids)] * config.embed_scale  # [T, D]
    for layer in range(config.layers):
        w = {
            name.removeprefix(f"model.layers.{layer}.").removesuffix(".weight"): tensor
            for name, tensor in weights.items()
            if name.startswith(f"model.layers.{layer}.")
        }
        x = x + attention(config, w, layer, rms_norm(x, w["input_layernorm"], config.norm_eps))
        x = x + mlp(config, w, rms_norm(x, w["post_attention_layernorm"], config.norm_eps))
    return rms_norm(x, weights["model.norm.weight"], config.norm_eps)  # [T, D]


def rms_norm(x: Float, weight: Float, eps: float) -> Float:
    """Scale each row of `x` [..., D] to a root mean square of one, then each column by `weight`."""
    scaled: Float = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)  # [..., D]
    return scaled * weight


def attention(config: ModelConfig, w: Mapping[str, Float], layer: int, x: Float) -> Float:
    """Let each position gather from itself and those before it: [T, D] -> [T, D]."""
    time = len(x)
    q = project(w, "self_attn.q_proj", x).reshape(time, config.heads, config.head_dim)  # [T, H, E]
    k = project(w, "self_attn.k_proj", x).reshape(time, config.kv_heads, -1)  # [T, K, E]
    v = project(w, "self_attn.v_proj", x).reshape(time, config.kv_heads, -1)  # [T, K, E]
    if config.qk_norm:
        q = rms_norm(q, w["self_attn.q_norm"], config.norm_eps)  # [T, H, E]
        k = rms_norm(k, w["self_attn.k_norm"], config.norm_eps)  # [T, K, E]
    if layer not in config.no_rope_layers:
        q, k = (rotate(heads, config.rope, config.rotary_dim) for heads in (q, k))
    seen = np.tri(time, dtype=bool)  # [T, T]: nobody sees the future
    if window := config.window_of(layer):
        seen &= ~np.tri(time, k=-window, dtype=bool)  # nor what is too far back
    gathered = np.empty_like(q)  # [T, H, E]
    for head in range(config.heads):
        shared = head // config.group  # several query heads share one key-value head
        scores = q[:, head] @ k[:, shared].T / np.sqrt(config.head_dim)  # [T, T]
        gathered[:, head] = softmax(np.where(seen, scores, -np.inf)) @ v[:, shared]  # [T, E]
    return project(w, "self_attn.o_proj", gathered.reshape(time, -1))  # [T, D]


def project(w: Mapping[str, Float], name: str, x: Float) -> Float:
    """Multiply `x` [T, in] with the weight `name` [out, in], add its bias if any: [T, out]."""
    product: Float = x @ w[name].T  # [T, out]
    bias = f"{name}.bias"  # [out]
    return product + w[bias] if bias in w else product


def rotate(x: Float, rope: Rope, rotary_dim: int) -> Float:
    """Rotate the pair (i, i + R/2) of each head by an angle that grows with the position.

    `x` is [T, heads, E], of which the first R numbers of a head are pairs. A pair's angle per
    position is in `streamtok.model.rope`: the dot product of a query and a key then depends on how
    far apart they are, not on where they stand.
    """
    half = rotary_dim // 2
    angle = np.outer(np.arange(len(x)), rope.inverse_frequencies(rotary_dim))  # [T, R/2]
    cos, sin = (rope.attention_factor * f(angle)[:, None] for f in (np.cos, np.sin))  # [T, 1, R/2]
    first, second, rest = np.split(x, [half, rotary_dim], axis=-1)  # [T, heads, R/2] twice, ...
    rotated = (first * cos - second * sin, second * cos + first * sin, rest)
    return np.concatenate(rotated, axis=-1).astype(x.dtype)  # [T, heads, E]


def softmax(scores: Float) -> Float:
    """Turn each row of scores into shares that sum to one; shape as given."""
    exponent = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares: Float = exponent / exponent.sum(axis=-1, keepdims=True)
    return shares


def mlp(config: ModelConfig, w: Mapping[str, Float], x: Float) -> Float:
    """Widen, gate and narrow each position on its own (SwiGLU): [T, D] -> [T, D]."""
    activate = ACTIVATIONS[config.activation]
    gated = activate(project(w, "mlp.gate_proj", x)) * project(w, "mlp.up_proj", x)  # [T, F]
    return project(w, "mlp.down_proj", gated)  # [T, D]


def silu(x: Float) -> Float:
    """Pass what is large, stop what is strongly negative; shape as given."""
    passed: Float = x / (1 + np.exp(-x))
    return passed


def gelu_tanh(x: Float) -> Float:
    """Do nearly the same by the normal distribution's shape (arXiv:1606.08415); shape as given."""
    passed: Float = x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return passed


def gelu(x: Float) -> Float:
    """Multiply each number by the chance that a normal one is smaller; shape as given."""
    chance: Float = (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2
    return (x * chance).astype(x.dtype)


def relu(x: Float) -> Float:
    """Pass what is positive; shape as given."""
    return np.maximum(x, 0)


ACTIVATIONS: Mapping[str, Callable[[Float], Float]] = {
    "silu": silu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "relu": relu,
}
