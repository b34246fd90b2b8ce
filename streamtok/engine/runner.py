"""Runs a plan: ids of sequences become rows of a pass, logits come back in the plan's order.

Owns the cache. Knows neither queues nor sampling.

Read next: `streamtok.model.reference`.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from streamtok.engine.plan import Plan, Work
from streamtok.model.attention import KVCache
from streamtok.model.base import Decoder
from streamtok.model.batch import Segment
from streamtok.model.weights import Array

WASTE = 128  # positions: as many as one more group costs


class Runner:
    """A model and the keys and values of `slots` sequences."""

    def __init__(self, decoder: Decoder, slots: int) -> None:
        self._decoder = decoder
        self._cache = KVCache(decoder.config, slots)

    def run(self, plan: Plan) -> tuple[Array, Array]:
        """Carry out `plan`; return the logits and the final states that its works need.

        They are [., V] and [., D], in the order of the works.
        """
        for slot in plan.wipes:
            self._cache.clear(slot)
        for copy in plan.copies:
            self._cache.copy(copy.source, copy.target, slice(copy.start, copy.stop))
        if not plan.works:
            config = self._decoder.config
            return np.zeros((0, config.vocab), np.float32), np.zeros((0, config.dim), np.float32)
        segments = [_segment(group) for group in _neighbours(plan.works)]
        return self._decoder.compute(self._cache, segments)  # [., V], [., D]


def _neighbours(works: Sequence[Work]) -> Iterator[list[Work]]:
    """Group what decodes in neighbouring slots with guesses of a length; prompts stand alone.

    Those in a group are computed as if all were as long as the longest: who would cost the others
    more than a group of its own stands alone too.
    """
    group: list[Work] = []
    longest = 0
    for work in works:
        length = work.sequence.computed
        joins = group and work.slot == group[-1].slot + 1 and _form(work) == _form(group[-1])
        more = max(longest, length)
        wasted = more - length + (more - longest) * len(group)
        if group and not (joins and work.count == 1 and wasted <= WASTE):
            yield group
            group, more = [], length
        group.append(work)
        longest = more
    if group:
        yield group


def _form(work: Work) -> tuple[int, int, bool]:
    return work.count, work.rows, work.pooled


def _segment(group: Sequence[Work]) -> Segment:
    """Return the rows of neighbouring works of equal length."""
    first = group[0]
    start = np.array([[work.sequence.computed] for work in group])  # [N, 1]
    positions = start + np.arange(first.count + len(first.guess))  # [N, R]
    ids = [[*w.sequence.ids[w.sequence.computed :], *w.guess][: positions.shape[1]] for w in group]
    slots = slice(first.slot, first.slot + len(group))
    return Segment(slots, np.array(ids), positions, first.rows, first.pooled)
