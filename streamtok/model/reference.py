"""What a Llama computes, written to be read: no cache, no batch, no trick. Start here.

`logits` takes the ids of a whole text and returns, for each position, one score per vocabulary
entry for what comes next. Everything in `streamtok.model.decoder` is the same computation laid out
for speed, and a test holds the two together.

Shape letters: T time (positions), D model width, H query heads, K key-value heads, E width of a
head, F hidden width of the MLP, V vocabulary.

Sources: Llama (arXiv:2302.13971), RMSNorm (arXiv:1910.07467), rotary position embedding
(arXiv:2104.09864), SwiGLU (arXiv:2002.05202), grouped-query attention (arXiv:2305.13245).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from streamtok.model.config import ModelConfig

Float = npt.NDArray[Any]  # float32 or float64


def logits(config: ModelConfig, weights: Mapping[str, Float], ids: Sequence[int]) -> Float:
    """Return the scores of every possible next token after each of `ids`: [T, V].

    `weights` are the checkpoint's tensors under their own names; the computation is done in their
    type, so that float64 weights give a float64 answer.
    """
    x = weights["model.embed_tokens.weight"][np.asarray(ids)]  # [T, D]
    for layer in range(config.layers):
        w = {
            name.removeprefix(f"model.layers.{layer}.").removesuffix(".weight"): tensor
            for name, tensor in weights.items()
            if name.startswith(f"model.layers.{layer}.")
        }
        x = x + attention(config, w, rms_norm(x, w["input_layernorm"], config.norm_eps))
        x = x + mlp(w, rms_norm(x, w["post_attention_layernorm"], config.norm_eps))
    x = rms_norm(x, weights["model.norm.weight"], config.norm_eps)  # [T, D]
    head = weights["model.embed_tokens.weight" if config.tied else "lm_head.weight"]  # [V, D]
    scores: Float = x @ head.T  # [T, V]
    return scores


def rms_norm(x: Float, weight: Float, eps: float) -> Float:
    """Scale each row of `x` [T, D] to a root mean square of one, then each column by `weight`."""
    scaled: Float = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)  # [T, D]
    return scaled * weight


def attention(config: ModelConfig, w: Mapping[str, Float], x: Float) -> Float:
    """Let each position gather from itself and those before it: [T, D] -> [T, D]."""
    time = len(x)
    q = (x @ w["self_attn.q_proj"].T).reshape(time, config.heads, config.head_dim)  # [T, H, E]
    k = (x @ w["self_attn.k_proj"].T).reshape(time, config.kv_heads, config.head_dim)  # [T, K, E]
    v = (x @ w["self_attn.v_proj"].T).reshape(time, config.kv_heads, config.head_dim)  # [T, K, E]
    q, k = rotate(q, config.rope_theta), rotate(k, config.rope_theta)
    gathered = np.empty_like(q)  # [T, H, E]
    for head in range(config.heads):
        shared = head // config.group  # several query heads share one key-value head
        scores = q[:, head] @ k[:, shared].T / np.sqrt(config.head_dim)  # [T, T]
        scores = np.where(np.tri(time, dtype=bool), scores, -np.inf)  # nobody sees the future
        gathered[:, head] = softmax(scores) @ v[:, shared]  # [T, E]
    return gathered.reshape(time, -1) @ w["self_attn.o_proj"].T  # [T, D]


def rotate(x: Float, theta: float) -> Float:
    """Turn the pair (i, i + E/2) of each head by an angle that grows with the position.

    `x` is [T, heads, E]. A pair's angle per position is theta^(-2i/E), so that the dot product of
    a query and a key depends on how far apart they are, not on where they stand.
    """
    time, _, width = x.shape
    half = width // 2
    angle = np.outer(np.arange(time), theta ** (-np.arange(half) / half))  # [T, E/2]
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]  # [T, 1, E/2]
    first, second = x[..., :half], x[..., half:]  # [T, heads, E/2]
    turned = (first * cos - second * sin, second * cos + first * sin)
    return np.concatenate(turned, axis=-1).astype(x.dtype)  # [T, heads, E]


def softmax(scores: Float) -> Float:
    """Turn each row of scores into shares that sum to one; shape as given."""
    exponent = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares: Float = exponent / exponent.sum(axis=-1, keepdims=True)
    return shares


def mlp(w: Mapping[str, Float], x: Float) -> Float:
    """Widen, gate and narrow each position on its own (SwiGLU): [T, D] -> [T, D]."""
    gate = x @ w["mlp.gate_proj"].T  # [T, F]
    gated = gate / (1 + np.exp(-gate)) * (x @ w["mlp.up_proj"].T)  # [T, F]
    narrowed: Float = gated @ w["mlp.down_proj"].T  # [T, D]
    return narrowed
