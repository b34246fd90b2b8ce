"""How much of a prompt a step computes: as much as takes the time that it may, as measured here.

Beside streams a step takes about three times as long as theirs alone at most, whatever the model,
the machine and the number of streams. A prompt that is alone is computed in steps of half a second,
so that whoever comes meanwhile does not wait long. Chance readings do no harm: how a prompt is cut
changes no bit.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from streamtok.engine.core import Run
from streamtok.engine.plan import Plan
from streamtok.engine.scheduler import Budget
from streamtok.model.weights import Array

Key = TypeVar("Key")

ALONE_S = 0.5  # of a step with a prompt and no streams
SHARE = 1.15  # times a usual step that prompts may add to it: less than two, since times vary
LEAST = 8  # positions, unless fewer are left: late in a long prompt 16 can take three usual steps
FIRST = 64  # positions of a prompt that is alone, before anything is known
LARGE = 48  # positions that cost less each than fewer do: large products begin about there
NEW = 0.3  # weight of a reading among those before
DEARER = 0.6  # of one that says that a prompt costs more: its later positions do, and other work


class Pace:
    """Runs plans with `run`, measures them, and says how much of a prompt the next may have."""

    def __init__(self, run: Run, clock: Callable[[], float] = time.perf_counter) -> None:
        self._run = run
        self._clock = clock
        self._usual: dict[int, float] = {}  # seconds of a step without prompts, by its streams
        self._cost: dict[bool, float] = {}  # seconds of a prompt's position, where many, and few

    def run(self, plan: Plan) -> tuple[Array, Array]:
        """Do what `run` does."""
        begun_s = self._clock()
        result = self._run(plan)
        self._learn(plan, self._clock() - begun_s)
        return result

    def budget(self, decoding: int) -> int:
        """Return how many positions of prompts a step has next to so many that decode."""
        usual = self._usual_s(decoding)
        if not self._cost or (decoding and not usual):
            return max(LEAST, 2 * decoding) if decoding else FIRST
        allowed = SHARE * usual if decoding else ALONE_S
        few, many = (self._cost.get(size, max(self._cost.values())) for size in (False, True))
        count = int(allowed / many)
        return max(LEAST, count if count >= LARGE else min(LARGE - 1, int(allowed / few)))

    def _usual_s(self, decoding: int) -> float:
        """Return how long so many streams take without a prompt, or 0 if no step is known."""
        nearest = min(self._usual, key=lambda known: abs(known - decoding), default=0)
        return self._usual.get(nearest, 0.0)

    def _learn(self, plan: Plan, seconds: float) -> None:
        decoding = sum(work.count == 1 for work in plan.works)
        prompt = sum(work.count for work in plan.works) - decoding
        if not prompt:
            _mix(self._usual, decoding, seconds)
        elif not decoding or self._usual:
            rest = max(seconds / 10, seconds - (self._usual_s(decoding) if decoding else 0))
            cost, size = rest / prompt, prompt >= LARGE
            _mix(self._cost, size, cost, DEARER if cost > self._cost.get(size, cost) else NEW)


def paced(run: Run) -> tuple[Run, Budget]:
    """Return `run` with a watch beside it, and what says how much of a prompt a step has."""
    pace = Pace(run)
    return pace.run, pace.budget


def _mix(known: dict[Key, float], key: Key, reading: float, weight: float = NEW) -> None:
    """Let `reading` count with a `weight` among those that are `known` for `key`."""
    known[key] = known.get(key, reading) * (1 - weight) + reading * weight
