"""The sampler: the right set is kept, the right share is drawn, and no row sees another."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from examples import examples
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from streamtok.engine import sampler
from streamtok.engine.extras.logprobs import logprobs as compute_logprobs
from streamtok.engine.plan import Sample
from streamtok.engine.sampler import Draw, sample, uniform
from streamtok.errors import EngineFailed
from streamtok.messages import SamplingParams, TokenLogprobs
from streamtok.model.weights import Array

ROWS = st.lists(st.integers(-12, 12).map(lambda n: n / 4), min_size=2, max_size=12)  # with ties
PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    top_p=st.sampled_from([0.3, 0.9, 1.0]),
    top_k=st.sampled_from([0, 1, 5, 40]),
    min_p=st.sampled_from([0.0, 0.1]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    presence_penalty=st.sampled_from([0.0, 0.5]),
    frequency_penalty=st.sampled_from([0.0, -0.5]),
    logit_bias=st.sampled_from([(), ((1, 5.0), (2, -100.0))]),
    seed=st.integers(-(2**63), 2**64),
    top_logprobs=st.sampled_from([None, 0, 3]),
)


def draw(prompt: tuple[int, ...] = (), generated: tuple[int, ...] = (), **params: Any) -> Draw:
    return Draw(SamplingParams(**params), (*prompt, *generated), len(prompt))


def array(*rows: list[float]) -> Array:
    return np.array(rows, np.float32)  # [rows, V]


def random_logits(rows: int, vocab: int, seed: int = 0) -> Array:
    logits: Array = np.random.default_rng(seed).normal(0, 3, (rows, vocab)).astype(np.float32)
    return logits  # [rows, V]


def tokens(logits: Array, draws: list[Draw]) -> list[int]:
    """Return the ids that are drawn, none of which may be an error."""
    samples = sample(logits, draws, compute_logprobs)
    assert all(isinstance(drawn, Sample) for drawn in samples)
    return [drawn.token_id for drawn in samples if isinstance(drawn, Sample)]


def kept(step: sampler.Step, row: list[float], **params: Any) -> set[int]:
    """Return the tokens that one step leaves in the game."""
    scores = array(row)
    step(scores, [draw(**params)])
    return set(np.flatnonzero(np.isfinite(scores[0])).tolist())


def changed(step: sampler.Step, row: list[float], one: Draw) -> list[float]:
    """Return the scores of `row` after one step."""
    scores = array(row)
    step(scores, [one])
    values: list[float] = scores[0].tolist()
    return values


def shares(row: list[float]) -> list[float]:
    """Return the probability of each token by its definition, in double precision."""
    powers = [np.exp(score - max(row)) for score in row]
    return [float(power / sum(powers)) for power in powers]


# Greedy


@given(row=ROWS, seed=st.integers(0, 99))
def test_greedy_takes_the_likeliest_and_of_equals_the_first(row: list[float], seed: int) -> None:
    assert tokens(array(row), [draw(temperature=0.0, seed=seed)]) == [row.index(max(row))]


def test_greedy_ignores_what_only_shapes_the_draw() -> None:
    logits = random_logits(1, 50)
    one = draw(temperature=0.0, top_p=0.1, top_k=3, min_p=0.9)
    assert tokens(logits, [one]) == [int(logits.argmax())]


@pytest.mark.parametrize("temperature", [1e-3, 1e-6, 1e-20, 1e-38, 1e-45, 1e-300])
def test_a_temperature_near_zero_is_greedy(temperature: float) -> None:
    logits = random_logits(8, 50)
    draws = [draw(temperature=temperature, seed=seed) for seed in range(8)]
    assert tokens(logits, draws) == logits.argmax(axis=1).tolist()


# What is kept, against definitions


@given(row=ROWS, k=st.integers(0, 13))
def test_top_k_keeps_those_with_fewer_than_k_above_them(row: list[float], k: int) -> None:
    expected = {i for i, own in enumerate(row) if k == 0 or sum(x > own for x in row) < k}
    assert kept(sampler.top_k, row, top_k=k) == expected


@examples(200)
@given(row=ROWS, top_p=st.floats(0.01, 1))
def test_top_p_keeps_those_with_less_than_p_above_them(row: list[float], top_p: float) -> None:
    share = shares(row)
    above = [sum(x for x, score in zip(share, row, strict=True) if score > own) for own in row]
    assume(all(abs(x - top_p) > 1e-5 for x in above))
    assert kept(sampler.top_p, row, top_p=top_p) == {i for i, x in enumerate(above) if x < top_p}


@given(row=ROWS, min_p=st.floats(0, 1))
def test_min_p_keeps_those_with_that_share_of_the_likeliest(row: list[float], min_p: float) -> None:
    ratios = [float(np.exp(score - max(row))) for score in row]
    assume(all(ratio == 1 or abs(ratio - min_p) > 1e-5 for ratio in ratios))
    expected = {i for i, ratio in enumerate(ratios) if ratio >= min_p}
    assert kept(sampler.min_p, row, min_p=min_p) == expected


@pytest.mark.parametrize("params", [{"top_p": 0.0}, {"top_p": 1e-9}, {"min_p": 1.0}, {"top_k": 1}])
def test_the_likeliest_is_always_kept(params: dict[str, Any]) -> None:
    logits = random_logits(20, 50)
    assert tokens(logits, [draw(**params, seed=seed) for seed in range(20)]) == [
        int(row.argmax()) for row in logits
    ]


def test_top_p_looks_at_what_top_k_left() -> None:
    # Of all, the first has 0.4 and the first two 0.7; of the first two, the first alone has 0.57.
    logits = np.log(array([0.4, 0.3, 0.2, 0.1]))  # [1, V]
    seeds = range(200)
    both = tokens(logits.repeat(200, 0), [draw(seed=s, top_k=2, top_p=0.5) for s in seeds])
    alone = tokens(logits.repeat(200, 0), [draw(seed=s, top_p=0.5) for s in seeds])
    assert (set(both), set(alone)) == ({0}, {0, 1})


def test_filters_look_at_shares_after_the_temperature() -> None:
    logits = np.log(array([0.6, 0.4])).repeat(100, 0)  # [100, V]
    hot = tokens(logits, [draw(seed=s, min_p=0.7, temperature=2.0) for s in range(100)])
    cold = tokens(logits, [draw(seed=s, min_p=0.7, temperature=0.5) for s in range(100)])
    assert (set(hot), set(cold)) == ({0, 1}, {0})


# Penalties and biases, by hand


def test_repetition_penalty_shrinks_scores_of_prompt_and_answer_once() -> None:
    one = draw((0, 1, 1), (1, 3), repetition_penalty=2.0)
    assert changed(sampler.repetition_penalty, [4.0, -4.0, 4.0, 0.0], one) == [2.0, -8.0, 4.0, 0.0]


def test_presence_and_frequency_penalty_count_the_answer_alone() -> None:
    one = draw((2, 2), (0, 1, 1, 1), presence_penalty=0.5, frequency_penalty=0.25)
    step = sampler.presence_and_frequency_penalty
    assert changed(step, [1.0, 1.0, 1.0], one) == [0.25, -0.25, 1.0]


def test_negative_penalties_reward() -> None:
    one = draw((), (0,), presence_penalty=-1.0, frequency_penalty=-0.5)
    assert changed(sampler.presence_and_frequency_penalty, [0.0, 0.0], one) == [1.5, 0.0]


def test_logit_bias_adds_to_single_tokens() -> None:
    one = draw(logit_bias=((2, 1.5), (0, -100.0)))
    assert changed(sampler.logit_bias, [1.0, 1.0, 1.0], one) == [-99.0, 1.0, 2.5]


def test_barred_tokens_have_no_share_whatever_their_bias() -> None:
    one = Draw(SamplingParams(logit_bias=((0, 100.0),), temperature=0.0), (), 0, frozenset({0, 2}))
    assert changed(sampler.bar, [1.0, 2.0, 3.0], one) == [-np.inf, 2.0, -np.inf]
    assert tokens(array([1.0, 2.0, 3.0]), [one]) == [1]


def test_temperature_divides() -> None:
    assert changed(sampler.temperature, [1.0, -2.0], draw(temperature=0.5)) == [2.0, -4.0]
    assert changed(sampler.temperature, [1.0, -2.0], draw(temperature=0.0)) == [1.0, -2.0]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"logit_bias": ((1, 1.0),)}, 1),
        ({"repetition_penalty": 1.5}, 1),
        ({"presence_penalty": 0.5}, 1),
        ({"frequency_penalty": 0.5}, 1),
        ({}, 0),
    ],
)
def test_penalties_and_biases_also_decide_greedy_draws(
    params: dict[str, Any], expected: int
) -> None:
    one = draw((), (0,), temperature=0.0, **params)
    assert tokens(array([1.0, 0.8]), [one]) == [expected]


@given(row=ROWS)
def test_neutral_parameters_change_nothing(row: list[float]) -> None:
    scores = array(row)
    for step in sampler.STEPS:
        step(scores, [draw((0, 1), (1,))])
    assert scores[0].tolist() == row


# The draw


@pytest.mark.parametrize(
    ("params", "probabilities"),
    [
        ({}, [0.4, 0.3, 0.2, 0.1]),
        ({"temperature": 0.5}, [16 / 30, 9 / 30, 4 / 30, 1 / 30]),
        ({"top_k": 2}, [4 / 7, 3 / 7, 0, 0]),
        ({"top_p": 0.85}, [4 / 9, 3 / 9, 2 / 9, 0]),
        ({"min_p": 0.6}, [4 / 7, 3 / 7, 0, 0]),
    ],
)
@pytest.mark.parametrize("along", ["seeds", "positions"])
def test_tokens_are_drawn_by_their_shares(
    params: dict[str, Any], probabilities: list[float], along: str
) -> None:
    """Chi-square with three degrees of freedom: above 16.3 once in a thousand."""
    count = 3000
    if along == "seeds":
        draws = [draw(seed=seed, **params) for seed in range(count)]
    else:
        draws = [draw((), (0,) * position, seed=7, **params) for position in range(count)]
    logits = np.log(array([0.4, 0.3, 0.2, 0.1])).repeat(count, 0)  # [count, V]
    seen = Counter(tokens(logits, draws))
    expected = [share * count for share in probabilities]
    assert all(seen[i] == 0 for i, n in enumerate(expected) if n == 0)
    assert sum((seen[i] - n) ** 2 / n for i, n in enumerate(expected) if n) < 16.3


@given(seed=st.integers(-(2**64), 2**65), position=st.integers(0, 2**40))
def test_uniform_is_at_least_zero_and_below_one(seed: int, position: int) -> None:
    assert 0 <= uniform(seed, position) < 1
    assert uniform(seed, position) == uniform(seed, position)


def test_words_are_those_of_splitmix64() -> None:
    """From 0 its authors' own implementation begins with these two."""
    assert [sampler._mix(0), sampler._mix(0x9E3779B97F4A7C15)] == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
    ]


@given(seed=st.integers(0, 2**63), position=st.integers(0, 4096), step=st.integers(1, 128))
def test_neighbouring_seeds_do_not_share_their_numbers(seed: int, position: int, step: int) -> None:
    """The choices of one request have them."""
    assert uniform(seed + step, position) != uniform(seed, position + step)


@pytest.mark.parametrize("fixed", ["seed", "position"])
def test_uniform_is_spread_evenly_along_seeds_and_positions(fixed: str) -> None:
    """Chi-square with 15 degrees of freedom: above 37.7 once in a thousand."""
    pairs = [(3, n) if fixed == "seed" else (n, 3) for n in range(4000)]
    values = [uniform(*pair) for pair in pairs]
    assert len(set(values)) == len(values)
    buckets = Counter(int(16 * value) for value in values)
    assert sum((buckets[i] - 250) ** 2 / 250 for i in range(16)) < 37.7


@pytest.mark.parametrize("at", [0.0, 0.5, np.nextafter(1.0, 0.0)])
def test_a_token_without_a_share_is_never_drawn(at: float) -> None:
    scores = array([-np.inf, -np.inf, 0.0, -200.0, 0.0, -np.inf])
    assert sampler._choose(scores[0], at) in (2, 4)


# Rows


@examples(40)
@given(
    params=st.lists(PARAMS, min_size=2, max_size=9),
    vocab=st.sampled_from([45, 261, 4096]),
    seed=st.integers(0, 99),
)
def test_rows_are_drawn_together_as_alone(
    params: list[SamplingParams], vocab: int, seed: int
) -> None:
    """To the last bit, log-probabilities included."""
    logits = random_logits(len(params), vocab, seed)
    ids = np.random.default_rng(seed).integers(0, vocab, (len(params), 8)).tolist()
    draws = [Draw(p, row[: 4 + i], 4) for i, (p, row) in enumerate(zip(params, ids, strict=True))]
    together = sample(logits, draws, compute_logprobs)
    assert together == [
        drawn
        for i, one in enumerate(draws)
        for drawn in sample(logits[i : i + 1], [one], compute_logprobs)
    ]
    backwards = sample(logits[::-1], draws[::-1], compute_logprobs)
    assert backwards == together[::-1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_an_error_and_the_others_are_not(bad: float) -> None:
    logits = random_logits(3, 20)
    draws = [draw(seed=seed, top_p=0.9, top_logprobs=2) for seed in range(3)]
    first, _, third = sample(logits, draws, compute_logprobs)
    logits[1, 7] = bad
    samples = sample(logits, draws, compute_logprobs)
    assert (samples[0], samples[2]) == (first, third)
    assert isinstance(samples[1], EngineFailed)


def test_the_logits_are_left_as_they_are() -> None:
    logits = random_logits(2, 20)
    before = logits.copy()
    sample(logits, [draw((1,), (2,), logit_bias=((3, 9.0),), top_k=2, presence_penalty=1.0)] * 2)
    assert (logits == before).all()


def test_no_rows_give_no_tokens() -> None:
    assert sample(random_logits(0, 20), []) == []


# Log-probabilities


def logprobs(logits: Array, one: Draw) -> tuple[int, TokenLogprobs]:
    """Return the id and the log-probabilities of a draw that reports them."""
    (drawn,) = sample(logits, [one], compute_logprobs)
    assert isinstance(drawn, Sample)
    assert drawn.logprobs is not None
    return drawn.token_id, drawn.logprobs


@given(row=ROWS, seed=st.integers(0, 99))
def test_logprobs_are_the_models_own_in_falling_order(row: list[float], seed: int) -> None:
    token, found = logprobs(array(row), draw(seed=seed, top_logprobs=len(row)))
    own = np.log(shares(row)).tolist()
    assert found.logprob == pytest.approx(own[token], abs=1e-5)
    assert [i for i, _ in found.top] == sorted(range(len(row)), key=lambda i: (-row[i], i))
    assert [value for _, value in found.top] == pytest.approx(
        [own[i] for i, _ in found.top], abs=1e-5
    )
    assert sum(np.exp(value) for _, value in found.top) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_as_many_logprobs_as_asked_for(count: int) -> None:
    assert len(logprobs(random_logits(1, 20), draw(top_logprobs=count))[1].top) == count


def test_no_logprobs_unless_asked_for() -> None:
    assert sample(random_logits(1, 20), [draw(temperature=0.0)]) == [
        Sample(int(random_logits(1, 20).argmax()))
    ]


def test_logprobs_are_those_before_any_modifier() -> None:
    logits = random_logits(1, 20)
    plain = draw((1,), (2,), temperature=0.0, top_logprobs=20)
    bent = replace(plain.params, logit_bias=((3, 50.0),), presence_penalty=2.0)
    (token, found), (_, expected) = (
        logprobs(logits, replace(plain, params=bent)),
        logprobs(logits, plain),
    )
    assert token == 3
    assert found.top == expected.top
    assert found.logprob == dict(expected.top)[3]
