"""Gives the first two layers induction heads, so that copying need not be discovered.

An induction head (Olsson et al., 2022) finds where the current token stood before and copies what
came after it: one layer notes down, at each token, which token came before; the next looks there.
Gradient descent finds this circuit only after many more tokens than a processor can train on in an
evening; until then a story forgets its own names and what it was asked for. So some heads start as
the circuit (in the spirit of mimetic initialisation, Trockman and Kolter, 2023) and are held there
while the rest settles. Then one of them and heads of further layers learn where to look, and only
what they do there, copying, is held. `llama_torch.py` has the decoder, `trainer.py` holds.
"""

from __future__ import annotations

import torch
from llama_torch import EMBEDDING_STD, Attention, LlamaConfig, LlamaForCausalLM, rotary_frequencies
from torch import Tensor

HEADS = 2  # key-value heads of a layer that take part, each with its group of query heads
CONSTANT = 10.0  # times the embedding's deviation: the first dimension; it shifts all logits alike
NEAREST_PAIRS = 5  # rotary pairs that turn fast enough to tell neighbours apart
SLOWEST_PAIRS = 9  # rotary pairs that hardly turn over a story
POSITION_SCORE = 200.0  # of each nearest pair, at a distance of one, in a new model
MATCH_GAIN = 5.0
NOTE_GAIN = 0.8
COPY_GAINS = (0.4, 1.5)  # in the first phase and afterwards
LEARNING_HEADS = ((1, 1), (2, 0), (3, 0), (4, 0))  # layer and head: learn where to copy from


def orthonormal(rows: int, columns: int) -> Tensor:
    """Random orthonormal rows, `[rows, columns]`, that are zero in the first column."""
    basis, _ = torch.linalg.qr(torch.randn(columns - 1, rows))  # [columns - 1, rows]
    return torch.cat((torch.zeros(rows, 1), basis.T), dim=1)  # [rows, columns]


@torch.no_grad()
def start_with_induction(model: LlamaForCausalLM) -> None:
    """Overwrite heads of the first two layers and the embedding's first dimension."""
    config = model.config
    model.model.embed_tokens.weight[:, 0] = CONSTANT * EMBEDDING_STD
    first, second = attention(model, 0), attention(model, 1)
    notes = orthonormal(HEADS * config.head_dim, config.hidden_size).chunk(HEADS)
    for head, note in enumerate(notes):
        code = orthonormal(config.head_dim, config.hidden_size)  # [head_dim, hidden]
        note_previous(first, config, head, code, note)
        match_note(second, config, head, code, note)
        copy_token(second, config, head, COPY_GAINS[0])


@torch.no_grad()
def start_copying(model: LlamaForCausalLM) -> None:
    """Let more heads copy what they look at, and louder; where that is, they learn."""
    for index, head in ((1, 0), *LEARNING_HEADS):
        copy_token(attention(model, index), model.config, head, COPY_GAINS[1])


def held_at_first(model: LlamaForCausalLM) -> list[Tensor]:
    """Views of what is held in the first phase: all that `start_with_induction` wrote."""
    parts = [model.model.embed_tokens.weight[:, 0]]
    for head in range(HEADS):
        parts += whole_head(attention(model, 0), head) + whole_head(attention(model, 1), head)
    return parts


def held_afterwards(model: LlamaForCausalLM) -> list[Tensor]:
    """Views of what is held in the second phase: one circuit, and what copying heads do."""
    parts = [model.model.embed_tokens.weight[:, 0], *whole_head(attention(model, 1), 0)]
    for head in range(HEADS):
        parts += whole_head(attention(model, 0), head)
    for index, head in LEARNING_HEADS:
        parts += transfer(attention(model, index), head)
    return parts


def attention(model: LlamaForCausalLM, index: int) -> Attention:
    """The attention of layer `index`."""
    layer: Attention = model.model.layers[index].self_attn
    return layer


def whole_head(layer: Attention, head: int) -> list[Tensor]:
    """Views of all weights of key-value head `head` and its query heads."""
    parts = list(layer.keys_of(head))
    for query, output in layer.queries_of(head):
        parts += [query, output]
    return parts


def transfer(layer: Attention, head: int) -> list[Tensor]:
    """Views of the weights that say what a head takes from where it looks, and what it writes."""
    _, value = layer.keys_of(head)
    return [value, *(output for _, output in layer.queries_of(head))]


def note_previous(
    layer: Attention, config: LlamaConfig, head: int, code: Tensor, note: Tensor
) -> None:
    """Let a head look one token back and write that token's code where `note` reads it.

    Query and key are constant but for their position; the query's phase is that of a token less.
    `code` and `note` are `[head_dim, hidden]`.
    """
    half = config.head_dim // 2
    constant = CONSTANT / (1 + CONSTANT**2 / config.hidden_size) ** 0.5
    size = (POSITION_SCORE * config.head_dim**0.5) ** 0.5 / constant
    near = slice(0, NEAREST_PAIRS)
    angle = rotary_frequencies(config)[near]  # [pairs]
    # The slowest pair takes off what nearly all positions score, as that grows with a key's size
    offset = ((1 + angle.cos()).sum().item() / 2) ** 0.5
    key, value = layer.keys_of(head)
    key.zero_()
    key[near, 0] = size
    key[half - 1, 0] = size * offset
    value.copy_(code)
    for query, output in layer.queries_of(head):
        query.zero_()
        query[:half][near, 0] = size * angle.cos()
        query[half:][near, 0] = -size * angle.sin()
        query[half - 1, 0] = -size * offset
        output.copy_(NOTE_GAIN * note.T)


def match_note(
    layer: Attention, config: LlamaConfig, head: int, code: Tensor, note: Tensor
) -> None:
    """Let a head look for a token whose note is the current token's code."""
    half = config.head_dim // 2
    slow = torch.arange(half - SLOWEST_PAIRS, half)  # [pairs]
    slow = torch.cat((slow, slow + half))  # [2 * pairs]
    key, _ = layer.keys_of(head)
    key.zero_()
    key[slow] = MATCH_GAIN * note[slow]
    for query, _ in layer.queries_of(head):
        query.zero_()
        query[slow] = MATCH_GAIN * code[slow]


def copy_token(layer: Attention, config: LlamaConfig, head: int, gain: float) -> None:
    """Let a head write what makes the token it looks at likely to come next."""
    token = orthonormal(config.head_dim, config.hidden_size)  # [head_dim, hidden]
    _, value = layer.keys_of(head)
    value.copy_(token)
    for _, output in layer.queries_of(head):
        output.copy_(gain * token.T)
