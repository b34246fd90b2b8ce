"""Log-probabilities of a prompt's own tokens: the reference's, however the prompt is cut."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamtok.config import EngineConfig
from streamtok.engine.extras.logprobs import logprobs
from streamtok.engine.local import LocalEngine
from streamtok.engine.plan import Plan, Sample
from streamtok.engine.scheduler import Scheduler
from streamtok.errors import EngineFailed
from streamtok.messages import (
    Event,
    Failed,
    Finished,
    PromptScored,
    SamplingParams,
    SequenceRequest,
    Started,
    TokenEvent,
    TokenLogprobs,
)
from streamtok.model import reference
from streamtok.model.load import load, read_weights
from streamtok.testing import local_engine

PROMPT = tuple(int(token) for token in np.random.default_rng(5).integers(0, 256, 50))


@asynccontextmanager
async def engine_of(folder: Path, step_tokens: int) -> AsyncIterator[LocalEngine]:
    config = EngineConfig(max_streams=4, max_queue=40, step_tokens=step_tokens)
    engine = local_engine(load(folder), config)
    try:
        yield engine
    finally:
        await engine.close()


def request(
    prompt: tuple[int, ...] = PROMPT, max_tokens: int = 0, index: int = 0, top: int = 2
) -> SequenceRequest:
    params = SamplingParams(temperature=0.0, top_logprobs=top)
    return SequenceRequest(index, prompt, params, max_tokens, prompt_logprobs=True)


async def events(engine: LocalEngine, name: str, *requests: SequenceRequest) -> list[Event]:
    return [event async for event in engine.submit(name, requests)]


def scores(events: list[Event], index: int = 0) -> list[TokenLogprobs]:
    """Return the scores of a sequence's prompt."""
    found = [e for e in events if isinstance(e, PromptScored) and e.index == index]
    return [score for event in found for score in event.logprobs]


@pytest.fixture(scope="module")
def expected(tiny_model: Path) -> np.ndarray:
    """What the reference says of each next token, in double precision: [T, V]."""
    config, tensors = read_weights(tiny_model)
    weights = {name: tensor.astype(float) for name, tensor in tensors.items()}
    logits = reference.logits(config, weights, PROMPT)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("step_tokens", [1, 7, 49, 50, 128])
async def test_scores_are_the_references_however_the_prompt_is_cut(
    tiny_model: Path, expected: np.ndarray, step_tokens: int
) -> None:
    async with engine_of(tiny_model, step_tokens) as engine:
        got = await events(engine, "a", request(max_tokens=1))
    assert got[0] == Started(0)
    assert [type(event) for event in got[-2:]] == [TokenEvent, Finished]
    assert len(scores(got)) == len(PROMPT) - 1
    for row, token, score in zip(expected, PROMPT[1:], scores(got), strict=False):
        assert score.logprob == pytest.approx(row[token], abs=2e-5)
        assert [i for i, _ in score.top] == list(np.argsort(-row)[:2])
        assert [value for _, value in score.top] == pytest.approx(sorted(row)[:-3:-1], abs=2e-5)


async def test_scores_are_the_same_to_the_bit_in_any_cut_and_any_company(tiny_model: Path) -> None:
    alone = []
    for step_tokens in (3, 128):
        async with engine_of(tiny_model, step_tokens) as engine:
            alone.append(scores(await events(engine, "alone", request())))
    async with engine_of(tiny_model, 11) as engine:
        others = [
            events(engine, "other", request(PROMPT[::-1], 20), request(PROMPT[:9], 20, 1)),
            events(engine, "mine", request(PROMPT[3:7], 5, 0), request(index=1)),
        ]
        together = scores((await asyncio.gather(*others))[1], 1)
    assert alone[0] == alone[1] == together


async def test_a_prompt_alone_is_computed_and_nothing_drawn(tiny_model: Path) -> None:
    async with engine_of(tiny_model, 16) as engine:
        assert (await events(engine, "a", request()))[-1] == Finished(0, "length", 0)
        single = await events(engine, "b", request(PROMPT[:1]))
        assert single == [Started(0), Finished(0, "length", 0)]
        assert engine.stats().running == 0


async def test_a_drawn_token_and_one_of_a_prompt_are_scored_alike(tiny_model: Path) -> None:
    async with engine_of(tiny_model, 16) as engine:
        got = await events(engine, "a", request(max_tokens=8))
        drawn = [event for event in got if isinstance(event, TokenEvent)]
        ids = tuple(event.token_id for event in drawn)
        again = scores(await events(engine, "b", request(PROMPT + ids)))
    assert again[-8:] == [event.logprobs for event in drawn]


async def test_a_prompt_whose_scores_are_not_finite_fails(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engine_of(tiny_model, 16) as engine:
        run: Callable[..., tuple[np.ndarray, np.ndarray]] = engine._core._runner.run

        def spoilt(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
            logits, states = run(plan)
            return logits * np.float32("nan"), states

        monkeypatch.setattr(engine._core._runner, "run", spoilt)
        end = (await events(engine, "a", request()))[-1]
        assert isinstance(end, Failed)
        assert isinstance(end.error, EngineFailed)
        monkeypatch.undo()
        assert (await events(engine, "b", request()))[-1] == Finished(0, "length", 0)


def test_the_scheduler_asks_for_scores_of_the_prompt_alone() -> None:
    """Rows that no token of the prompt follows are not computed but where one is drawn."""
    scheduler = Scheduler(streams=1, step_tokens=4)
    scheduler.add("a", [request(PROMPT[:9], 2)])
    steps = []
    for _ in range(4):
        plan = scheduler.plan()
        (work,) = plan.works
        steps.append((work.count, work.scored, work.sampled, work.rows, len(work.scored_ids)))
        scored: list[tuple[TokenLogprobs, ...]] = [()] * work.scored
        scheduler.commit(plan, [[Sample(1)]] * work.sampled, scored)
    assert steps == [
        (4, True, False, 4, 4),
        (4, True, False, 4, 4),
        (1, False, True, 1, 0),
        (1, False, True, 1, 0),
    ]


def test_an_error_in_a_score_ends_its_sequence_once() -> None:
    scheduler, error = Scheduler(streams=1, step_tokens=99), EngineFailed("not finite")
    scheduler.add("a", [request(max_tokens=2)])
    assert scheduler.commit(scheduler.plan(), [[Sample(1)]], [error]) == [
        ("a", Failed(0, error, 0))
    ]
    assert scheduler.plan().works == ()


@given(
    rows=st.lists(st.lists(st.integers(-3, 3), min_size=6, max_size=6), min_size=1, max_size=4),
    count=st.integers(0, 8),
)
def test_the_likeliest_are_in_order_and_among_equals_the_lower_id_comes_first(
    rows: list[list[int]], count: int
) -> None:
    found = logprobs(np.array(rows, np.float32), [2] * len(rows), count)
    for row, one in zip(rows, found, strict=True):
        ids = sorted(range(6), key=lambda i: (-row[i], i))[:count]
        total = np.log(np.exp(np.array(row, float)).sum())
        assert [i for i, _ in one.top] == ids
        assert [value for _, value in one.top] == pytest.approx([row[i] - total for i in ids])
        assert one.logprob == pytest.approx(row[2] - total)
        assert 2 not in ids or dict(one.top)[2] == one.logprob
