"""What the sequences of a drained replica have so far, computed by others before they are moved.

A copy is a request of this server's own: the prompts and tokens of a client's request, and no token
more. When all of it has been computed, its keys and values are in the other replica's prefix cache.
Meanwhile the client's request has got more tokens, which are copied in turn, until they are few;
then it goes on there with next to nothing left to compute. (A virtual machine's memory is moved in
the same way: C. Clark et al., "Live Migration of Virtual Machines", NSDI 2005.) Pure. Read next:
`streamtok.engine.cluster.client`.
"""

from itertools import count

from msgspec import Struct

from streamtok.engine.cluster.places import Place
from streamtok.engine.cluster.probe import INTERNAL
from streamtok.engine.commands import Submit

FEW = 4  # tokens of a sequence that are left to compute when it is moved
MOST_ROUNDS = 4


class Copy(Struct, frozen=True):
    """A client's request, the replica that computes it, and the one that computes what it has.

    `missing` are the sequences of which not all has been computed there, of a request that had
    `length` positions; it is the copy number `rounds` of it.
    """

    request_id: str
    source: Place
    target: Place
    missing: set[int]
    length: int
    rounds: int

    @property
    def is_enough(self) -> bool:
        """Whether little has been added since, or too often too much."""
        sequences = self.source.journal[self.request_id].so_far()
        added = sum(len(sequence.prompt_ids) for sequence in sequences) - self.length
        return added <= FEW * len(sequences) or self.rounds == MOST_ROUNDS


class Copies:
    """The copies that are being computed."""

    def __init__(self) -> None:
        self._copies: dict[str, Copy] = {}
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._copies)

    def __contains__(self, request_id: str) -> bool:
        return any(copy.request_id == request_id for copy in self._copies.values())

    @property
    def targets(self) -> list[Place]:
        """The replicas that compute copies now."""
        return [copy.target for copy in self._copies.values()]

    def begin(self, request_id: str, source: Place, target: Place, rounds: int) -> Submit | None:
        """Return what `target` is to compute; None if there is nothing that could be copied."""
        requests = source.journal[request_id].so_far()
        if not requests:
            return None
        copy_id = f"{INTERNAL}{next(self._numbers)}"
        missing, length = {r.index for r in requests}, sum(len(r.prompt_ids) for r in requests)
        self._copies[copy_id] = Copy(request_id, source, target, missing, length, rounds)
        return Submit(copy_id, tuple(requests))

    def computed(self, copy_id: str, index: int) -> Copy | None:
        """Note that one sequence is there, if it is one of a copy; return the copy if all are."""
        copy = self._copies.get(copy_id)
        if copy is None:
            return None
        copy.missing.discard(index)
        return None if copy.missing else self._copies.pop(copy_id)

    def lose(self, place: Place) -> None:
        """Forget the copies from and to a replica that is gone."""
        for copy_id, copy in list(self._copies.items()):
            if place in (copy.source, copy.target):
                del self._copies[copy_id]
