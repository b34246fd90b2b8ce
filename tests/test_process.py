"""The engine in a process of its own: the same answers, and a server that outlives it."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamtok.config import EngineConfig
from streamtok.engine.core import Close
from streamtok.engine.local import LocalEngine
from streamtok.engine.remote import child, process
from streamtok.engine.remote.child import Line
from streamtok.engine.remote.frames import Frames, frame, pack, unpack
from streamtok.engine.remote.process import ProcessEngine, start_engine
from streamtok.engine.scheduler import Addressed
from streamtok.errors import ConfigError, EngineFailed, ModelError, Unavailable
from streamtok.messages import (
    Event,
    Failed,
    Finished,
    Prefilled,
    SamplingParams,
    SequenceRequest,
    Started,
    TokenEvent,
    TokenLogprobs,
    Waiting,
)
from streamtok.model.load import load

EVENTS: list[Event] = [
    Started(0),
    Prefilled(1, 16),
    TokenEvent(0, 7),
    TokenEvent(2, 9, TokenLogprobs(-0.5, ((9, -0.5),))),
    Finished(0, "stop", 3, TokenEvent(0, 1)),
]


def config(folder: Path, **settings: int) -> EngineConfig:
    return EngineConfig(model=str(folder), max_streams=4, step_tokens=16, **settings)


@pytest.fixture
async def engine(tiny_model: Path) -> AsyncIterator[ProcessEngine]:
    engine = await start_engine(config(tiny_model), None)
    yield engine
    await engine.close()


def request(seed: int, max_tokens: int = 30, logprobs: int | None = None) -> SequenceRequest:
    params = SamplingParams(seed=seed, top_logprobs=logprobs)
    return SequenceRequest(0, tuple(range(seed, seed + 20)), params, max_tokens)


@given(st.lists(st.tuples(st.text(max_size=3), st.sampled_from(EVENTS))), st.data())
def test_messages_come_out_as_they_went_in_however_they_are_cut(
    events: list[Addressed], data: st.DataObject
) -> None:
    sent = frame(pack(events)) + frame("last")
    frames, got, start = Frames(), [], 0
    while start < len(sent):
        stop = data.draw(st.integers(start + 1, len(sent)))
        got += frames.feed(sent[start:stop])
        start = stop
    assert [list(unpack(got[0])), got[1:]] == [events, ["last"]]


async def test_it_says_what_the_engine_in_a_thread_says(
    engine: ProcessEngine, tiny_model: Path
) -> None:
    local = LocalEngine(load(tiny_model), config(tiny_model))
    assert (engine.context, engine.vocab, engine.streams) == (128, 261, 4)
    assert engine.fingerprint == local.fingerprint
    for seed, logprobs in ((1, None), (2, 3)):
        told = [
            [event async for event in one.submit("a", [request(seed, logprobs=logprobs)])]
            for one in (engine, local)
        ]
        assert told[0] == told[1]
        assert len(told[0]) == 33
    await local.close()


async def test_if_it_dies_streams_fail_and_another_takes_its_place(engine: ProcessEngine) -> None:
    whole = [event async for event in engine.submit("whole", [request(1)])]
    running = engine.submit("running", [request(1, max_tokens=100)])
    got = [await anext(running) for _ in range(5)]
    before = engine.pid
    os.kill(before, signal.SIGKILL)
    got += [event async for event in running]
    failed = got[-1]
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, EngineFailed)
    assert failed.generated == sum(isinstance(event, TokenEvent) for event in got)
    assert engine.stats().running == engine.stats().queued == 0
    with pytest.raises(Unavailable, match="being started again"):
        engine.submit("too early", [request(1)])
    assert engine._restarting is not None
    await engine._restarting
    assert engine.pid != before
    assert [event async for event in engine.submit("after", [request(1)])] == whole


async def test_if_it_dies_again_and_again_it_is_given_time(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "FIRST_DELAY_S", 0.01)
    engine = await start_engine(config(tiny_model), None)
    pids = {engine.pid}
    for _ in range(3):
        os.kill(engine.pid, signal.SIGKILL)
        stream = engine.submit("running", [request(1)]) if not engine.refused else []
        async for _ in stream:  # until it is noticed
            pass
        assert engine._restarting is not None
        await engine._restarting
        pids.add(engine.pid)
    assert len(pids) == 4
    assert [event async for event in engine.submit("after", [request(1)])][-1] == Finished(
        0, "length", 30
    )
    await engine.close()


async def test_closing_ends_streams_and_the_process(engine: ProcessEngine) -> None:
    stream = engine.submit("a", [request(1, max_tokens=100)])
    await anext(stream)
    await engine.close()
    end = [event async for event in stream][-1]
    assert isinstance(end, Failed)
    assert isinstance(end.error, Unavailable)
    assert engine._line.process.returncode == 0
    with pytest.raises(Unavailable, match="shutting down"):
        engine.submit("b", [request(1)])


async def test_what_is_wrong_with_a_model_is_told(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere.config\.json: cannot be read"):
        await start_engine(config(tmp_path / "nowhere"), None)
    with pytest.raises(ConfigError, match="--kv-memory"):
        await start_engine(config(tiny_model, kv_memory=1), None)


async def test_a_slow_reader_is_paused_and_goes_on_where_it_was(engine: ProcessEngine) -> None:
    slow = engine.submit("slow", [request(1, max_tokens=100)])
    await asyncio.gather(*(_drain(engine, f"other {i}") for i in range(3)))
    assert slow.unread <= 65
    events = [event async for event in slow]
    assert events[-1] == Finished(0, "length", 100)


async def _drain(engine: ProcessEngine, name: str) -> None:
    async for _ in engine.submit(name, [request(2, max_tokens=100)]):
        pass


def test_a_line_whose_other_end_breaks_off_ends_quietly() -> None:
    server, engine = socket.socketpair()
    with engine:
        engine.sendall(b"never read")
        server.close()  # which resets the connection, as something was not read
        assert list(Line(engine).take(True)) == [Close()]


def test_an_engine_whose_starter_is_gone_ends_quietly() -> None:
    server, engine = socket.socketpair()
    with engine:
        server.close()
        child.main(Line(engine))


def test_it_runs_on_uvloop_too(tiny_model: Path) -> None:
    async def ask() -> list[Event]:
        engine = await start_engine(config(tiny_model), None)
        events = [event async for event in engine.submit("a", [request(1, max_tokens=3)])]
        await engine.close()
        return [event for event in events if not isinstance(event, Waiting)]

    events = pytest.importorskip("uvloop").run(ask())
    assert events[-1] == Finished(0, "length", 3)
