"""Which replica a request goes to: by its longest cached prefix, bounded by load. Pure.

A request costs a replica the positions of its prompt that are not cached there. Behind those that
replica has the prompts that still wait, and each sequence that it generates slows every step. The
sum, in positions, is the cost of a replica, and the least wins; one with a free place wins over one
where the request would wait. (Dynamo's KV router, SGLang's router and llm-d's scorers weigh the
same two.)

What a replica has cached is not asked for but remembered: the blocks of the prompts that were sent
there, the last ones as far as its memory goes. A replica that has forgotten more than that costs
time and no correctness.

Read next: `streamtok.engine.cluster.places`.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from streamtok.messages import SequenceRequest

BLOCK = 16  # ids; a shorter common prefix is not worth a copy (`engine.prefix_cache.LEAST`)
PER_SEQUENCE = 16  # positions that one running sequence counts for


class Load(Struct, frozen=True):
    """How busy a replica is: its unfinished sequences, and positions of prompts that wait.

    `streams` sequences are generated at once.
    """

    sequences: int
    waiting: int
    streams: int


class Router:
    """Remembers `most_blocks` blocks of prompts for each replica."""

    def __init__(self, most_blocks: int) -> None:
        self._most_blocks = most_blocks
        self._blocks: dict[str, OrderedDict[int, None]] = {}

    def choose(self, sequences: Sequence[SequenceRequest], loads: Mapping[str, Load]) -> str:
        """Return the name of the replica, one of `loads`, for the sequences of a request."""
        costs = {
            name: (
                load.sequences + len(sequences) > load.streams,
                self.uncached(name, sequences) + load.waiting + PER_SEQUENCE * load.sequences,
            )
            for name, load in loads.items()
        }
        return min(costs, key=costs.__getitem__)

    def uncached(self, name: str, sequences: Iterable[SequenceRequest]) -> int:
        """Return how many positions of the prompts a replica would have to compute.

        A prompt that comes several times is computed once.
        """
        known = self._blocks.get(name, ())
        prompts = {(sequence.client, sequence.prompt_ids) for sequence in sequences}
        total = 0
        for client, ids in prompts:
            total += len(ids)
            for block in _blocks(client, ids):
                if block not in known:
                    break
                total -= BLOCK
        return total

    def place(self, name: str, sequences: Iterable[SequenceRequest]) -> None:
        """Note that a replica computes the sequences."""
        known = self._blocks.setdefault(name, OrderedDict())
        for sequence in sequences:
            for block in _blocks(sequence.client, sequence.prompt_ids):
                known[block] = None
                known.move_to_end(block)
        while len(known) > self._most_blocks:
            known.popitem(last=False)

    def forget(self, name: str) -> None:
        """Note that a replica has lost what it had."""
        self._blocks.pop(name, None)


def _blocks(client: str, ids: tuple[int, ...]) -> Iterator[int]:
    """Yield a number for each whole block, which depends on all before it: clients share none."""
    block = hash(client)
    for start in range(0, len(ids) - BLOCK + 1, BLOCK):
        block = hash((block, ids[start : start + BLOCK]))
        yield block
