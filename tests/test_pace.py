"""How much of a prompt a step has follows from what steps took, by any clock."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamtok.engine.extras.pace import ALONE_S, LEAST, SHARE, Pace
from streamtok.engine.plan import Plan, Work
from streamtok.engine.sequence import Sequence
from streamtok.messages import SamplingParams, SequenceRequest

NOTHING = np.zeros((0, 1), np.float32)


@dataclass
class Machine:
    """A machine on which a step takes some time for each stream, and for each prompt position."""

    least_s: float
    stream_s: float
    position_s: float
    now_s: float = 0.0

    def run(self, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
        counts = [work.count for work in plan.works]
        self.now_s += self.took(counts.count(1), sum(count for count in counts if count > 1))
        return NOTHING, NOTHING

    def took(self, streams: int, positions: int) -> float:
        return self.least_s + streams * self.stream_s + positions * self.position_s


def plan(streams: int, prompt: int) -> Plan:
    sequence = Sequence("a", SequenceRequest(0, (1,) * 999, SamplingParams(), 1))
    counts = [1] * streams + [prompt] * (prompt > 0)
    return Plan(tuple(Work(sequence, 0, count, False) for count in counts), ())


@given(
    least_s=st.floats(1e-4, 0.05),
    stream_s=st.floats(1e-5, 0.005),
    position_s=st.floats(1e-5, 0.01),
    streams=st.integers(1, 64),
)
def test_beside_streams_a_step_takes_three_times_as_long_at_most(
    least_s: float, stream_s: float, position_s: float, streams: int
) -> None:
    machine = Machine(least_s, stream_s, position_s)
    pace = Pace(machine.run, lambda: machine.now_s)
    assert pace.budget(streams) == max(LEAST, 2 * streams)  # before anything is known
    pace.run(plan(streams, 0))
    for _ in range(8):
        count = pace.budget(streams)
        pace.run(plan(streams, count))
    assert count == LEAST or machine.took(streams, count) <= 3 * machine.took(streams, 0)
    fits = SHARE * machine.took(streams, 0) / position_s
    assert count >= LEAST
    assert count >= 0.5 * min(fits, 47)


@pytest.mark.parametrize("position_s", [1e-4, 1e-3, 5e-3])
def test_a_prompt_that_is_alone_has_all_of_half_a_second(position_s: float) -> None:
    machine = Machine(0.001, 0.001, position_s)
    pace = Pace(machine.run, lambda: machine.now_s)
    for _ in range(8):
        pace.run(plan(0, pace.budget(0)))
    assert 0.8 * ALONE_S <= machine.took(0, pace.budget(0)) <= 1.1 * ALONE_S
