"""How clients share what is scarce: slots to run in, and positions of a step. Pure.

Slots are given round robin, so that one client's hundred requests delay another's single request by
one turn. Positions of prompts are divided by max-min fairness: everyone gets the same, except who
needs less, whose rest is divided among the others.

Read next: `streamtok.engine.prefix_cache`.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping

from streamtok.engine.sequence import Sequence


class FairQueue:
    """Waiting sequences: round robin among clients, first in first out for each of them."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Sequence]] = {}  # by client, in order of turns

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def __iter__(self) -> Iterator[Sequence]:
        for queue in self._queues.values():
            yield from queue

    def add(self, sequences: Iterable[Sequence]) -> None:
        """Queue `sequences`, each after what its client has queued already."""
        for sequence in sequences:
            self._queues.setdefault(sequence.request.client, deque()).append(sequence)

    def add_first(self, sequence: Sequence) -> None:
        """Let `sequence`, which has run before, wait ahead of what its client has waiting."""
        self._queues.setdefault(sequence.request.client, deque()).appendleft(sequence)

    def next(self, held: Mapping[str, int], paused: Collection[str] = ()) -> Sequence | None:
        """Return the sequence that gets the next slot, still in the queue; None if there is none.

        It is the first of the client that has the fewest slots (`held`); among equals clients take
        turns. Sequences of requests in `paused` are passed over: they could not use a slot.
        """
        heads = (
            next((s for s in queue if s.request_id not in paused), None)
            for queue in self._queues.values()
        )
        able = (head for head in heads if head is not None)
        return min(able, key=lambda head: held.get(head.request.client, 0), default=None)

    def take(self, sequence: Sequence) -> None:
        """Remove `sequence`, whose turn it is; its client's next one comes after all others'."""
        client = sequence.request.client
        self.remove(sequence)
        if queue := self._queues.pop(client, None):
            self._queues[client] = queue

    def remove(self, sequence: Sequence) -> None:
        """Take `sequence` out of the queue."""
        client = sequence.request.client
        self._queues[client].remove(sequence)
        if not self._queues[client]:
            del self._queues[client]


def fair_shares(budget: int, wanted: Mapping[str, int]) -> dict[str, int]:
    """Divide `budget` among clients, max-min fair: equally, but no client more than it wants."""
    shares = {}
    for index, client in enumerate(sorted(wanted, key=lambda client: wanted[client])):
        shares[client] = min(wanted[client], -(-budget // (len(wanted) - index)))
        budget -= shares[client]
    return shares
