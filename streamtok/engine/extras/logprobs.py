"""Log-probabilities as they are reported: the model's own, before anything that shapes the draw.

The same for a token that was drawn and for one of a prompt. Read next: `streamtok.engine.sampler`.
"""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from streamtok.engine.plan import PromptScore, Work
from streamtok.engine.sampler import NOT_FINITE
from streamtok.errors import EngineFailed, RequestError
from streamtok.messages import TokenLogprobs
from streamtok.model.weights import Array


def logprobs(logits: Array, tokens: Sequence[int], count: int) -> list[TokenLogprobs]:
    """Return for each row of `logits` [rows, V] the log-probability of its token in `tokens`, and
    of the `count` likeliest; among equals those with the lower ids.
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)  # [rows, V]
    sums = np.add.reduce(np.exp(shifted), axis=-1, dtype=np.float64)  # [rows]
    count = min(count, logits.shape[1])
    return [
        TokenLogprobs(
            float(row[token] - total),
            tuple((int(i), float(row[i] - total)) for i in _likeliest(row, count)),
        )
        for row, token, total in zip(shifted, tokens, np.log(sums), strict=True)
    ]


def score(logits: Array, works: Sequence[Work]) -> list[PromptScore | RequestError]:
    """Score the prompts of the scored ones of `works`, whose rows of `logits` [., V] follow."""
    ends = accumulate(work.rows for work in works)
    return [
        _score(logits[end - work.rows : end], work)
        for work, end in zip(works, ends, strict=True)
        if work.scored
    ]


def _score(logits: Array, work: Work) -> PromptScore | RequestError:
    """Return what the rows of `work` [rows, V] say of the prompt's tokens that follow its ids."""
    tokens, count = work.scored_ids, work.sequence.request.sampling.top_logprobs
    assert count is not None
    if not np.isfinite(logits).all():
        return EngineFailed(NOT_FINITE)
    return tuple(logprobs(logits[: len(tokens)], tokens, count))


def _likeliest(row: Array, count: int) -> Sequence[int]:
    """Return the ids of the `count` greatest values of `row` [V], greatest first."""
    if count == 0:
        return ()
    if count == 1:
        return (int(np.argmax(row)),)
    least = np.partition(row, -count)[-count]
    candidates = np.flatnonzero(row >= least)  # [count or more]
    order = np.argsort(-row[candidates], kind="stable")[:count]  # [count]
    likeliest: list[int] = candidates[order].tolist()
    return likeliest
