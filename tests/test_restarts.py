"""The engine's process dies, is replaced, cannot be replaced, is closed: in any order.

Every sequence has one end, its tokens are those of an undisturbed run, and nothing hangs. The
processes are played by real engine cores in this process, so that time passes and processes end
when the test says so.
"""

import asyncio
import errno
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from examples import examples
from hypothesis import Phase
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec import structs
from msgspec.structs import replace

from streamtok.config import EngineConfig
from streamtok.engine.commands import Addressed, Close, EngineInfo, Read, Submit
from streamtok.engine.core import EngineCore
from streamtok.engine.extras import all_extras
from streamtok.engine.remote.journal import TWICE
from streamtok.engine.remote.process import PATIENCE_S, ProcessEngine
from streamtok.engine.remote.restarts import FIRST_DELAY_S, LAST_DELAY_S, STEADY_S, Restarts
from streamtok.errors import EngineFailed, ModelError, Unavailable
from streamtok.messages import (
    Event,
    Failed,
    Finished,
    Prefilled,
    PromptScored,
    SamplingParams,
    SequenceRequest,
    TokenEvent,
    Waiting,
)
from streamtok.model.base import Decoder
from streamtok.model.load import load
from streamtok.testing import write_model

CONFIG = EngineConfig(max_streams=3, max_queue=20, step_tokens=16)
PLENTY = 10**6
FAULTS = (
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    OSError(errno.EMFILE, "Too many open files"),
    EngineFailed("the engine's process ended before it was ready"),
    ModelError("model.safetensors: cannot be read"),
)


@cache
def decoder() -> Decoder:
    with TemporaryDirectory() as folder:
        return load(write_model(Path(folder) / "tiny"))


def make_core() -> EngineCore:
    return EngineCore(decoder(), CONFIG, all_extras())


REQUESTS = st.builds(
    SequenceRequest,
    index=st.just(0),
    prompt_ids=st.integers(1, 60).map(lambda n: tuple(range(n, 2 * n + 1))),
    sampling=st.builds(
        SamplingParams,
        temperature=st.sampled_from([0.0, 1.0]),
        frequency_penalty=st.sampled_from([0.0, 0.8]),
        repetition_penalty=st.sampled_from([1.0, 1.2]),
        seed=st.integers(0, 3),
        top_logprobs=st.just(1),
    ),
    max_tokens=st.integers(0, 40),
    stop_ids=st.sampled_from([frozenset(), frozenset(range(20))]),
    min_tokens=st.sampled_from([0, 6]),
    prompt_logprobs=st.booleans(),
    client=st.sampled_from("ab"),
)


@cache
def undisturbed(request: SequenceRequest) -> tuple[Event | Waiting, ...]:
    """Return the events of a request that nothing interrupts."""
    events: list[Addressed] = []
    core = make_core()
    core.execute(Submit("r", (request,)), events.extend)
    core.execute(Read("r", PLENTY), events.extend)
    while core.step(events.extend):
        pass
    return joined(event for _, event in events)


def joined(events: Iterable[Event | Waiting]) -> tuple[Event | Waiting, ...]:
    """Return `events` with all scores of a prompt in one, which steps may divide differently.

    Nor is it told how much of the prompt was computed already.
    """
    found: list[Event | Waiting] = []
    for event in events:
        last = found[-1] if found else None
        if isinstance(event, PromptScored) and isinstance(last, PromptScored):
            found[-1] = structs.replace(last, logprobs=last.logprobs + event.logprobs)
        else:
            found.append(
                structs.replace(event, cached=0) if isinstance(event, Prefilled) else event
            )
    return tuple(found)


class PlayedProcess:
    """An engine's process as `ProcessEngine` sees it: steps and ends when a test says so."""

    pid = 1

    def __init__(self) -> None:
        self.receive: Callable[[Iterable[Addressed]], None] = lambda _: None
        self._core = make_core()
        self.info: EngineInfo = self._core.info
        self._status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def alive(self) -> bool:
        return not self._status.done()

    def send(self, message: Any) -> None:
        if self.alive and not isinstance(message, Close):
            self._core.execute(message, self._post)

    def step(self) -> bool:
        return self._core.step(self._post)

    def die(self) -> None:
        self._status.set_result(-9)

    async def wait(self) -> int:
        return await asyncio.shield(self._status)

    async def close(self) -> None:
        if self.alive:
            self._post(self._core._scheduler.fail(Unavailable("closed")))
            await asyncio.sleep(0)  # they are read before the end of the connection
            self.die()

    def _post(self, events: Iterable[Addressed]) -> None:
        events = list(events)
        if events:  # as if read from a socket
            asyncio.get_running_loop().call_soon(lambda: self.receive(events))


class Reader:
    """Reads a stream, as many events as it is allowed to."""

    def __init__(self, stream: Any, requests: list[SequenceRequest]) -> None:
        self.requests = requests
        self.events: list[Event | Waiting] = []
        self.cancelled: set[int] = set()
        self.allowed = asyncio.Semaphore(0)
        self.task = asyncio.get_running_loop().create_task(self._read(stream))

    def allow(self, count: int) -> None:
        for _ in range(count):
            self.allowed.release()

    async def _read(self, stream: Any) -> None:
        await self.allowed.acquire()
        async for event in stream:
            self.events.append(event)
            await self.allowed.acquire()

    def check(self, *, crashes: int, closed: bool, impatient: bool) -> None:
        """Check what has come so far against what an undisturbed engine gives."""
        for index, request in enumerate(self.requests):
            got = joined(event for event in self.events if event.index == index)
            whole = undisturbed(request)
            end = got[-1] if got and isinstance(got[-1], Finished | Failed) else None
            body = got[:-1] if end else got
            assert not any(isinstance(event, Finished | Failed) for event in body)
            assert_beginning(body, whole)
            generated = sum(isinstance(event, TokenEvent) for event in body)
            if isinstance(end, Failed):
                assert end.generated == generated
                allowed = {
                    "closed": closed,
                    "the server shut down before the answer was complete": closed,
                    TWICE: crashes >= 2,
                    "the engine's process ended and could not be replaced in time": impatient,
                }
                assert allowed[end.error.message], end
            elif isinstance(end, Finished) and end.reason == "cancelled":
                assert index in self.cancelled
                assert end.generated == generated
            elif end:
                assert got == whole


def assert_beginning(got: tuple[Any, ...], whole: tuple[Any, ...]) -> None:
    """Check that `got` is a beginning of `whole`, perhaps without all of the scores."""
    for mine, theirs in zip(got, whole, strict=False):
        if isinstance(mine, PromptScored):
            assert isinstance(theirs, PromptScored)
            assert mine.logprobs == theirs.logprobs[: len(mine.logprobs)]
        else:
            assert mine == theirs
    assert len(got) <= len(whole)


class Life(RuleBasedStateMachine):
    """An engine's life, of which each rule is a moment."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.problems: list[Any] = []
        self.loop.set_exception_handler(lambda _, context: self.problems.append(context))
        self.readers: dict[str, Reader] = {}
        self.starts: list[asyncio.Future[PlayedProcess]] = []
        self.sleeps: list[tuple[float, asyncio.Future[None]]] = []
        self.crashes = 0
        self.impatient = self.closed = False
        self.process, self.engine = self.run(self.begin())

    async def begin(self) -> tuple[PlayedProcess, ProcessEngine]:
        process = PlayedProcess()
        return process, ProcessEngine(process, self.spawn, self.sleep)  # type: ignore[arg-type]

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    async def spawn(self) -> PlayedProcess:
        start = self.loop.create_future()
        self.starts.append(start)
        return await start

    async def sleep(self, seconds: float) -> None:
        done = self.loop.create_future()
        self.sleeps.append((seconds, done))
        await done

    async def settle(self) -> None:
        for _ in range(12):
            await asyncio.sleep(0)

    def pending_starts(self) -> list[asyncio.Future[PlayedProcess]]:
        return [start for start in self.starts if not start.done()]

    def pending_sleeps(self, *, long: bool) -> list[asyncio.Future[None]]:
        sleeps = [(s, done) for s, done in self.sleeps if not done.done()]
        return [done for s, done in sleeps if (s == PATIENCE_S) == long]

    @rule(requests=st.lists(REQUESTS, min_size=1, max_size=3), allowed=st.sampled_from([0, 5, 500]))
    def submit(self, requests: list[SequenceRequest], allowed: int) -> None:
        async def submit() -> None:
            name = f"r{len(self.readers)}"
            numbered = [replace(one, index=index) for index, one in enumerate(requests)]
            if self.engine.refused:
                assert self.closed or self.impatient
                with pytest.raises(Unavailable):
                    self.engine.submit(name, numbered)
                return
            stats = self.engine.stats()
            if stats.running + stats.queued + len(numbered) > CONFIG.max_streams + CONFIG.max_queue:
                with pytest.raises(Unavailable, match="run or wait already"):
                    self.engine.submit(name, numbered)
                return
            stream = self.engine.submit(name, numbered)
            self.readers[name] = Reader(stream, numbered)
            self.readers[name].allow(allowed)
            await self.settle()

        self.run(submit())

    @rule(steps=st.sampled_from([1, 3, 30]))
    def step(self, steps: int) -> None:
        async def step() -> None:
            for _ in range(steps):
                if self.process.alive:
                    self.process.step()
                    await self.settle()

        self.run(step())

    @precondition(lambda self: self.readers)
    @rule(data=st.data(), count=st.integers(1, 80))
    def read(self, data: st.DataObject, count: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.readers)))
        self.readers[name].allow(count)
        self.run(self.settle())

    @precondition(lambda self: self.readers)
    @rule(data=st.data(), index=st.sampled_from([None, 0, 1]), steps=st.integers(0, 1))
    def cancel(self, data: st.DataObject, index: int | None, steps: int) -> None:
        async def cancel() -> None:
            name = data.draw(st.sampled_from(sorted(self.readers)))
            reader = self.readers[name]
            indices = range(len(reader.requests)) if index is None else (index,)
            reader.cancelled |= set(indices)
            self.engine.cancel(name, index)
            for _ in range(steps):
                await self.settle()

        self.run(cancel())

    @precondition(lambda self: self.process.alive)
    @rule(settled=st.booleans())
    def die(self, settled: bool) -> None:
        async def die() -> None:
            self.crashes += 1
            self.process.die()
            if settled:
                await self.settle()

        self.run(die())

    @precondition(lambda self: self.pending_sleeps(long=False))
    @rule()
    def pause_ends(self) -> None:
        async def ring() -> None:
            for done in self.pending_sleeps(long=False):
                done.set_result(None)
            await self.settle()

        self.run(ring())

    @precondition(lambda self: self.pending_starts())
    @rule(error=st.sampled_from(FAULTS))
    def start_fails(self, error: Exception) -> None:
        async def fail() -> None:
            for start in self.pending_starts():
                start.set_exception(error)
            await self.settle()

        self.run(fail())

    @precondition(lambda self: self.pending_starts())
    @rule()
    def start_succeeds(self) -> None:
        self.run(self._start())

    async def _start(self) -> None:
        for start in self.pending_starts():
            self.process = PlayedProcess()
            start.set_result(self.process)
        await self.settle()

    @precondition(lambda self: self.pending_sleeps(long=True))
    @rule()
    def patience_ends(self) -> None:
        async def ring() -> None:
            for done in self.pending_sleeps(long=True):
                self.impatient = True
                done.set_result(None)
            await self.settle()

        self.run(ring())

    @precondition(lambda self: self.starts and not self.closed)
    @rule()
    def close(self) -> None:
        self.closed = True
        self.run(self.engine.close())
        self.run(self.settle())
        assert not self.process.alive
        assert all(start.done() for start in self.starts)

    @invariant()
    def nothing_is_wrong(self) -> None:
        self.run(self.settle())
        assert self.problems == []
        for reader in self.readers.values():
            reader.check(crashes=self.crashes, closed=self.closed, impatient=self.impatient)
        if not self.closed:
            assert self.engine.ready == self.process.alive

    def teardown(self) -> None:
        """With readers that read, and a process that works, everything comes to its end."""
        try:
            self.run(self._finish())
            self.nothing_is_wrong()
            for reader in self.readers.values():
                assert reader.task.done()
                assert reader.task.exception() is None
            assert self.engine.stats().running == self.engine.stats().queued == 0
            self.run(self.engine.close())
            self.run(self.settle())
            assert self.problems == []
        finally:
            for reader in self.readers.values():
                reader.task.cancel()
            self.run(self.settle())
            self.loop.close()

    async def _finish(self) -> None:
        for reader in self.readers.values():
            reader.allow(PLENTY // 100)
        await self.settle()
        for _ in range(3):
            for done in self.pending_sleeps(long=False):
                done.set_result(None)
            await self.settle()
            await self._start()
        while not self.closed and self.process.step():
            await self.settle()
        await self.settle()


Life.TestCase.settings = examples(
    24,
    stateful_step_count=30,
    phases=[Phase.generate],  # shrinking takes minutes
)
TestLife = Life.TestCase


def test_pauses_between_restarts_grow_to_a_limit_and_are_forgotten() -> None:
    restarts = Restarts()
    pauses = [restarts.delay_s(0.0) for _ in range(200)]
    assert pauses[:4] == [0.0, FIRST_DELAY_S, 2 * FIRST_DELAY_S, 4 * FIRST_DELAY_S]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LAST_DELAY_S
    assert restarts.delay_s(STEADY_S + 1) == 0.0
    assert restarts.delay_s(STEADY_S) == FIRST_DELAY_S
