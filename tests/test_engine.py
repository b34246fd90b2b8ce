"""The engine in its thread: the same tokens in any company, one end, quick cancelling."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from streamtok.config import EngineConfig
from streamtok.engine.commands import HIGH_WATER
from streamtok.engine.local import LocalEngine
from streamtok.errors import EngineFailed, InvalidRequest, Unavailable
from streamtok.messages import (
    Event,
    Failed,
    Finished,
    Prefilled,
    SamplingParams,
    SequenceRequest,
    Started,
    TokenEvent,
)
from streamtok.model.load import load
from streamtok.testing import local_engine


@pytest.fixture
async def engine(tiny_model: Path) -> AsyncIterator[LocalEngine]:
    config = EngineConfig(max_streams=4, max_queue=40, step_tokens=16)
    engine = local_engine(load(tiny_model), config)
    yield engine
    await engine.close()


def request(seed: int, index: int = 0, max_tokens: int = 30, **sampling: float) -> SequenceRequest:
    prompt = tuple(int(t) for t in np.random.default_rng(seed).integers(0, 256, 5 + 7 * seed % 60))
    params = SamplingParams(seed=seed, **sampling)
    return SequenceRequest(index, prompt, params, max_tokens)


async def events(engine: LocalEngine, name: str, *requests: SequenceRequest) -> list[Event]:
    """Return all events but how much of a prompt was there already, which differs."""
    stream = engine.submit(name, requests)
    return [event async for event in stream if not isinstance(event, Prefilled)]


async def test_events_come_in_order_and_end_once(engine: LocalEngine) -> None:
    got = await events(engine, "a", request(1))
    assert got[0] == Started(0)
    assert all(isinstance(event, TokenEvent) for event in got[1:-1])
    assert got[-1] == Finished(0, "length", 30)
    assert len(got) == 32
    stream = engine.submit("b", [request(1)])
    assert [await anext(stream) for _ in range(2)] == [Started(0), Prefilled(0, 0)]


@pytest.mark.parametrize("sampling", [{"temperature": 0.0}, {"top_p": 0.9, "top_k": 50}])
async def test_streams_are_the_same_alone_and_together(
    engine: LocalEngine, sampling: dict[str, float]
) -> None:
    """Twenty requests through four places: each gives exactly what it gives alone."""
    requests = [request(seed, **sampling) for seed in range(20)]
    alone = [await events(engine, f"alone-{i}", r) for i, r in enumerate(requests)]
    together = await asyncio.gather(
        *(events(engine, f"together-{i}", r) for i, r in enumerate(requests))
    )
    assert together == alone


@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_no_stop_id_is_drawn_before_min_tokens(
    engine: LocalEngine, temperature: float
) -> None:
    """Any token but one would end it: so that one is all there is to draw until then."""
    plain = request(3, temperature=temperature)
    others = frozenset(range(261)) - {65}
    got = await events(
        engine,
        "least",
        SequenceRequest(0, plain.prompt_ids, plain.sampling, 30, stop_ids=others, min_tokens=4),
    )
    assert got[1:5] == [TokenEvent(0, 65)] * 4
    assert isinstance(got[-1], Finished)
    assert got[-1].generated >= 5


async def test_a_stop_id_ends_a_sequence_and_is_told_as_its_end(engine: LocalEngine) -> None:
    free = await events(engine, "free", request(3))
    third = free[3]
    assert isinstance(third, TokenEvent)
    first = next(
        i for i, e in enumerate(free) if isinstance(e, TokenEvent) and e.token_id == third.token_id
    )
    plain = request(3)
    stopping = SequenceRequest(
        0, plain.prompt_ids, plain.sampling, 30, stop_ids=frozenset({third.token_id})
    )
    stopped = await events(engine, "stopped", stopping)
    assert stopped == [*free[:first], Finished(0, "stop", first, third)]


async def test_cancelling_ends_before_the_next_step(engine: LocalEngine) -> None:
    stream = engine.submit("a", [request(1, max_tokens=100)])
    got: list[Event] = []
    async for event in stream:
        got.append(event)
        if len(got) == 3:
            engine.cancel("a")
    end = got[-1]
    assert isinstance(end, Finished)
    assert end.reason == "cancelled"
    assert end.generated < 100  # however late this thread comes to its turn
    assert engine.stats().running == 0


async def test_one_sequence_of_a_request_can_be_cancelled(engine: LocalEngine) -> None:
    stream = engine.submit("a", [request(1, 0, max_tokens=60), request(2, 1, max_tokens=60)])
    engine.cancel("a", 1)
    ends = [event async for event in stream if isinstance(event, Finished)]
    assert {(end.index, end.reason) for end in ends} == {(0, "length"), (1, "cancelled")}


async def test_a_waiting_request_can_be_cancelled(engine: LocalEngine) -> None:
    running = engine.submit("running", [request(i, i, max_tokens=100) for i in range(4)])
    waiting = engine.submit("waiting", [request(9)])
    engine.cancel("waiting")
    assert [event async for event in waiting] == [Finished(0, "cancelled", 0)]
    engine.cancel("running")
    assert [e async for e in running if isinstance(e, Finished)]


async def test_a_full_queue_refuses_and_names_the_numbers(engine: LocalEngine) -> None:
    stream = engine.submit("many", [request(1, i, max_tokens=100) for i in range(44)])
    with pytest.raises(Unavailable, match="44 sequences run or wait already, of 44") as caught:
        engine.submit("more", [request(2)])
    assert caught.value.code == "queue_full"
    assert 1 <= caught.value.retry_after_s <= 120
    engine.cancel("many")
    assert [event async for event in stream][-1].index in range(44)
    assert (await events(engine, "more", request(2)))[-1] == Finished(0, "length", 30)


async def test_a_slow_reader_is_paused_and_loses_nothing(engine: LocalEngine) -> None:
    expected = await events(engine, "fast", request(1, max_tokens=90))
    slow = engine.submit("slow", [request(1, max_tokens=90)])
    got = [await anext(slow)]
    while slow.unread < HIGH_WATER:  # others are served meanwhile
        await events(engine, f"other-{slow.unread}", request(2, max_tokens=1))
    for number in range(5):
        await events(engine, f"beside-{number}", request(3))
    assert slow.unread == HIGH_WATER
    got += [event async for event in slow if not isinstance(event, Prefilled)]
    assert got == expected


async def test_close_fails_what_runs_and_waits(engine: LocalEngine) -> None:
    streams = [engine.submit(str(i), [request(i, max_tokens=120)]) for i in range(6)]
    await anext(streams[0])
    await engine.close()
    for stream in streams:
        end = [event async for event in stream][-1]
        assert isinstance(end, Failed)
        assert isinstance(end.error, Unavailable)
    with pytest.raises(Unavailable, match="shutting down"):
        engine.submit("late", [request(1)])


async def test_a_step_that_raises_fails_its_sequences_and_no_others(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = await events(engine, "before", request(1))
    with monkeypatch.context() as patch:
        patch.setattr("streamtok.engine.runner.Runner.run", lambda *_: 1 / 0)
        end = (await events(engine, "during", request(1)))[-1]
    assert isinstance(end, Failed)
    assert isinstance(end.error, EngineFailed)
    assert "ZeroDivisionError" in caplog.text
    assert await events(engine, "after", request(1)) == before


async def test_scores_that_are_not_finite_fail_one_sequence_and_leave_no_trace(
    engine: LocalEngine,
) -> None:
    good, bad = request(1), request(1, 1)
    before = await events(engine, "before", good)
    biased = SamplingParams(temperature=0.0, seed=1)
    broken = SequenceRequest(1, bad.prompt_ids, biased, 30)
    compute = engine._core._runner._decoder.compute

    def poisoned(cache, segments):  # type: ignore[no-untyped-def]
        found = compute(cache, segments)
        cache.layers[0][0][1] = np.nan
        return found

    engine._core._runner._decoder.compute = poisoned  # type: ignore[method-assign]
    got = await events(engine, "poisoned", good, broken)
    engine._core._runner._decoder.compute = compute  # type: ignore[method-assign]
    failed = [event for event in got if isinstance(event, Failed)]
    assert [event.index for event in failed] == [1]
    assert "finite" in failed[0].error.message
    assert [e for e in got if e.index == 0] == before
    pair = await events(engine, "after", good, bad)
    assert [e for e in pair if e.index == 0] == before
    assert pair[-1] == Finished(1, "length", 30) or pair[-1] == Finished(0, "length", 30)


async def test_a_request_that_never_fits_is_told_so(engine: LocalEngine) -> None:
    with pytest.raises(InvalidRequest, match=r"45 sequences are asked for; .* room for 44"):
        engine.submit("many", [request(1, i) for i in range(45)])
