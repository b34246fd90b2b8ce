"""Which KV slot holds which token prefix, so that no prefix is computed twice. Pure: no arrays.

Theory of operation. The KV cache has a fixed number of slots, each with room for one whole context.
The first `streams` slots belong to running sequences; a sequence takes the lowest free one, so that
running slots are neighbours and can be computed as one array. The remaining slots keep the keys and
values of sequences that have ended, evicted least recently used first. This module only
plans: it returns what to copy from slot to slot and what to clear, and the runner does it.

A row of the cache depends on nothing but the ids up to its own position, bit for bit, so that a
copied row is as good as a computed one. Copying 500 positions takes less than a millisecond where
computing them takes hundreds. Reuse happens at three moments:

- admit: the slot that a sequence gets may still hold a prefix of it, which then stays in place.
- reuse: when its prefill begins, a longer prefix may be in any slot, running ones included; it is
  copied. Not earlier: by then more may have been computed.
- is_ahead: if a running sequence is about to compute what another could copy, the other waits.

A slot whose content may be wrong (a step failed half-way, or gave numbers that are not finite) is
"spoilt": it is forgotten at once, with every kept slot that shares rows with it, and cleared before
the next step.

Sequences of different clients share nothing: otherwise the time to the first token would reveal
to a client whether someone else has sent a certain text before (a timing side channel). There are
few slots, so that comparing with each takes microseconds and no radix tree is needed.

Read next: `streamtok.engine.sequence`.
"""

import heapq
from collections.abc import Iterable
from itertools import compress, count
from operator import ne

from msgspec import Struct

from streamtok.engine.sequence import Sequence

LEAST = 16  # positions; fewer are not worth a copy, nor waiting for them


class Copy(Struct, frozen=True):
    """Copy keys and values of the positions from `start` to before `stop`, slot to slot."""

    source: int
    target: int
    start: int
    stop: int


class PrefixCache:
    """Slots for `streams` running sequences, and `kept` more for prefixes of ended ones.

    The caller carries out the copies it returns, in their order and before anything else is
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
        """Give `sequence` a slot, keeping what is there as far as it can use it."""
        slot = sequence.slot = heapq.heappop(self._free)
        before = self._holders[slot]
        shared = count_usable(before, sequence)
        sequence.start_from(min(shared, sequence.pending - 1))
        self._holders[slot] = sequence
        if before and sequence.computed < before.computed:
            return self._keep(before, slot)
        return []

    def reuse(self, sequence: Sequence) -> list[Copy]:
        """Let `sequence`, of which nothing is computed yet, start from the longest known prefix."""
        most, source = max(
            (count_usable(holder, sequence), slot) for slot, holder in enumerate(self._holders)
        )
        start, stop = sequence.computed, min(most, len(sequence.ids) - 1)
        if stop <= start:
            return []
        if source in self._kept:
            self._touch(source)
        assert sequence.slot is not None
        sequence.start_from(stop)
        return [Copy(source, sequence.slot, start, stop)]

    def leave(self, sequence: Sequence) -> None:
        """Free the slot of a sequence that has ended; others can use what it holds."""
        assert sequence.slot is not None
        heapq.heappush(self._free, sequence.slot)
        sequence.slot = None

    def suspend(self, sequence: Sequence) -> None:
        """Take the slot of a sequence that will go on; it may find there what it has computed."""
        assert sequence.slot is not None
        slot = sequence.slot
        self._holders[slot] = sequence.suspend()
        heapq.heappush(self._free, slot)

    def forget(self, sequence: Sequence) -> None:
        """Spoil the slot of `sequence`, and those of ended sequences that share rows with it."""
        self.spoil(
            slot
            for slot, holder in enumerate(self._holders)
            if holder is sequence
            or (holder and holder.slot is None and count_shared(holder, sequence))
        )

    def _keep(self, left: Sequence, slot: int) -> list[Copy]:
        """Copy the rows of `left`, which `slot` loses, to a slot for ended sequences, if any."""
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
                target, start = place, common  # what it holds is a prefix of this
        self._touch(target)
        self._holders[target] = left
        return [Copy(slot, target, start, left.computed)]

    def spoil(self, slots: Iterable[int]) -> None:
        """Forget what `slots` hold, and have them cleared."""
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
    """Whether `sequence` should wait: `leader` is about to compute what it can then copy."""
    most = min(count_common(leader, sequence), len(sequence.ids) - 1)
    return most - max(leader.computed, sequence.computed) >= LEAST


def count_usable(holder: Sequence | None, sequence: Sequence) -> int:
    """Return how many rows of `holder` can replace rows of `sequence`: none if it is embedded, or
    its prompt is still to be scored, as these need every position of the prompt computed.
    """
    request = sequence.request
    if request.embed:
        return 0
    shared = count_shared(holder, sequence)
    return min(shared, sequence.scored) if request.prompt_logprobs else shared
