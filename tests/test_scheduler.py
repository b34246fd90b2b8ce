"""The scheduler under random schedules, and by example: who is computed, who waits, who is told."""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import pytest
from examples import examples
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from streamtok.config import EngineConfig
from streamtok.engine.commands import Addressed
from streamtok.engine.plan import Plan, Sample, Work
from streamtok.engine.scheduler import Scheduler
from streamtok.engine.sequence import Sequence
from streamtok.errors import EngineFailed, RequestError
from streamtok.messages import (
    Event,
    Failed,
    Finished,
    Prefilled,
    PromptScored,
    SamplingParams,
    SequenceRequest,
    Started,
    TokenEvent,
    TokenLogprobs,
)

STOP, TOKEN = 1, 2
ERROR = EngineFailed("not finite")
OUTCOMES: st.SearchStrategy[Sample | RequestError] = st.sampled_from(
    [Sample(TOKEN), Sample(TOKEN), Sample(STOP), ERROR]
)
Key = tuple[str, int]  # a request's id and a sequence's index


@dataclass
class Known:
    """What has been asked and told about one sequence."""

    prompt: int
    max_tokens: int
    client: str
    events: list[Event] = field(default_factory=list)
    computed: int = 0
    slot: int | None = None
    suspensions: int = 0

    @property
    def started(self) -> bool:
        return Started in map(type, self.events)

    @property
    def ended(self) -> bool:
        return bool(self.events) and isinstance(self.events[-1], Finished | Failed)

    @property
    def sampled(self) -> int:
        return sum(isinstance(event, TokenEvent) for event in self.events)

    @property
    def pending(self) -> int:
        return self.prompt + self.sampled - self.computed

    def expect(self, event: Event) -> None:
        """Check that `event` may come next, and note it."""
        assert not self.ended
        if isinstance(event, Started):
            assert self.events == []
        elif isinstance(event, Prefilled):
            assert list(map(type, self.events)) == [Started]
        elif isinstance(event, TokenEvent):
            assert Prefilled in map(type, self.events)
            assert self.sampled < self.max_tokens
        elif isinstance(event, Finished) and event.reason == "stop":
            assert event.generated == self.sampled + 1
        else:
            assert event.generated == self.sampled
        self.events.append(event)


class Watched(Scheduler):
    """A scheduler of which a test hears whose slot was taken away."""

    def __init__(self, streams: int, step_tokens: int) -> None:
        super().__init__(streams, step_tokens)
        self.suspended: list[Key] = []

    def _suspend(self, sequence: Sequence) -> None:
        self.suspended.append((sequence.request_id, sequence.request.index))
        super()._suspend(sequence)

    def holders(self) -> list[Key]:
        return [(sequence.request_id, sequence.request.index) for sequence in self._running]


class Schedules(RuleBasedStateMachine):
    """Random requests, steps, cancels and failures, against what was asked and told."""

    @initialize(slots=st.integers(1, 4), step_tokens=st.integers(1, 12))
    def start(self, slots: int, step_tokens: int) -> None:
        self.slots, self.step_tokens = slots, step_tokens
        self.scheduler = Watched(slots, step_tokens)
        self.known: dict[Key, Known] = {}  # in the order of their coming
        self.requests = 0

    @rule(
        sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 4)), min_size=1, max_size=3),
        client=st.sampled_from("abc"),
    )
    def add(self, sizes: list[tuple[int, int]], client: str) -> None:
        name = f"r{self.requests}"
        self.requests += 1
        self.known |= {(name, index): Known(*size, client) for index, size in enumerate(sizes)}
        requests = [request(index, *size, client) for index, size in enumerate(sizes)]
        self.scheduler.add(name, requests)

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        paused = {name for name, _ in self.known if data.draw(st.integers(0, 3)) == 0}
        plan = self.plan(paused)
        samples = [data.draw(OUTCOMES) for work in plan.works if work.sampled]
        self.commit(plan, samples)

    @rule(data=st.data())
    def fail_in_a_step(self, data: st.DataObject) -> None:
        plan = self.plan(set())
        if data.draw(st.booleans()):
            events = self.scheduler.fail(ERROR, plan)
            assert sorted(map(address, events)) == sorted(map(key, plan.works))
        else:
            events = self.scheduler.fail(ERROR)
            assert sorted(map(address, events)) == sorted(self.open())
        assert all(isinstance(event, Failed) for _, event in events)
        self.tell(events)

    @rule(number=st.integers(0, 9), index=st.none() | st.integers(0, 3))
    def cancel(self, number: int, index: int | None) -> None:
        name = f"r{number}"
        events = self.scheduler.cancel(name, index)
        mine = [(n, i) for n, i in self.open() if n == name and index in (None, i)]
        assert sorted(map(address, events)) == sorted(mine)
        assert all(isinstance(e, Finished) and e.reason == "cancelled" for _, e in events)
        self.tell(events)
        assert self.scheduler.cancel(name, index) == []

    @invariant()
    def counts_are_right(self) -> None:
        running = len(self.scheduler.holders())
        assert self.scheduler.running == running <= self.slots
        assert self.scheduler.waiting == len(self.open()) - running

    def teardown(self) -> None:
        """Whatever happened before, every sequence that is left gets to its end."""
        positions = sum(self.known[key].prompt + self.known[key].max_tokens for key in self.open())
        for _ in range(positions * (1 + len(self.open()))):
            plan = self.plan(set())
            self.commit(plan, [Sample(TOKEN) for work in plan.works if work.sampled])
        assert self.open() == []

    def open(self) -> list[Key]:
        return [key for key, known in self.known.items() if not known.ended]

    def tell(self, events: list[Addressed]) -> None:
        for name, event in events:
            self.known[name, event.index].expect(event)

    def plan(self, paused: set[str]) -> Plan:
        """Plan a step and check all that must be so of it."""
        fresh: dict[str, list[Key]] = defaultdict(list)  # what has not started, by client
        for k in self.open():
            if not self.known[k].started and k[0] not in paused:
                fresh[self.known[k].client].append(k)
        plan = self.scheduler.plan(paused)
        for event in plan.events:  # of each client in their order
            assert address(event) == fresh[self.known[address(event)].client].pop(0)
        self.tell(list(plan.events))
        assert all(isinstance(event, Started) for _, event in plan.events)
        self.check_slots(paused)
        holders = self.scheduler.holders()
        able = {k: self.known[k] for k in self.open() if k in holders and k[0] not in paused}
        works = {key(work): work for work in plan.works}
        assert len(works) == len(plan.works)
        assert works.keys() <= able.keys()
        assert bool(works) == bool(able)
        # Every decoding sequence goes one on; the rest of the budget is divided among the clients
        # that have prompts, and each one's oldest comes first
        decoding = sorted(k for k, known in able.items() if known.pending == 1)
        assert [work.slot for work in plan.works] == sorted(work.slot for work in plan.works)
        assert all(works[k].count == 1 for k in decoding)
        budget = max(1, self.step_tokens - len(decoding))
        prompts = [k for k, known in able.items() if known.pending > 1]
        wanted, got = Counter[str](), Counter[str]()
        for k in prompts:
            wanted[able[k].client] += able[k].pending
            got[able[k].client] += works[k].count if k in works else 0
        assert got.total() == min(budget, wanted.total())
        for client, share in got.items():
            assert share == wanted[client] or share >= max(got.values()) - 1
        for k in prompts:
            count = min(able[k].pending, got[able[k].client])
            assert count == (works[k].count if k in works else 0)
            got[able[k].client] -= count
        for k, work in works.items():
            self.check_slot(k, work.slot)
            assert work.sequence.computed == able[k].computed
            assert work.sampled == (work.count == able[k].pending)
        return plan

    def check_slots(self, paused: set[str]) -> None:
        """Slots are with those who can use them, and no client has many where another has few."""
        for k in self.scheduler.suspended:
            self.known[k].computed, self.known[k].slot = 0, None
            self.known[k].suspensions += 1
        assert not self.scheduler.suspended or self.scheduler.running == self.slots
        self.scheduler.suspended.clear()
        holders = self.scheduler.holders()
        waiting = [k for k in self.open() if k not in holders and k[0] not in paused]
        held = Counter(self.known[k].client for k in holders)
        if waiting:
            assert self.scheduler.running == self.slots
            assert not [name for name, _ in holders if name in paused]
            least = min(held[self.known[k].client] for k in waiting)
            assert max(held.values()) <= least + 1

    def check_slot(self, owner: Key, slot: int) -> None:
        """A slot has one owner until that one ends or is suspended."""
        known = self.known[owner]
        assert slot in range(self.slots)
        assert known.slot in (None, slot)
        known.slot = slot
        assert [k for k in self.open() if self.known[k].slot == slot] == [owner]

    def commit(self, plan: Plan, samples: list[Sample | RequestError]) -> None:
        for work in plan.works:
            self.known[key(work)].computed += work.count
        sampled = [key(work) for work in plan.works if work.sampled]
        events = self.scheduler.commit(plan, [[sample] for sample in samples])
        self.tell(events)
        told: dict[Key, list[Event]] = defaultdict(list)
        for name, event in events:
            told[name, event.index].append(event)
        assert list(told) == sampled
        for k, sample in zip(sampled, samples, strict=True):
            known, generated = self.known[k], self.known[k].sampled
            if isinstance(sample, RequestError):
                assert told[k] == [Failed(k[1], sample, generated)]
                continue
            prefilled = [e for e in told[k] if isinstance(e, Prefilled)]
            if sample.token_id == STOP:
                stop = TokenEvent(k[1], STOP)
                assert told[k] == [*prefilled, Finished(k[1], "stop", generated + 1, stop)]
            else:
                end = [Finished(k[1], "length", generated)] * (generated == known.max_tokens)
                assert told[k] == [*prefilled, TokenEvent(k[1], TOKEN), *end]


TestSchedules = Schedules.TestCase
TestSchedules.settings = examples(30, stateful_step_count=20)


def address(event: Addressed) -> Key:
    return event[0], event[1].index


def key(work: Work) -> Key:
    return work.sequence.request_id, work.sequence.request.index


def request(index: int, prompt: int, max_tokens: int, client: str = "") -> SequenceRequest:
    ids, stop_ids = tuple(range(index, index + prompt)), frozenset({STOP})
    return SequenceRequest(index, ids, SamplingParams(), max_tokens, stop_ids, client=client)


def step(scheduler: Scheduler, paused: tuple[str, ...] = ()) -> list[tuple[str, int, int]]:
    """Make one step; return the request, the index and the count of each work."""
    plan = scheduler.plan(paused)
    scheduler.commit(plan, [[Sample(TOKEN)] for work in plan.works if work.sampled])
    return [(*key(work), work.count) for work in plan.works]


def test_a_long_prompt_delays_a_stream_by_one_budget_at_most() -> None:
    scheduler = Scheduler(streams=2, step_tokens=8)
    scheduler.add("short", [request(0, 1, 10)])
    step(scheduler)
    scheduler.add("long", [request(0, 20, 10)])
    works = [step(scheduler) for _ in range(4)]
    assert works[:3] == [[("short", 0, 1), ("long", 0, n)] for n in (7, 7, 6)]
    assert works[3] == [("short", 0, 1), ("long", 0, 1)]


def test_nobody_waits_more_than_a_step_for_a_token_when_a_long_prompt_comes() -> None:
    config = EngineConfig()
    scheduler = Scheduler(config.max_streams, config.step_tokens)
    scheduler.add("streams", [request(index, 2, 100) for index in range(31)])
    step(scheduler)
    scheduler.add("long", [request(0, 900, 1, "another")])
    for _ in range(math.ceil(900 / (config.step_tokens - 31))):
        works = step(scheduler)
        assert [work for work in works if work[0] == "streams"] == [
            ("streams", index, 1) for index in range(31)
        ]
        assert sum(count for _, _, count in works) <= config.step_tokens
    assert scheduler.running == 31  # and the long one is through


@pytest.mark.parametrize(
    ("streams", "prompt"),
    [(0, 64), (1, 16), (8, 16), (9, 18), (20, 40), (32, 32), (63, 1), (70, 1)],
)
def test_beside_streams_a_step_has_a_part_of_a_prompt_only(streams: int, prompt: int) -> None:
    def budget(decoding: int) -> int:
        return max(16, 2 * decoding) if decoding else 999

    scheduler = Scheduler(streams + 1, 64, budget=budget)
    for index in range(streams):
        scheduler.add("streams", [request(index, 1, 100)])
        step(scheduler)
    step(scheduler)
    scheduler.add("long", [request(0, 900, 1, "another")])
    works = step(scheduler)
    assert [work for work in works if work[0] == "long"] == [("long", 0, prompt)]
    assert len(works) == streams + 1


def test_a_client_with_much_to_do_does_not_keep_another_waiting() -> None:
    scheduler = Scheduler(streams=1, step_tokens=8)
    scheduler.add("many", [request(index, 1, 1, "anna") for index in range(64)])
    step(scheduler)
    scheduler.add("few", [request(index, 1, 1, "ben") for index in range(2)])
    started = [step(scheduler)[0][:2] for _ in range(6)]
    assert started == [
        ("many", 1), ("few", 0), ("many", 2), ("few", 1), ("many", 3), ("many", 4)
    ]  # fmt: skip


def test_prompts_of_one_client_do_not_hold_up_those_of_another() -> None:
    scheduler = Scheduler(streams=4, step_tokens=12)
    scheduler.add("many", [request(index, 9, 1, "anna") for index in range(3)])
    scheduler.add("one", [request(0, 7, 1, "ben")])
    assert step(scheduler) == [("many", 0, 6), ("one", 0, 6)]
    assert step(scheduler) == [("many", 0, 3), ("one", 0, 1), ("many", 1, 8)]


def test_a_step_is_one_position_of_each_stream_even_above_the_budget() -> None:
    scheduler = Scheduler(streams=3, step_tokens=1)
    scheduler.add("a", [request(index, 1, 9) for index in range(3)])
    assert step(scheduler) == [("a", 0, 1), ("a", 1, 1), ("a", 2, 1)]


def test_a_paused_request_keeps_its_slot_where_nobody_waits() -> None:
    scheduler = Scheduler(streams=1, step_tokens=4)
    scheduler.add("a", [request(0, 6, 2)])
    assert step(scheduler) == [("a", 0, 4)]
    assert step(scheduler, paused=("a",)) == []
    assert scheduler.running == 1
    assert [step(scheduler) for _ in range(2)] == [[("a", 0, 2)], [("a", 0, 1)]]


def test_a_paused_request_gives_its_slot_to_who_waits_and_goes_on_where_it_stood() -> None:
    scheduler = Scheduler(streams=1, step_tokens=8)
    scheduler.add("a", [request(0, 6, 3)])
    scheduler.add("b", [request(0, 1, 2)])
    assert step(scheduler) == [("a", 0, 6)]
    assert [step(scheduler, paused=("a",)) for _ in range(3)] == [[("b", 0, 1)]] * 2 + [[]]
    assert (scheduler.running, scheduler.waiting) == (0, 1)
    plan = scheduler.plan()
    assert plan.events == ()  # it has started before
    assert [(*key(work), work.count, work.sampled) for work in plan.works] == [("a", 0, 7, True)]
    told = scheduler.commit(plan, [[Sample(TOKEN)]])
    assert told == [("a", TokenEvent(0, TOKEN))]  # and its prompt has been told as computed
    assert step(scheduler) == [("a", 0, 1)]


def test_a_paused_request_does_not_start_more_of_its_sequences() -> None:
    scheduler = Scheduler(streams=2, step_tokens=8)
    scheduler.add("a", [request(index, 1, 9) for index in range(4)])
    scheduler.add("b", [request(0, 1, 1)])
    step(scheduler)
    assert step(scheduler, paused=("a",)) == [("b", 0, 1)]
    assert step(scheduler, paused=("a",)) == []
    assert scheduler.running == 1


def test_a_client_shares_its_slots_with_one_that_comes_later() -> None:
    scheduler = Scheduler(streams=4, step_tokens=99)
    scheduler.add("many", [request(index, 3, 50, "anna") for index in range(8)])
    assert len(step(scheduler)) == 4
    scheduler.add("few", [request(index, 1, 50, "ben") for index in range(2)])
    works = step(scheduler)
    assert [work[:2] for work in works] == [("many", 0), ("many", 1), ("few", 1), ("few", 0)]
    scheduler.add("one", [request(0, 1, 1, "cleo")])
    assert ("one", 0, 1) in step(scheduler)
    scheduler.cancel("few")
    for _ in range(3):  # those that had a slot before come first, computed again
        works = step(scheduler)
    assert [work[:2] for work in works] == [("many", index) for index in (0, 1, 2, 3)]


def test_a_prompt_is_scored_once_however_often_it_is_suspended() -> None:
    score = TokenLogprobs(-1.0, ())
    scheduler = Scheduler(streams=1, step_tokens=4)
    scored = replace(request(0, 10, 2), prompt_logprobs=True)
    scheduler.add("a", [scored])
    told: list[Event] = []

    def go(paused: tuple[str, ...] = ()) -> None:
        plan = scheduler.plan(paused)
        samples = [[Sample(TOKEN)] for work in plan.works if work.sampled]
        scores = [(score,) * len(work.scored_ids) for work in plan.works if work.scored]
        events = scheduler.commit(plan, samples, scores)
        told.extend(event for name, event in events if name == "a")

    for number in range(30):
        if number in (1, 4, 11):
            scheduler.add(f"b{number}", [request(0, 1, 1)])
            go(("a",))
        go()
    reported = [event.logprobs for event in told if isinstance(event, PromptScored)]
    assert sum(map(len, reported)) == 9
    assert told[-1] == Finished(0, "length", 2)
    assert [type(event) for event in told].count(Prefilled) == 1


def test_one_sequence_of_a_request_can_be_cancelled_alone() -> None:
    scheduler = Scheduler(streams=2, step_tokens=8)
    scheduler.add("a", [request(index, 1, 9) for index in range(3)])
    step(scheduler)
    assert scheduler.cancel("a", 1) == [("a", Finished(1, "cancelled", 1))]
    assert scheduler.cancel("a", 1) == []
    assert step(scheduler) == [("a", 0, 1), ("a", 2, 1)]
    assert scheduler.cancel("a") == [
        ("a", Finished(0, "cancelled", 2)),
        ("a", Finished(2, "cancelled", 1)),
    ]
    assert (scheduler.running, scheduler.waiting) == (0, 0)


def test_what_waits_can_be_cancelled_before_it_starts() -> None:
    scheduler = Scheduler(streams=1, step_tokens=8)
    scheduler.add("a", [request(0, 1, 1)])
    assert scheduler.cancel("a") == [("a", Finished(0, "cancelled", 0))]
    assert scheduler.plan() == Plan((), ())


def test_a_failed_step_ends_those_that_were_in_it_alone() -> None:
    scheduler = Scheduler(streams=2, step_tokens=2)
    scheduler.add("a", [request(0, 2, 9)])
    scheduler.add("b", [request(0, 5, 9)])
    plan = scheduler.plan()
    assert scheduler.fail(ERROR, plan) == [("a", Failed(0, ERROR, 0))]
    assert step(scheduler) == [("b", 0, 2)]
    assert scheduler.fail(ERROR) == [("b", Failed(0, ERROR, 0))]


def test_a_stop_token_is_told_as_the_end() -> None:
    scheduler = Scheduler(streams=1, step_tokens=8)
    scheduler.add("a", [request(0, 3, 9)])
    end = Finished(0, "stop", 1, TokenEvent(0, STOP))
    told = scheduler.commit(scheduler.plan(), [[Sample(STOP)]])
    assert told == [("a", Prefilled(0, 0)), ("a", end)]


@pytest.mark.parametrize("slots", [1, 3])
def test_nothing_to_do_is_an_empty_plan(slots: int) -> None:
    assert Scheduler(slots, 8).plan() == Plan((), ())
