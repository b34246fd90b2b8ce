"""The queue between engine and writer: asyncio's own, bounded, and its bound is what pauses."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamtok.config import EngineConfig
from streamtok.engine.base import TokenStream
from streamtok.engine.commands import HIGH_WATER, LOW_WATER, STEP_EVENTS
from streamtok.engine.local import LocalEngine
from streamtok.messages import (
    Event,
    Finished,
    Prefilled,
    SamplingParams,
    SequenceRequest,
    Started,
    TokenEvent,
)
from streamtok.model.load import load
from streamtok.testing import local_engine

PROMPT = (5, 6, 7, 5, 6, 7, 5, 6)  # repeats itself, so that the engine guesses what follows


@pytest.fixture
async def engine(tiny_model: Path) -> AsyncIterator[LocalEngine]:
    engine = local_engine(load(tiny_model), EngineConfig(max_streams=8, max_queue=40))
    yield engine
    await engine.close()


def request(index: int = 0, max_tokens: int = 100) -> SequenceRequest:
    return SequenceRequest(index, PROMPT, SamplingParams(temperature=0.0), max_tokens)


async def pause(engine: LocalEngine, stream: TokenStream) -> int:
    """Return how many events are unread once the engine makes no more, while it serves others."""
    unread = -1
    while unread != stream.unread:
        unread = stream.unread
        for _ in range(3):
            other = engine.submit(f"other-{id(object())}-{unread}", [request(max_tokens=3)])
            assert isinstance([event async for event in other][-1], Finished)
    return unread


@pytest.mark.parametrize("choices", [1, 3])
async def test_a_stream_nobody_reads_is_paused_when_its_queue_might_not_hold_another_step(
    engine: LocalEngine, choices: int
) -> None:
    stream = engine.submit("slow", [request(index) for index in range(choices)])
    assert isinstance(stream.queue, asyncio.Queue)
    unread = await pause(engine, stream)
    room = stream.queue.maxsize - unread
    assert 0 < room < choices * STEP_EVENTS
    got = [await anext(stream) for _ in range(unread - LOW_WATER - 1)]
    assert await pause(engine, stream) == LOW_WATER + 1  # it does not go on yet
    got += [event async for event in stream]
    tokens = [event for event in got if isinstance(event, TokenEvent)]
    assert len(tokens) == 100 * choices


async def test_a_step_puts_into_all_queues_in_one_crossing(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    crossings = 0
    cross = asyncio.get_running_loop().call_soon_threadsafe

    def counted(callback: Callable[..., Any], *arguments: Any) -> asyncio.Handle:
        nonlocal crossings
        crossings += 1
        return cross(callback, *arguments)

    monkeypatch.setattr(asyncio.get_running_loop(), "call_soon_threadsafe", counted)

    async def read(name: str) -> list[Event]:
        return [e async for e in engine.submit(name, [request(max_tokens=40)])]

    answers = await asyncio.gather(*(read(f"stream-{number}") for number in range(8)))
    events = sum(map(len, answers))
    assert events >= 8 * 43
    assert crossings <= events / 4  # some steps have fewer than eight, at the beginning and the end


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_what_is_put_is_taken_in_order_and_reported_in_time(bites: list[int]) -> None:
    """A reader of any rhythm, against an engine that fills the queue as far as it may."""

    async def run() -> None:
        told = 0

        def on_read(count: int) -> None:
            nonlocal told
            told = count

        stream = TokenStream(1, on_read)
        put, got = 0, []
        for bite in bites:
            while put - told <= HIGH_WATER:  # what the engine knows of the queue
                for _ in range(STEP_EVENTS - 1):
                    stream.put(TokenEvent(0, put))
                    put += 1
            for _ in range(bite):
                event = await anext(stream)
                assert isinstance(event, TokenEvent)
                got.append(event.token_id)
        assert got == list(range(len(got)))

    asyncio.run(run())


def test_the_end_of_every_sequence_ends_the_stream() -> None:
    async def run() -> None:
        stream = TokenStream(2, lambda _: None)
        ends = [Finished(1, "stop", 0), Started(0), Prefilled(0, 0), Finished(0, "length", 0)]
        for event in ends:
            stream.put(event)
        assert [event async for event in stream] == ends

    asyncio.run(run())


async def test_no_event_finds_its_queue_full(engine: LocalEngine) -> None:
    """Readers of all rhythms, many choices, cancelled ones: nothing is lost, nothing overflows."""
    dice = random.Random(4)
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))

    async def read(name: str) -> None:
        choices = dice.choice([1, 1, 2, 5])
        stream = engine.submit(
            name, [request(index, dice.randint(1, 110)) for index in range(choices)]
        )
        pause, leaves = dice.choice([0, 1, 20]), dice.choice([0, 0, 30, 70])
        ends = set()
        async for event in stream:
            for _ in range(dice.randint(0, pause)):
                await asyncio.sleep(0)
            assert stream.unread < stream.queue.maxsize
            if isinstance(event, Finished):
                ends.add(event.index)
            if stream.taken == leaves:
                engine.cancel(name, dice.choice([None, 0]))
        assert ends == set(range(choices))

    await asyncio.gather(*(read(f"stream-{number}") for number in range(12)))
    assert not problems
