"""What a GPT-2 or a GPT-NeoX computes, in readable form; `streamtok.model.gpt.decoder` must agree.

Read `streamtok.model.reference` first: the same in Llama's way, with the shape letters. Sources:
GPT-2 (Radford et al. 2019, "Language models are unsupervised multitask learners"), GPT-NeoX
(arXiv:2204.06745), layer norm (arXiv:1607.06450), GELU (arXiv:1606.08415).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from streamtok.model.gpt.families import GptConfig
from streamtok.model.reference import ACTIVATIONS, Float, rotate, softmax


def logits(config: GptConfig, weights: Mapping[str, Float], ids: Sequence[int]) -> Float:
    """Return the scores of every possible next token after each of `ids`: [T, V].

    `weights` are the checkpoint's tensors under their own names; the computation is done in their
    type, so that float64 weights give a float64 answer.
    """
    names = config.layout
    head = weights[names.embedding if config.tied else names.head]  # [V, D]
    scores: Float = states(config, weights, ids) @ head.T  # [T, V]
    return scores


def states(config: GptConfig, weights: Mapping[str, Float], ids: Sequence[int]) -> Float:
    """Return the final state after each of `ids`, of which scores are made: [T, D]."""
    names = config.layout
    x = weights[names.embedding][np.asarray(ids)]  # [T, D]
    if names.positions:
        x = x + weights[names.positions][: len(ids)]
    for layer in range(config.layers):
        prefix = names.layer.format(layer)
        w = {
            name.removeprefix(prefix): tensor
            for name, tensor in weights.items()
            if name.startswith(prefix)
        }
        normed = layer_norm(w, names.attention_norm, x, config.norm_eps)  # [T, D]
        gathered = attention(config, w, normed, config.score_divisor(layer))
        seen = x if config.parallel else x + gathered  # [T, D]
        moved = mlp(config, w, layer_norm(w, names.mlp_norm, seen, config.norm_eps))
        x = x + gathered + moved
    return layer_norm(weights, names.norm, x, config.norm_eps)  # [T, D]


def layer_norm(w: Mapping[str, Float], name: str, x: Float, eps: float) -> Float:
    """Give each row of `x` [T, D] mean 0 and variance 1, then each column its scale and shift."""
    centred = x - x.mean(axis=-1, keepdims=True)  # [T, D]
    scaled: Float = centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def attention(config: GptConfig, w: Mapping[str, Float], x: Float, divisor: float) -> Float:
    """Let each position gather from itself and those before it: [T, D] -> [T, D]."""
    time, names = len(x), config.layout
    qkv = project(config, w, names.qkv, x)  # [T, 3D]
    if names.by_head:
        q, k, v = qkv.reshape(time, config.heads, 3, -1).swapaxes(1, 2).swapaxes(0, 1)
    else:
        q, k, v = qkv.reshape(time, 3, config.heads, -1).swapaxes(0, 1)  # [T, H, E] each
    q, k = rotate_part(config, q), rotate_part(config, k)
    seen = np.tri(time, dtype=bool)  # [T, T]: nobody sees the future
    gathered = np.empty_like(q)  # [T, H, E]
    for head in range(config.heads):
        scores = q[:, head] @ k[:, head].T / divisor  # [T, T]
        gathered[:, head] = softmax(np.where(seen, scores, -np.inf)) @ v[:, head]  # [T, E]
    return project(config, w, names.out, gathered.reshape(time, -1))


def rotate_part(config: GptConfig, x: Float) -> Float:
    """Rotate the first part of each head by its position, and leave the rest: [T, H, E]."""
    return rotate(x, config.rope, config.rotary_dim) if config.rotary_dim else x


def project(config: GptConfig, w: Mapping[str, Float], name: str, x: Float) -> Float:
    """Multiply `x` [T, in] with the weight `name` and add its bias: [T, out]."""
    weight = w[f"{name}.weight"]  # [out, in], or transposed
    product: Float = x @ (weight if config.layout.transposed else weight.T)  # [T, out]
    bias = f"{name}.bias"  # [out]
    return product + w[bias] if bias in w else product


def mlp(config: GptConfig, w: Mapping[str, Float], x: Float) -> Float:
    """Widen, bend and narrow each position on its own: [T, D] -> [T, D]."""
    activate = ACTIVATIONS[config.activation]
    return project(config, w, config.layout.down, activate(project(config, w, config.layout.up, x)))
