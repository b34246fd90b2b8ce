"""Whose keys and values lie in which slot, so that no prefix is computed twice. Pure.

The first slots are for running sequences, the lowest free one first, so that they are neighbours
and can be computed together. The others keep what ended sequences leave; the least recently used is
given up first. A sequence starts from the longest prefix that lies in any slot, which is copied:
500 positions take less than a millisecond, where computing them takes hundreds. A row of the cache
depends on nothing but the ids up to its own, bit for bit, so that a copied one is as good.

Sequences of different clients share nothing: else the time to the first token would tell one
whether another has sent some text before. Slots are few: looking at all of them takes microseconds,
and needs no tree. Read next: `streamtok.engine.scheduler`, which asks.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import compress, count
from operator import ne

from streamtok.engine.sequence import Sequence

LEAST = 16  # positions; fewer are not worth a copy, nor a wait for who computes them


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy keys and values of the positions from `start` to before `stop`, slot to slot."""

    source: int
    target: int
    start: int
    stop: int


class Prefixes:
    """Slots for `streams` running sequences, and `kept` more for what others have left.

    Whoever uses it carries out the copies it returns, in their order and before anything else is
    computed, and clears the slots that `take_spoilt` names even before that.
    """

    def __init__(self, streams: int, kept: int = 0) -> None:
        self._free = list(range(streams))
        self._kept = dict.fromkeys(range(streams, streams + kept))  # least recently used first
        self._holders: list[Sequence | None] = [None] * (streams + kept)
        self._spoilt: set[int] = set()

    @property
    def free(self) -> bool:
        """Whether one more sequence can run."""
        return bool(self._free)

    def take_spoilt(self) -> tuple[int, ...]:
        """Return the slots to be cleared, each once."""
        slots, self._spoilt = sorted(self._spoilt), set()
        return tuple(slots)

    def admit(self, sequence: Sequence) -> list[Copy]:
        """Give `sequence` a slot, with as much of what lies there as it can use."""
        slot = sequence.slot = heapq.heappop(self._free)
        before = self._holders[slot]
        shared = count_usable(before, sequence)
        sequence.computed = sequence.cached = min(shared, sequence.pending - 1)
        self._holders[slot] = sequence
        if before and sequence.computed < before.computed:
            return self._keep(before, slot)
        return []

    def reuse(self, sequence: Sequence) -> list[Copy]:
        """Let `sequence`, of which nothing has been computed yet, start from the best prefix."""
        most, source = max(
            (count_usable(holder, sequence), slot) for slot, holder in enumerate(self._holders)
        )
        start, stop = sequence.computed, min(most, len(sequence.ids) - 1)
        if stop <= start:
            return []
        if source in self._kept:
            self._touch(source)
        assert sequence.slot is not None
        sequence.computed = sequence.cached = stop
        return [Copy(source, sequence.slot, start, stop)]

    def leave(self, sequence: Sequence) -> None:
        """Take the slot of a sequence that has ended; what lies there can be used by others."""
        assert sequence.slot is not None
        heapq.heappush(self._free, sequence.slot)
        sequence.slot = None

    def forget(self, sequence: Sequence) -> None:
        """Give up what may be spoilt: the rows of `sequence`, and all that share some with it."""
        self.spoil(
            slot
            for slot, holder in enumerate(self._holders)
            if holder is sequence
            or (holder and holder.slot is None and count_shared(holder, sequence))
        )

    def _keep(self, left: Sequence, slot: int) -> list[Copy]:
        """Move what `left` has left in `slot` to where it can stay, if there is such a place."""
        if not self._kept or left.computed < LEAST:
            return []
        target, start = next(iter(self._kept)), 0
        for place in self._kept:
            holder = self._holders[place]
            common = count_shared(holder, left)
            if common >= left.computed:
                self._touch(place)
                return []
            if holder and common == holder.computed:
                target, start = place, common  # what is kept there is a prefix of this
        self._touch(target)
        self._holders[target] = left
        return [Copy(slot, target, start, left.computed)]

    def spoil(self, slots: Iterable[int]) -> None:
        """Give up what lies in `slots`, and have them cleared."""
        for slot in slots:
            self._holders[slot] = None
            self._spoilt.add(slot)
            if slot in self._kept:
                self._kept = {slot: None} | self._kept  # the first to be used

    def _touch(self, slot: int) -> None:
        del self._kept[slot]
        self._kept[slot] = None


def count_shared(holder: Sequence | None, sequence: Sequence) -> int:
    """Return how many computed rows of `holder` are rows of `sequence` too; 0 if too few."""
    rows = min(count_common(holder, sequence), holder.computed) if holder else 0
    return rows if rows >= LEAST else 0


def count_common(one: Sequence, other: Sequence) -> int:
    """Return how many ids two sequences of one client have in common, from the first on."""
    if one.request.client != other.request.client:
        return 0
    differing = compress(count(), map(ne, one.ids, other.ids))
    return next(differing, min(len(one.ids), len(other.ids)))


def is_ahead(leader: Sequence, sequence: Sequence) -> bool:
    """Whether to wait for `leader`, which is about to compute what `sequence` can copy then."""
    most = min(count_common(leader, sequence), len(sequence.ids) - 1)
    return most - max(leader.computed, sequence.computed) >= LEAST


def count_usable(holder: Sequence | None, sequence: Sequence) -> int:
    """Return how many rows of `holder` may stand for rows of `sequence`: none where it is scored
    or embedded, which takes something of every position of its prompt.
    """
    request = sequence.request
    return 0 if request.prompt_logprobs or request.embed else count_shared(holder, sequence)
