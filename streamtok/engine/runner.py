"""Runs a plan: ids of sequences become rows of a pass, logits come back in the plan's order.

Owns the cache. Knows neither queues nor sampling. Read next: `streamtok.engine.sampler`.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np

from streamtok.engine.scheduler import Plan, Work
from streamtok.model.attention import KVCache
from streamtok.model.batch import Segment
from streamtok.model.decoder import Decoder
from streamtok.model.weights import Array


class Runner:
    """A model and the keys and values of `slots` sequences."""

    def __init__(self, decoder: Decoder, slots: int) -> None:
        self._decoder = decoder
        self._cache = KVCache(decoder.config, slots)

    def run(self, plan: Plan) -> Array:
        """Carry out `plan` and return the logits that its works need, in their order: [., V]."""
        for slot in plan.wipes:
            self._cache.clear(slot)
        for copy in plan.copies:
            self._cache.copy(copy.source, copy.target, slice(copy.start, copy.stop))
        if not plan.works:
            return np.zeros((0, self._decoder.config.vocab), np.float32)  # [0, V]
        groups = list(_neighbours(plan.works))
        logits = self._decoder.forward(self._cache, [_segment(group) for group in groups])
        computed = [work for group in groups for work in group]
        first = [0, *accumulate(work.rows for work in computed)]
        start = {id(work): row for work, row in zip(computed, first, strict=False)}
        order = [start[id(work)] + row for work in plan.works for row in range(work.rows)]
        return logits[order]  # [., V]


def _neighbours(works: Sequence[Work]) -> Iterator[list[Work]]:
    """Group what decodes in neighbouring slots with guesses of a length; prompts stand alone."""
    group: list[Work] = []
    for work in sorted(works, key=lambda work: work.slot):
        joins = group and work.slot == group[-1].slot + 1 and _form(work) == _form(group[-1])
        if group and not (joins and work.count == 1):
            yield group
            group = []
        group.append(work)
    if group:
        yield group


def _form(work: Work) -> tuple[int, int]:
    return work.count, work.rows


def _segment(group: Sequence[Work]) -> Segment:
    """Return the rows of neighbouring works of equal length."""
    first = group[0]
    start = np.array([[work.sequence.computed] for work in group])  # [N, 1]
    positions = start + np.arange(first.count + len(first.guess))  # [N, R]
    ids = [[*w.sequence.ids[w.sequence.computed :], *w.guess][: positions.shape[1]] for w in group]
    slots = slice(first.slot, first.slot + len(group))
    return Segment(slots, np.array(ids), positions, first.rows)
