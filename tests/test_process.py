"""The engine in a process of its own: the same answers, and a server that outlives it."""

import asyncio
import errno
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamtok import app
from streamtok.api.more.routes import ROUTES
from streamtok.api.routing import Api
from streamtok.clock import SystemClock
from streamtok.config import EngineConfig, ServeConfig
from streamtok.engine.commands import Addressed, Close
from streamtok.engine.remote import child, restarts
from streamtok.engine.remote.child import ServerConnection
from streamtok.engine.remote.frames import Frames, frame, pack, unpack
from streamtok.engine.remote.process import ProcessEngine, start_engine
from streamtok.engine.remote.spawn import ChildProcess
from streamtok.errors import ConfigError, EngineFailed, ModelError, Unavailable
from streamtok.http.request import Request
from streamtok.ledger import Ledger
from streamtok.messages import (
    EngineStats,
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
from streamtok.testing import local_engine

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
    local = local_engine(load(tiny_model), config(tiny_model))
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


async def test_if_it_dies_streams_go_on_in_its_replacement(engine: ProcessEngine) -> None:
    whole = [event async for event in engine.submit("whole", [request(1, max_tokens=100)])]
    running = engine.submit("running", [request(1, max_tokens=100)])
    got = [await anext(running) for _ in range(5)]
    before = engine.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    got += [event async for event in running]
    assert tokens_and_end(got) == tokens_and_end(whole)
    assert len(got) == len(whole)  # what had been told was not told again
    assert engine.pid != before
    assert engine.stats() == EngineStats(0, 0, restarts=1, resumed=1)


def tokens_and_end(events: Sequence[Event | Waiting]) -> list[Event | Waiting]:
    return [event for event in events if not isinstance(event, Started | Prefilled)]


async def test_if_it_dies_again_and_again_its_streams_still_go_on(engine: ProcessEngine) -> None:
    whole = [event async for event in engine.submit("whole", [request(1, max_tokens=100)])]
    running = engine.submit("running", [request(1, max_tokens=100)])
    got: list[Event | Waiting] = []
    pids = set()
    async for event in running:
        got.append(event)
        if engine.pid and len(got) in (10, 20, 30):
            pids.add(engine.pid)
            os.kill(engine.pid, signal.SIGKILL)
    assert tokens_and_end(got) == tokens_and_end(whole)
    assert engine.pid not in pids


async def test_closing_ends_streams_and_the_process(engine: ProcessEngine) -> None:
    stream = engine.submit("a", [request(1, max_tokens=100)])
    await anext(stream)
    assert engine._child is not None
    process = engine._child._process
    await engine.close()
    end = [event async for event in stream][-1]
    assert isinstance(end, Failed)
    assert isinstance(end.error, Unavailable)
    assert process.returncode == 0
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
        assert list(ServerConnection(engine).take(True)) == [Close()]


def test_an_engine_whose_starter_is_gone_ends_quietly() -> None:
    server, engine = socket.socketpair()
    with engine:
        server.close()
        child.main(ServerConnection(engine))


def test_it_runs_on_uvloop_too(tiny_model: Path) -> None:
    async def ask() -> list[Event]:
        engine = await start_engine(config(tiny_model), None)
        events = [event async for event in engine.submit("a", [request(1, max_tokens=3)])]
        await engine.close()
        return [event for event in events if not isinstance(event, Waiting)]

    events = pytest.importorskip("uvloop").run(ask())
    assert events[-1] == Finished(0, "length", 3)


# Starts that fail


class Popens:
    """Replaces `subprocess.Popen`: fails as often as it is told to, and keeps what it has made."""

    def __init__(self, *errors: OSError) -> None:
        self.errors = list(errors)
        self.made: list[subprocess.Popen[bytes]] = []
        self.called = asyncio.Event()
        self._popen = subprocess.Popen

    def __call__(self, *arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        if self.errors:
            raise self.errors.pop(0)
        self.called.set()
        self.made.append(self._popen(*arguments, **options))
        return self.made[-1]


async def test_a_process_that_cannot_be_replaced_at_once_is_tried_again(
    engine: ProcessEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = [event async for event in engine.submit("whole", [request(1, max_tokens=60)])]
    monkeypatch.setattr(restarts, "FIRST_DELAY_S", 0.01)
    popens = Popens(OSError(errno.ENOMEM, "no memory"), OSError(errno.EMFILE, "no files"))
    monkeypatch.setattr("subprocess.Popen", popens)
    running = engine.submit("running", [request(1, max_tokens=60)])
    got = [await anext(running) for _ in range(5)]
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    got += [event async for event in running]
    assert tokens_and_end(got) == tokens_and_end(whole)
    assert not popens.errors
    assert "no memory" in caplog.text
    assert "no files" in caplog.text


async def test_a_first_start_that_fails_says_why(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subprocess.Popen", Popens(OSError(errno.EAGAIN, "no processes")))
    with pytest.raises(EngineFailed, match=r"cannot be started: .*no processes"):
        await start_engine(config(tiny_model), None)


async def test_a_start_that_is_cancelled_leaves_no_process(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    popens = Popens()
    monkeypatch.setattr("subprocess.Popen", popens)
    starting = asyncio.ensure_future(start_engine(config(tiny_model), None))
    await popens.called.wait()
    starting.cancel()
    await asyncio.wait([starting])
    assert starting.cancelled()
    assert popens.made[0].returncode is not None


@pytest.mark.parametrize("error", [ModelError("it cannot be computed"), asyncio.CancelledError()])
async def test_a_warm_up_that_fails_leaves_no_process(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    popens = Popens()
    monkeypatch.setattr("subprocess.Popen", popens)
    monkeypatch.setattr("streamtok.app.warm_up", AsyncMock(side_effect=error))
    with pytest.raises(type(error)):
        await app.load(ServeConfig(model=str(tiny_model)), Ledger(":memory:"), SystemClock())
    assert popens.made[0].returncode == 0


async def test_health_and_metrics_say_that_the_engine_is_restarting(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, ledger = SystemClock(), Ledger(":memory:")
    services = await app.load(ServeConfig(model=str(tiny_model)), ledger, clock)
    api, engine = Api(ROUTES), services.engine
    api.open(services)
    assert isinstance(engine, ProcessEngine)
    assert await get(api, "/health") == (200, b'{"status":"ok"}')
    down, again = asyncio.Event(), asyncio.Event()
    spawn = engine._spawn

    async def wait_and_spawn() -> ChildProcess:
        down.set()
        await again.wait()
        return await spawn()

    monkeypatch.setattr(engine, "_spawn", wait_and_spawn)
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    await down.wait()
    assert await get(api, "/health") == (503, b'{"status":"restarting"}')
    waiting = asyncio.ensure_future(_drain(engine, "waiting"))
    again.set()
    await waiting
    assert await get(api, "/health") == (200, b'{"status":"ok"}')
    metrics = (await get(api, "/metrics"))[1].decode()
    assert "streamtok_engine_restarts_total 1.0" in metrics
    assert "streamtok_resumed_streams_total 0.0" in metrics
    await engine.close()
    await services.meter.close()


async def get(api: Api, path: str) -> tuple[int, bytes]:
    answer = await api.handle(Request("GET", path, (), b"", "1.1", "test"))
    assert isinstance(answer.body, bytes)
    return answer.status, answer.body
