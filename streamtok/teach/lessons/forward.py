"""The forward pass: from token ids to scores, step by step in numpy.

Nothing here is taken from `streamtok.model.reference`, which checks the result. For the Llama line
as the shipped model is: RMSNorm, rotary positions, grouped queries, SwiGLU.
"""

import json
from collections.abc import Mapping
from math import exp
from typing import Any

import numpy as np
from msgspec import Struct, field

from streamtok.model import reference
from streamtok.model.config import ModelConfig
from streamtok.model.load import read_weights
from streamtok.teach.lessons.lab import Lab, post
from streamtok.teach.lessons.lesson import Blocks, Lesson, Mistake, Question, Table, Wire

PROMPT = "The fox found a lantern and the"
SHOWN, LONGEST = 5, 40  # tokens
BAR = 24
Float = reference.Float


class Pass(Struct):
    """One computation: `steps` names what each part did, `shares` are attention's, by layer."""

    logits: Float
    steps: list[tuple[str, str, str]] = field(default_factory=list)
    shares: list[Float] = field(default_factory=list)  # [H, T, T] of each layer


def forward(config: ModelConfig, weights: Mapping[str, Float], ids: list[int]) -> Pass:
    """Compute the scores of what may follow `ids` [T]: [T, V]."""
    found = Pass(np.empty(0))
    table = weights["model.embed_tokens.weight"]  # [V, D]
    x = table[ids]  # [T, D]: a row of the table for each token
    _note(found, "embedding: a row for each id", x)
    for layer in range(config.layers):
        w = {
            name.removeprefix(f"model.layers.{layer}.").removesuffix(".weight"): tensor
            for name, tensor in weights.items()
            if name.startswith(f"model.layers.{layer}.")
        }
        gathered, shares = _attend(config, w, _norm(config, x, w["input_layernorm"]))
        x = x + gathered
        found.shares.append(shares)
        _note(found, f"layer {layer}: + attention", x)
        h = _norm(config, x, w["post_attention_layernorm"])
        gate = h @ w["mlp.gate_proj"].T  # [T, F]
        opened = gate / (1 + np.exp(-gate)) * (h @ w["mlp.up_proj"].T)
        x = x + opened @ w["mlp.down_proj"].T
        _note(found, f"layer {layer}: + MLP, {opened.shape[1]} wide", x)
    x = _norm(config, x, weights["model.norm.weight"])
    head = table if config.tied else weights["lm_head.weight"]  # [V, D]
    found.logits = x @ head.T
    _note(found, "logits: a score for each token", found.logits)
    return found


def _norm(config: ModelConfig, x: Float, weight: Float) -> Float:
    """Give each row the same root mean square: [T, D]."""
    size = np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + config.norm_eps)
    scaled: Float = x / size * weight
    return scaled


def _attend(config: ModelConfig, w: Mapping[str, Float], x: Float) -> tuple[Float, Float]:
    """Let each position look back: what it gathers [T, D], and by which shares [H, T, T]."""
    time = len(x)

    def heads(name: str, count: int) -> Float:
        """Return [count, T, E]."""
        split: Float = (x @ w[f"self_attn.{name}"].T).reshape(time, count, config.head_dim)
        return split.swapaxes(0, 1)

    q = _rotate(config, heads("q_proj", config.heads))
    k = _rotate(config, heads("k_proj", config.kv_heads)).repeat(config.group, axis=0)
    v = heads("v_proj", config.kv_heads).repeat(config.group, axis=0)
    scores = q @ k.swapaxes(1, 2) / np.sqrt(np.float32(config.head_dim))  # [H, T, T]
    scores = np.where(np.tri(time, dtype=bool), scores, -np.inf)  # nobody sees the future
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    gathered = (shares @ v).swapaxes(0, 1).reshape(time, -1)  # [T, H * E]
    return gathered @ w["self_attn.o_proj"].T, shares


def _rotate(config: ModelConfig, x: Float) -> Float:
    """Turn each pair of numbers by an angle that grows with the position: [heads, T, E]."""
    half = config.head_dim // 2
    angle = np.outer(np.arange(x.shape[1]), config.rope.inverse_frequencies(config.head_dim))
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angle)
    return np.concatenate((turned.real, turned.imag), axis=-1).astype(x.dtype)


def _note(found: Pass, name: str, x: Float) -> None:
    found.steps.append((name, " x ".join(map(str, x.shape)), f"{np.sqrt(np.mean(x * x)):.2f}"))


def compute(lab: Lab, text: str) -> tuple[Pass, list[str], float]:
    """Return the computation, its tokens, and the largest difference from the reference's.

    Raises:
        Mistake: the text has too many tokens.
    """
    tokens = lab.ask("/tokenize", {"content": text, "add_special": True, "with_pieces": True})
    ids = [token["id"] for token in tokens["tokens"]]
    if not 1 <= len(ids) <= LONGEST:
        raise Mistake(f"expected 1 to {LONGEST} tokens, found {len(ids)}")
    config, weights = read_weights(lab.config.model_folder)
    found = forward(config, weights, ids)
    right = reference.logits(config, weights, ids)
    names = [str(token["piece"]) for token in tokens["tokens"]]
    return found, names, float(np.abs(found.logits - right).max())


def likeliest(lab: Lab, scores: Float) -> list[tuple[str, float, float]]:
    """Return the tokens with the highest scores [V], their scores, and their shares."""
    shares = reference.softmax(scores.astype(np.float64))
    best = np.argsort(-scores)[:SHOWN]
    return [
        (lab.ask("/detokenize", {"tokens": [int(token)]})["content"], scores[token], shares[token])
        for token in best
    ]


def show(lab: Lab) -> Blocks:
    """Compute one token as the server does, and compare."""
    found, names, difference = compute(lab, PROMPT)
    yield (
        "What happens between token ids and scores? Here it is in sixty lines of numpy "
        "(`streamtok/teach/lessons/forward.py`), on the weights of the server. Each position is a "
        "row of numbers. Parts add to it: attention what other positions know, the MLP what "
        f"follows from that. For `{PROMPT}`, {len(names)} tokens:"
    )
    yield Table(("step", "shape", "root mean square"), tuple(found.steps))
    yield (
        "Attention compares a position's query with the keys before it; softmax makes shares of "
        "that. Where the last position looks, in the layer and head that look most at one place:"
    )
    yield _attention(found, names)
    yield (
        f"The same by `streamtok.model.reference`: the largest difference of {found.logits.size:,} "
        f"scores is {difference:.1e}. The last row of scores says what may follow:"
    )
    best = likeliest(lab, found.logits[-1])
    yield _scores(best)
    yield "And this is what the server says, at `logprobs`:"
    asked = {"prompt": PROMPT, "max_tokens": 1, "temperature": 0, "logprobs": SHOWN}
    exchange = lab.exchange(post("/v1/completions", asked))
    yield Wire(exchange.raw, fields=frozenset(), rows=8)
    top = json.loads(exchange.answer.body)["choices"][0]["logprobs"]["top_logprobs"][0]
    served = exp(max(top.values()))
    yield (f"It gives its likeliest token the share {served:.4f}; numpy gives {best[0][2]:.4f}.")
    rows = found.logits.shape[0]
    yield Question(
        f"There are {rows} rows of scores. How many of them are needed to choose the next token?",
        "1",
        "Only the last one: what follows the last token. The others say what might have followed "
        "each token of the prompt, which is known. So a server multiplies with the vocabulary only "
        "where a token is chosen; training uses all rows at once.",
        "Which position is the next token behind?",
    )


def change(lab: Lab, given: str) -> Blocks:
    """Compute what may follow the learner's text."""
    found, names, difference = compute(lab, given)
    yield _attention(found, names)
    yield _scores(likeliest(lab, found.logits[-1]))
    asked = {"prompt": given, "max_tokens": 1, "temperature": 0, "logprobs": SHOWN}
    yield Wire(lab.exchange(post("/v1/completions", asked)).raw, fields=frozenset(), rows=8)
    yield f"The largest difference from the reference: {difference:.1e}."


def _attention(found: Pass, names: list[str]) -> Table:
    """Return where the last position looks, in the head whose largest share is the largest."""
    last = np.stack([shares[:, -1] for shares in found.shares])  # [L, H, T]
    last[:, :, 0] = 0  # many heads rest on the first token; that says little
    layer, head, _ = np.unravel_index(int(last.argmax()), last.shape)
    shares = found.shares[int(layer)][int(head), -1]  # [T]
    rows = [
        (name, f"{share:.2f}", "#" * round(BAR * float(share)))
        for name, share in zip(map(repr, names), shares, strict=True)
    ]
    return Table((f"layer {layer}, head {head}", "share", ""), tuple(rows))


def _scores(best: list[tuple[str, float, float]]) -> Table:
    rows: list[tuple[Any, ...]] = [
        (repr(text), f"{score:.2f}", f"{share:.4f}", "#" * round(BAR * share))
        for text, score, share in best
    ]
    return Table(("token", "score", "share", ""), tuple(rows))


LESSON = Lesson(
    name="forward",
    title="The forward pass: from ids to scores",
    module="streamtok/model/reference.py",
    show=show,
    invitation=f"Type the beginning of a text, up to {LONGEST} tokens, and see what may follow.",
    default="Once upon a time there was a",
    change=change,
)
