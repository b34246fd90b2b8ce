"""How clients share what there is too little of: places, and positions of a step. Pure.

Read next: `streamtok.engine.scheduler`, which has them to give.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from streamtok.engine.sequence import Sequence


class Turns:
    """Sequences that wait: clients take turns, and each one's own come in their order."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Sequence]] = {}  # by client; whose turn it is stands first

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def __iter__(self) -> Iterator[Sequence]:
        for queue in self._queues.values():
            yield from queue

    def add(self, sequences: Iterable[Sequence]) -> None:
        """Let `sequences` wait, each behind what its client has waiting already."""
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
        """Let `sequence` wait no longer."""
        client = sequence.request.client
        self._queues[client].remove(sequence)
        if not self._queues[client]:
            del self._queues[client]


def divide(budget: int, wanted: Mapping[str, int]) -> dict[str, int]:
    """Divide `budget` among clients: they get alike, but none more than it wants."""
    shares = {}
    for index, client in enumerate(sorted(wanted, key=lambda client: wanted[client])):
        shares[client] = min(wanted[client], -(-budget // (len(wanted) - index)))
        budget -= shares[client]
    return shares
