"""Guesses save steps and change nothing: the same tokens, log-probabilities and ends."""

from itertools import pairwise

import pytest
from msgspec.structs import replace
from test_prefixes import Bench, Ids, decoder, request, text, told

from streamtok.engine.extras.drafts import MOST_PAUSE, PromptLookup
from streamtok.engine.plan import Sample
from streamtok.engine.scheduler import Scheduler
from streamtok.messages import Finished, SamplingParams, TokenEvent

# Of two tokens only, any text soon repeats itself
NARROW = SamplingParams(temperature=0.0, logit_bias=((65, 100), (66, 100)), top_logprobs=2)


@pytest.mark.parametrize(
    ("ids", "most", "guess"),
    [
        ((1, 2, 3, 4, 1, 2), 2, (3, 4)),
        ((1, 2, 3, 1, 2, 4, 1, 2), 2, (4, 1)),  # as the last time, not the first
        ((1, 2, 3, 1, 2), 5, (3, 1, 2, 3, 1)),  # a text that repeats itself goes on so
        ((7, 7, 7), 3, (7, 7, 7)),
        ((1, 2, 3, 4, 2), 2, ()),  # one alike is not enough
        ((1,), 2, ()),
        ((1, 2, 3, 4, 1, 2), 0, ()),
    ],
)
def test_a_text_goes_on_as_it_did_before(ids: Ids, most: int, guess: Ids) -> None:
    assert PromptLookup().guess(ids, most) == guess


def test_guesses_keep_up_with_a_text_that_grows() -> None:
    ids, drafter = list(text(1, 30)) * 3, PromptLookup()
    guesses = [drafter.guess(ids[:end], 1) for end in range(1, len(ids))]
    assert guesses == [()] * 31 + [(token,) for token in ids[32:]]


def test_who_guesses_wrong_keeps_silent_for_twice_as_long() -> None:
    drafter, guessed = PromptLookup(), []
    for step in range(190):
        if drafter.guess((1, 1, 1, 1), 1):
            guessed.append(step)
            drafter.learn(0)
    pauses = [later - step - 1 for step, later in pairwise(guessed)]
    assert pauses == [1, 2, 4, 8, 16, 32, MOST_PAUSE]
    drafter = PromptLookup()
    for right in (0, 0, 1, 0):  # one that was right makes up for those before
        drafter.learn(right)
    assert [bool(drafter.guess((1, 1, 1, 1), 1)) for _ in range(2)] == [False, True]


@pytest.mark.parametrize("sampling", [NARROW, replace(NARROW, temperature=0.3, seed=5)])
def test_a_text_that_repeats_itself_takes_fewer_steps(sampling: SamplingParams) -> None:
    asked = request(text(3, 8), sampling=sampling, max_tokens=100)
    bench = Bench(decoder(), 1, 0, 1000, tile=4)
    bench.scheduler.add("a", [asked])
    steps = 0
    while bench.scheduler.running or bench.scheduler.waiting:
        steps += bool(bench.step().works)
    assert steps < 80
    assert bench.computed == 8 + steps - 1  # and nothing that was guessed right is computed again
    got, whole = told(bench.told["a", 0], asked)
    assert got == whole
    assert len([event for event in got if isinstance(event, TokenEvent)]) == 100


def guessing(streams: int, tile: int = 4, **options: int) -> Scheduler:
    """Return a scheduler whose sequences have all repeated one token, and can guess it."""
    scheduler = Scheduler(streams, 1000, tile=tile, drafter=PromptLookup)
    scheduler.add("a", [request((7,) * 5, index=i, **options) for i in range(streams)])
    plan = scheduler.plan()
    assert not any(work.guess for work in plan.works)  # a prompt leaves no room
    scheduler.commit(plan, [[Sample(7)] for _ in plan.works])
    return scheduler


@pytest.mark.parametrize(
    ("streams", "lengths"), [(1, [3]), (2, [1, 1]), (3, [1, 0, 0]), (4, [0] * 4), (5, [0] * 5)]
)
def test_guesses_fill_up_a_tile_and_no_more(streams: int, lengths: list[int]) -> None:
    plan = guessing(streams, max_tokens=9).plan()
    assert [len(work.guess) for work in plan.works] == lengths
    assert [work.rows for work in plan.works] == [1 + length for length in lengths]


def test_nothing_is_guessed_beyond_the_end() -> None:
    assert guessing(1, max_tokens=3).plan().works[0].guess == (7,)
    assert guessing(1, max_tokens=2).plan().works[0].guess == ()


def test_what_was_guessed_behind_the_end_is_left_out() -> None:
    scheduler = guessing(1, max_tokens=9)
    plan = scheduler.plan()
    sequence = plan.works[0].sequence
    stopping = replace(sequence.request, stop_ids=frozenset({7}))
    sequence.request = stopping
    events = scheduler.commit(plan, [[Sample(7)] * 4])
    assert events == [("a", Finished(0, "stop", 2, TokenEvent(0, 7)))]
    assert sequence.computed < len(sequence.ids)


def test_stops_and_least_lengths_hold_where_tokens_are_guessed() -> None:
    for least in (0, 70):
        asked = request(
            text(3, 8),
            sampling=NARROW,
            max_tokens=100,
            stop_ids=frozenset({66}),
            min_tokens=least,
        )
        bench = Bench(decoder(), 1, 0, 1000, tile=4)
        got, whole = told(bench.run("a", asked), asked)
        assert got == whole
