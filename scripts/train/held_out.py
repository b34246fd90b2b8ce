"""Held-out loss in bits per byte, source by source.

Documents are scored one by one from their first token, so the figure does not depend on how they
are packed; bits per byte do not depend on the vocabulary either, so they compare with any
compressor. Training does not happen here: see `train.py`.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict

import torch
from chat_tokenizer import contents, encode_documents
from mixture import Document
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

IGNORED = -100
TOKENS_PER_PASS = 2048


def documents_by_source(documents: list[Document]) -> dict[str, list[Document]]:
    """The held-out documents of every source, by the name of the source."""
    by_source: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        if document.held_out:
            by_source[document.source].append(document)
    return dict(sorted(by_source.items()))


def sample(documents: list[Document], count: int, seed: int) -> list[Document]:
    """At most `count` of the documents, the same for the same seed."""
    return random.Random(seed).sample(documents, min(count, len(documents)))


def byte_count(documents: list[Document]) -> int:
    """UTF-8 bytes of the texts in the documents, the marks between messages left out."""
    return sum(len(text.encode()) for document in documents for text in contents(document))


def windows(sequences: list[list[int]], length: int) -> list[list[int]]:
    """Cut sequences into windows of `length` tokens to read and one more to predict."""
    return [
        sequence[start : start + length + 1]
        for sequence in sequences
        for start in range(0, len(sequence) - 1, length)
    ]


def pad(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Inputs and targets, each `[batch, time]`; targets past a row's end are ignored."""
    time = max(map(len, rows)) - 1
    inputs = torch.zeros(len(rows), time, dtype=torch.long)  # [batch, time]
    targets = torch.full((len(rows), time), IGNORED)  # [batch, time]
    for i, row in enumerate(rows):
        inputs[i, : len(row) - 1] = torch.tensor(row[:-1])
        targets[i, : len(row) - 1] = torch.tensor(row[1:])
    return inputs, targets


@torch.no_grad()
def total_bits(model: nn.Module, sequences: list[list[int]], max_length: int) -> float:
    """Bits that the model needs for all tokens but the first of every sequence."""
    device = next(model.parameters()).device
    rows = sorted(windows(sequences, max_length), key=len)
    nats = 0.0
    while rows:
        count = max(1, TOKENS_PER_PASS // len(rows[-1]))
        batch, rows = rows[-count:], rows[:-count]
        inputs, targets = (x.to(device) for x in pad(batch))  # [batch, time]
        logits = model(inputs).float()  # [batch, time, vocab]
        nats += functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
        ).item()
    return nats / math.log(2)


def bits_per_byte(
    model: nn.Module, tokenizer: Tokenizer, documents: list[Document], max_length: int
) -> float:
    """Held-out loss over the documents; the marks of the chat format cost bits but add no bytes."""
    bits = total_bits(model, encode_documents(tokenizer, documents), max_length)
    return bits / byte_count(documents)
