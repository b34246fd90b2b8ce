"""How clients share what is scarce: slots to run in, and positions of a step. Pure.

Slots are given round robin, so that one client's hundred requests delay another's single request by
one turn. Positions of prompts are divided by max-min fairness: everyone gets the same, except who
needs less, whose rest is divided among the others.

Read next: `streamtok.engine.scheduler`, which divides them.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

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
        """Queue `sequences`, each behind what its client has queued already."""
        for sequence in sequences:
            self._queues.setdefault(sequence.request.client, deque()).append(sequence)

    def take(self) -> Sequence:
        """Return the sequence whose turn it is; its client's next turn comes after all others'."""
        client, queue = next(iter(self._queues.items()))
        del self._queues[client]
        sequence = queue.popleft()
        if queue:
            self._queues[client] = queue
        return sequence

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
