"""Runs a plan: ids of sequences become rows of a pass, logits come back in the plan's order.

Owns the cache. Knows neither queues nor sampling. Read next: `streamtok.engine.sampler`.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from streamtok.engine.scheduler import Plan, Work
from streamtok.model.attention import KVCache
from streamtok.model.decoder import Decoder, Segment
from streamtok.model.weights import Array


class Runner:
    """A model and the keys and values of `slots` sequences."""

    def __init__(self, decoder: Decoder, slots: int) -> None:
        self._decoder = decoder
        self._cache = KVCache(decoder.config, slots)

    def run(self, plan: Plan) -> Array:
        """Compute the works of `plan`; return the rows of logits they need, in order: [., V]."""
        groups = list(_neighbours(plan.works))
        logits = self._decoder.forward(self._cache, [_segment(group) for group in groups])
        start, first = 0, {}
        for work in (work for group in groups for work in group):
            first[id(work)] = start
            start += work.rows
        order = [first[id(work)] + row for work in plan.works for row in range(work.rows)]
        return logits[order]  # [., V]

    def forget(self, slots: Iterable[int]) -> None:
        """Wipe slots whose contents must not be seen by whoever comes next."""
        for slot in slots:
            self._cache.clear(slot)


def _neighbours(works: Sequence[Work]) -> Iterator[list[Work]]:
    """Group single positions of neighbouring slots; anything longer stands alone."""
    group: list[Work] = []
    for work in sorted(works, key=lambda work: work.slot):
        joins = group and work.count == group[-1].count == 1 and work.slot == group[-1].slot + 1
        if group and not (joins and work.rows == group[-1].rows):
            yield group
            group = []
        group.append(work)
    if group:
        yield group


def _segment(group: Sequence[Work]) -> Segment:
    """Return the rows of neighbouring works of equal length."""
    first = group[0]
    start = np.array([[work.sequence.computed] for work in group])  # [N, 1]
    positions = start + np.arange(first.count)  # [N, R]
    ids = [w.sequence.ids[w.sequence.computed : w.sequence.computed + w.count] for w in group]
    slots = slice(first.slot, first.slot + len(group))
    return Segment(slots, np.array(ids), positions, first.sampled, first.scored)
