"""What a text is as a point in space: the mean of its tokens' final states, scaled to length one.

Models that are made to continue texts are no good at this; it is what they have. The sum is made
position by position, in double precision, so that it does not depend on how a prompt was cut into
steps. Read next: `streamtok.engine.runner`, which gives the states.
"""

from collections.abc import Sequence

import numpy as np

from streamtok.engine.plan import Work
from streamtok.engine.sampler import NOT_FINITE
from streamtok.errors import EngineFailed, RequestError
from streamtok.messages import Embedding
from streamtok.model.weights import Array


def pool(states: Array, works: Sequence[Work]) -> list[Embedding | RequestError | None]:
    """Return for each pooled one of `works`, whose rows of `states` [., D] follow, its embedding,
    or None as long as its prompt is not complete.
    """
    pools: list[Embedding | RequestError | None] = []
    start = 0
    for work in works:
        if work.pooled:
            pools.append(_pool(states[start : start + work.count], work))
            start += work.count
    return pools


def _pool(states: Array, work: Work) -> Embedding | RequestError | None:
    """Add the `states` [count, D] of a work to its sequence's, and return what they are in all."""
    sequence = work.sequence
    if sequence.states is None:
        sequence.states = np.zeros(states.shape[1], np.float64)  # [D]
    for state in states:  # one by one: numpy's own sums group the terms by how many there are
        sequence.states += state
    if work.count < sequence.pending:
        return None
    length = np.sqrt(np.add.reduce(sequence.states * sequence.states))  # the mean has its direction
    if not np.isfinite(length) or not length:
        return EngineFailed(NOT_FINITE)
    embedding = (sequence.states / length).astype(np.float32)  # [D]
    return tuple(embedding.tolist())
