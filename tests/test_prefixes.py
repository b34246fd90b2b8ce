"""Prefixes are computed once, and what is generated from them is the same, bit for bit."""

from collections import defaultdict
from collections.abc import Collection
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from streamtok.engine.commands import Addressed
from streamtok.engine.extras.drafts import PromptLookup
from streamtok.engine.extras.embeddings import pool
from streamtok.engine.extras.grammars import Grammars
from streamtok.engine.extras.logprobs import logprobs, score
from streamtok.engine.plan import Plan
from streamtok.engine.prefix_cache import LEAST, Copy
from streamtok.engine.runner import Runner
from streamtok.engine.scheduler import Scheduler
from streamtok.engine.verifier import draw
from streamtok.errors import EngineFailed
from streamtok.messages import (
    Event,
    Failed,
    Finished,
    Prefilled,
    PromptScored,
    SamplingParams,
    SequenceRequest,
    TokenEvent,
    TokenLogprobs,
)
from streamtok.model.base import Decoder
from streamtok.model.load import load
from streamtok.testing import write_model

Ids = tuple[int, ...]


class Bench:
    """A scheduler and a runner with a real model, driven by hand."""

    grammars: Grammars | None = None

    def __init__(
        self, decoder: Decoder, streams: int, kept: int, step_tokens: int, tile: int = 1
    ) -> None:
        self.scheduler = Scheduler(streams, step_tokens, kept, tile, PromptLookup)
        self.runner = Runner(decoder, streams + kept)
        self.told: dict[tuple[str, int], list[Event]] = defaultdict(list)
        self.computed = 0  # positions

    def tell(self, events: list[Addressed]) -> None:
        for name, event in events:
            self.told[name, event.index].append(event)

    def plan(self, paused: Collection[str] = ()) -> Plan:
        plan = self.scheduler.plan(paused)
        self.tell(list(plan.events))
        return plan

    def step(self, paused: Collection[str] = ()) -> Plan:
        plan = self.plan(paused)
        start_guide = self.grammars.start if self.grammars else None
        logits, states = self.runner.run(plan)
        drawn = draw(logits, plan.works, start_guide, logprobs)
        self.computed += sum(work.count for work in plan.works)
        scores, pools = score(logits, plan.works), pool(states, plan.works)
        self.tell(self.scheduler.commit(plan, drawn, scores, pools))
        return plan

    def fail(self) -> None:
        """Make a step that leaves nonsense where it wrote, and raises."""
        plan = self.plan()
        self.runner.run(plan)
        cache = self.runner._cache
        for slot in {work.slot for work in plan.works} | {copy.target for copy in plan.copies}:
            for keys, values in cache.layers:
                keys[slot] = values[slot] = np.nan
        self.tell(self.scheduler.fail(EngineFailed("on purpose"), plan))

    def finish(self) -> None:
        while self.scheduler.running or self.scheduler.waiting:
            self.step()

    def run(self, name: str, *requests: SequenceRequest) -> list[Event]:
        """Return all events of a request's sequences, one sequence after the other."""
        self.scheduler.add(name, requests)
        self.finish()
        return [event for request in requests for event in self.told[name, request.index]]


@cache
def decoder() -> Decoder:
    with TemporaryDirectory() as folder:
        return load(write_model(Path(folder) / "tiny"))


def request(
    ids: Ids, seed: int = 0, index: int = 0, max_tokens: int = 4, **options: Any
) -> SequenceRequest:
    params = SamplingParams(seed=seed, top_logprobs=2)
    return SequenceRequest(index, ids, **{"sampling": params, "max_tokens": max_tokens} | options)


def text(seed: int, length: int) -> Ids:
    return tuple(int(i) for i in np.random.default_rng(seed).integers(0, 261, length))


@cache
def alone(asked: SequenceRequest) -> list[Event]:
    """Return what a sequence gives on its own: all its tokens with their log-probabilities."""
    events = Bench(decoder(), 1, 0, 1000).run("alone", replace(asked, client=""))
    return [event for event in events if isinstance(event, TokenEvent | Finished)]


def told(events: list[Event], asked: SequenceRequest) -> tuple[list[Event], list[Event]]:
    """Return what a sequence gave, and what it gives on its own up to where this one ended."""
    got = [event for event in events if isinstance(event, TokenEvent | Finished)]
    whole, end = alone(asked), events[-1]
    if isinstance(end, Failed) or (isinstance(end, Finished) and end.reason == "cancelled"):
        got = [event for event in got if isinstance(event, TokenEvent)]
        whole = whole[: len(got)]
    return got, whole


def bits(events: list[Event]) -> tuple[list[TokenLogprobs], list[Event]]:
    """Return the log-probabilities of the prompt, and what was generated."""
    scored = [event.logprobs for event in events if isinstance(event, PromptScored)]
    rest: list[Event] = [event for event in events if isinstance(event, TokenEvent | Finished)]
    return [position for part in scored for position in part], rest


def cached(events: list[Event]) -> list[int]:
    return [event.cached for event in events if isinstance(event, Prefilled)]


# By example


def test_a_repeated_prompt_is_not_computed_again_but_for_its_last_token() -> None:
    bench, ids = Bench(decoder(), 2, 2, 1000), text(1, 60)
    first = bench.run("a", request(ids))
    before = bench.computed
    second = bench.run("b", request(ids))
    assert (cached(first), cached(second)) == ([0], [59])
    assert bench.computed - before == 1 + 3
    assert first[2:] == second[2:] == alone(request(ids))


def test_the_next_turn_of_a_chat_goes_on_behind_the_answer() -> None:
    bench, ids = Bench(decoder(), 1, 0, 1000), text(1, 40)
    first = bench.run("a", request(ids, max_tokens=10))
    answer = tuple(event.token_id for event in first if isinstance(event, TokenEvent))
    longer = (*ids, *answer, *text(2, 8))
    bench.scheduler.add("b", [request(longer)])
    plan = bench.step()
    assert plan.copies == ()  # it lies where it is needed
    assert plan.works[0].count == 9  # the last token of the answer was not computed yet
    bench.finish()
    assert bench.told["b", 0][2:] == alone(request(longer))


def test_the_choices_of_one_prompt_share_its_computation() -> None:
    bench, ids = Bench(decoder(), 4, 0, 32), text(1, 120)
    asked = [request(ids, seed, seed) for seed in range(4)]
    events = bench.run("a", *asked)
    assert cached(events) == [0, 119, 119, 119]
    assert bench.computed == 120 + 3 * 1 + 4 * 3
    for choice in asked:
        assert bench.told["a", choice.index][2:] == alone(choice)


def test_who_shares_little_does_not_wait() -> None:
    bench, stem = Bench(decoder(), 2, 0, 100), text(1, LEAST - 1)
    bench.scheduler.add("a", [request((*stem, *text(i, 20)), index=i) for i in (0, 1)])
    assert [work.count for work in bench.plan().works] == [LEAST + 19, LEAST + 19]


def test_who_waits_for_a_prompt_goes_on_alone_if_that_is_cancelled() -> None:
    bench, ids = Bench(decoder(), 2, 0, 32), text(1, 100)
    bench.scheduler.add("a", [request(ids)])
    bench.scheduler.add("b", [request(ids, 1)])
    assert [work.count for work in bench.step().works] == [32]
    bench.tell(bench.scheduler.cancel("a"))
    bench.finish()
    assert cached(bench.told["b", 0]) == [32]
    assert bench.told["b", 0][2:] == alone(request(ids, 1))


def test_the_least_recently_used_is_given_up() -> None:
    bench = Bench(decoder(), 1, 2, 1000)
    asked = [request(text(seed, 50)) for seed in range(5)]
    for number in (0, 1, 2, 0, 3):  # the last is still in its slot, two more are kept
        bench.run(f"first-{number}", asked[number])
    reused = {n: cached(bench.run(f"again-{n}", asked[n])) for n in (3, 0, 1, 4)}
    assert reused == {3: [49], 0: [49], 1: [0], 4: [0]}


def test_a_longer_text_replaces_the_prefix_that_was_kept_of_it() -> None:
    bench, ids = Bench(decoder(), 1, 2, 1000), text(1, 90)
    for number, length in enumerate((30, 60, 90)):
        bench.run(f"{number}", request(ids[:length], max_tokens=1))
        bench.run(f"other-{number}", request(text(9, 20), max_tokens=1))
    assert cached(bench.run("again", request(ids))) == [89]
    assert cached(bench.run("other-again", request(text(9, 20)))) == [19]


@pytest.mark.parametrize("client", ["", "ben"])
def test_clients_share_nothing(client: str) -> None:
    bench, ids = Bench(decoder(), 2, 2, 1000), text(1, 60)
    bench.run("a", request(ids, client="anna"))
    assert cached(bench.run("b", request(ids, client=client))) == [0]
    assert cached(bench.run("c", request(ids, client="anna"))) == [59]


def test_a_copy_takes_what_is_missing_only() -> None:
    bench, ids = Bench(decoder(), 2, 0, 1000), text(1, 60)
    bench.run("a", request(ids[:40], max_tokens=1))  # in slot 0
    bench.run("b", request(ids[:20], 1), request(ids, 1, 1))  # in 0, and in 1
    bench.scheduler.add("c", [request(ids, 2)])
    assert bench.plan().copies == (Copy(1, 0, 20, 59),)


def test_what_a_failed_step_wrote_is_not_used() -> None:
    bench, ids = Bench(decoder(), 2, 2, 1000), text(1, 60)
    bench.run("a", request(ids))
    bench.scheduler.add("b", [request(ids)])
    bench.fail()
    assert isinstance(bench.told["b", 0][-1], Failed)
    events = bench.run("c", request(ids))
    assert cached(events) == [0]
    assert events[2:] == alone(request(ids))


def test_what_a_failed_step_copied_is_not_used() -> None:
    bench, asked = Bench(decoder(), 1, 1, 1000), request(text(1, 60))
    bench.run("a", asked)
    bench.scheduler.add("b", [request(text(2, 60))])
    bench.fail()  # it was to keep the first prompt
    events = bench.run("c", asked)
    assert cached(events) == [0]
    assert events[2:] == alone(asked)


@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.parametrize("prompt_logprobs", [False, True])
def test_sequences_that_take_turns_in_one_slot_give_the_same_bits(
    kept: int, *, prompt_logprobs: bool
) -> None:
    """Each is suspended again and again: in its prompt, and between any two of its tokens."""
    bench, names = Bench(decoder(), 1, kept, 30), ("a", "b", "c")
    asked = {
        name: request(text(seed, 50), max_tokens=8, prompt_logprobs=prompt_logprobs)
        for seed, name in enumerate(names)
    }
    for name, sequence in asked.items():
        bench.scheduler.add(name, [sequence])
    for number in range(400):
        bench.step([name for name in names if name != names[number // 4 % 3]])
    for name, sequence in asked.items():
        single = Bench(decoder(), 1, 0, 30).run("alone", sequence)
        assert bits(bench.told[name, 0]) == bits(single)
        assert cached(bench.told[name, 0]) == [0]


def test_an_embedding_does_not_depend_on_being_suspended() -> None:
    asked = request(text(1, 60), max_tokens=0, embed=True)
    alone = Bench(decoder(), 1, 0, 16).run("alone", asked)
    bench = Bench(decoder(), 1, 1, 16)
    bench.scheduler.add("a", [asked])
    bench.step()
    bench.scheduler.add("b", [request(text(2, 20))])
    bench.step(["a"])
    bench.finish()
    assert bench.told["a", 0] == alone
    assert isinstance(alone[-1], Finished)
    assert alone[-1].embedding is not None


# Any schedule


@st.composite
def prompts(draw: st.DrawFn) -> Ids:
    """Texts that begin alike: cut off a common stem, with something of their own behind."""
    stem = text(draw(st.integers(0, 1)), 70)[: draw(st.integers(1, 70))]
    return stem + text(draw(st.integers(2, 4)), 30)[: draw(st.integers(0, 30))]


few = tuple((token, 100.0) for token in (65, 66, 67))  # texts repeat themselves
samplings = st.sampled_from(
    [
        SamplingParams(temperature=0.0, logit_bias=few, top_logprobs=2),
        SamplingParams(temperature=0.0, logit_bias=few, repetition_penalty=1.1, top_logprobs=1),
        SamplingParams(logit_bias=few, frequency_penalty=0.5, presence_penalty=0.5),
        SamplingParams(top_p=0.9, top_k=5, top_logprobs=0),
    ]
)
endings = st.sampled_from(
    [
        {},
        {},
        {"stop_ids": frozenset(range(60))},
        {"stop_ids": frozenset(range(60)), "min_tokens": 5},
    ]
)


@given(data=st.data())
@examples(30)
def test_reuse_guesses_and_pauses_change_no_bit_in_any_schedule(data: st.DataObject) -> None:
    """Requests, pauses, cancels and failures at random: tokens and log-probabilities stay."""
    bench = Bench(
        decoder(),
        streams=data.draw(st.integers(1, 4)),
        kept=data.draw(st.integers(0, 3)),
        step_tokens=data.draw(st.integers(1, 80)),
        tile=data.draw(st.sampled_from([1, 4, 8])),
    )
    asked: dict[tuple[str, int], SequenceRequest] = {}
    for number in range(data.draw(st.integers(2, 8))):
        ids, client = data.draw(prompts()), data.draw(st.sampled_from(["a", "a", "b"]))
        ids *= data.draw(st.integers(1, 100 // len(ids)))  # what repeats itself can be guessed
        tokens, choices = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 3))
        options = {"max_tokens": tokens, "client": client, **data.draw(endings)}
        params = data.draw(samplings)
        fork = [
            request(ids, index=i, sampling=replace(params, seed=i), **options)
            for i in range(choices)
        ]
        asked |= {(f"r{number}", sequence.index): sequence for sequence in fork}
        bench.scheduler.add(f"r{number}", fork)
        names = [f"r{n}" for n in range(number + 1)]
        for _ in range(data.draw(st.integers(0, 6))):
            bench.step(data.draw(st.sets(st.sampled_from(names))))
        if data.draw(st.integers(0, 4)) == 0:
            bench.tell(bench.scheduler.cancel(f"r{data.draw(st.integers(0, number))}"))
        if data.draw(st.integers(0, 6)) == 0:
            bench.fail()
    bench.finish()
    for key, sequence in asked.items():
        got, whole = told(bench.told[key], sequence)
        assert got == whole
