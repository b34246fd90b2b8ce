"""Replicas: where requests go, and that none is lost when a replica is, whatever it was doing."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from clusters import LocalCluster, hurry, local_cluster

from streamtok.config import EngineConfig
from streamtok.engine.base import TokenStream
from streamtok.engine.cluster.apart import apart
from streamtok.engine.cluster.client import ClusterEngine
from streamtok.engine.cluster.places import Place
from streamtok.engine.cluster.router import BLOCK, Load, Router
from streamtok.engine.cluster.start import _connect_first, start_cluster
from streamtok.engine.cluster.stats import ReplicaStats
from streamtok.engine.commands import Submit
from streamtok.messages import (
    Event,
    Failed,
    Finished,
    Prefilled,
    SamplingParams,
    SequenceRequest,
)
from streamtok.model.load import load
from streamtok.testing import local_engine, write_model


def request(seed: int, length: int = 20, tokens: int = 90, **fields: object) -> SequenceRequest:
    prompt = tuple((seed * 7 + n) % 250 for n in range(length))
    sampling = SamplingParams(seed=seed, top_logprobs=1 if seed % 3 == 0 else None)
    return SequenceRequest(0, prompt, sampling, max_tokens=tokens, **fields)  # type: ignore[arg-type]


REQUESTS = {f"request {seed}": request(seed) for seed in range(8)}


async def collect(stream: TokenStream) -> list[Event]:
    return [event async for event in stream]  # type: ignore[misc]


def told(events: list[Event]) -> list[Event]:
    """Return what does not depend on what was cached."""
    return [event for event in events if not isinstance(event, Prefilled)]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Event]]]:
    """A model, and what a local engine gives."""
    folder = write_model(tmp_path_factory.mktemp("cluster"))

    async def run() -> dict[str, list[Event]]:
        engine = local_engine(load(folder), EngineConfig())
        streams = {name: engine.submit(name, [r]) for name, r in REQUESTS.items()}
        events = {name: await collect(stream) for name, stream in streams.items()}
        await engine.close()
        return events

    return folder, asyncio.run(run())


@pytest.fixture
async def cluster(
    expected: tuple[Path, object],
) -> AsyncIterator[tuple[LocalCluster, ClusterEngine]]:
    cluster, engine = await local_cluster(expected[0])
    yield cluster, engine
    await engine.close()


def start(engine: ClusterEngine) -> dict[str, "asyncio.Future[list[Event]]"]:
    return {
        name: asyncio.ensure_future(collect(engine.submit(name, [r])))
        for name, r in REQUESTS.items()
    }


async def check(
    tasks: dict[str, "asyncio.Future[list[Event]]"], expected: dict[str, list[Event]]
) -> None:
    for name, task in tasks.items():
        assert told(await task) == told(expected[name]), name


async def test_replicas_give_what_one_engine_gives_and_share_the_load(
    cluster: tuple[LocalCluster, ClusterEngine], expected: tuple[Path, dict[str, list[Event]]]
) -> None:
    _, engine = cluster
    assert (engine.streams, engine.room) == (64, 2 * 160)
    await check(start(engine), expected[1])
    assert [replica.tokens for replica in replicas(engine)] == [360, 360]
    assert (engine.stats().running, engine.stats().queued) == (0, 0)
    assert not engine._where


def tokens(engine: ClusterEngine) -> int:
    return sum(replica.tokens for replica in replicas(engine))


def replicas(engine: ClusterEngine) -> list[ReplicaStats]:
    return [place.stats for place in engine._places.values()]


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def until_some_tokens(engine: ClusterEngine, least: int) -> None:
    await until(lambda: tokens(engine) >= least)


@pytest.mark.parametrize(("least", "outside"), [(0, False), (30, True), (200, False)])
async def test_what_a_replica_has_not_finished_another_one_does(
    cluster: tuple[LocalCluster, ClusterEngine],
    expected: tuple[Path, dict[str, list[Event]]],
    least: int,
    outside: bool,
) -> None:
    local, engine = cluster
    tasks = start(engine)
    await until_some_tokens(engine, least)
    local.down.add("one")
    local.kill("one", outside=outside)
    await check(tasks, expected[1])
    assert engine.ready
    assert engine.stats().restarts == 1
    assert engine.streams == 32
    local.restore("one")
    await engine.opened()
    assert engine.streams == 64
    await check(start(engine), expected[1])


async def test_where_all_are_lost_requests_wait_for_one(
    cluster: tuple[LocalCluster, ClusterEngine], expected: tuple[Path, dict[str, list[Event]]]
) -> None:
    local, engine = cluster
    tasks = start(engine)
    await until_some_tokens(engine, 30)
    for name in ("one", "two"):
        local.down.add(name)
        local.kill(name)
    await until(lambda: not engine.ready)
    late = asyncio.ensure_future(collect(engine.submit("late", [REQUESTS["request 1"]])))
    assert engine.headers_of("late") == ()
    local.restore("two")
    await check(tasks, expected[1])
    assert told(await late) == told(expected[1]["request 1"])
    assert {*engine._where} == set()


async def test_a_drained_replica_gives_its_sequences_away_and_is_moved(
    cluster: tuple[LocalCluster, ClusterEngine],
    expected: tuple[Path, dict[str, list[Event]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    local, engine = cluster
    tasks = start(engine)
    await until_some_tokens(engine, 40)
    assert len(engine._places["one"].journal) > 0
    at_once: list[int] = []
    begin = engine._copies.begin

    def counted(request_id: str, source: Place, target: Place, rounds: int) -> Submit | None:
        at_once.append(engine._copies.targets.count(target))
        return begin(request_id, source, target, rounds)

    monkeypatch.setattr(engine._copies, "begin", counted)
    local.drained.add("one")
    await check(tasks, expected[1])
    await until(lambda: local.moved)
    assert local.moved == ["one"]
    assert 0 < engine.stats().resumed <= 4
    assert not len(engine._copies)
    assert set(at_once) == {0}  # what is moved waits for one copy at most


async def test_what_fails_while_a_replica_is_drained_is_tried_again(
    cluster: tuple[LocalCluster, ClusterEngine], caplog: pytest.LogCaptureFixture
) -> None:
    local, engine = cluster
    local.failing.update(draining=3, move=3)
    local.drained.add("one")
    await until(lambda: local.moved)
    assert caplog.text.count("it is not known which nodes are drained: the test says so") == 1
    assert caplog.text.count("one cannot be moved: the test says so") == 1
    await engine.opened()
    assert [replica.ready for replica in replicas(engine)] == [True, True]


async def test_a_fault_while_events_are_taken_is_logged_and_the_streams_go_on(
    cluster: tuple[LocalCluster, ClusterEngine],
    expected: tuple[Path, dict[str, list[Event]]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, engine = cluster
    tasks = start(engine)
    await until_some_tokens(engine, 30)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_take", lambda *_: 1 / 0)
        await until(lambda: engine.stats().restarts)
    await check(tasks, expected[1])
    assert "ZeroDivisionError" in caplog.text


async def test_a_replica_that_gives_other_results_is_not_used(
    expected: tuple[Path, object], tmp_path: Path
) -> None:
    other = write_model(tmp_path / "other", seed=1)
    cluster = LocalCluster({"one": expected[0], "two": other}, EngineConfig())
    engine = ClusterEngine(cluster, ("one", "two"), await _connect_first(cluster, "one"), hurry)
    await until(lambda: cluster.made >= 3)
    assert [replica.ready for replica in replicas(engine)] == [True, False]
    await engine.close()


async def test_what_is_cancelled_ends_wherever_it_is(
    cluster: tuple[LocalCluster, ClusterEngine],
) -> None:
    local, engine = cluster
    streams = {name: engine.submit(name, [r]) for name, r in REQUESTS.items()}
    local.down |= {"one", "two"}
    names = list(streams)
    await until_some_tokens(engine, 8)
    for name in names[:2]:
        engine.cancel(name)
    local.kill("one")
    local.kill("two")
    await until(lambda: not engine.ready)
    for name in names[2:]:
        engine.cancel(name)
        engine.cancel(name)
    for stream in streams.values():
        end = (await collect(stream))[-1]
        assert isinstance(end, Finished)
        assert end.reason == "cancelled"
    engine.cancel("unknown")
    assert len(engine._lobby) == 0


async def test_a_closed_engine_ends_everything(
    cluster: tuple[LocalCluster, ClusterEngine],
) -> None:
    _, engine = cluster
    tasks = start(engine)
    await until_some_tokens(engine, 8)
    await engine.close()
    for task in tasks.values():
        assert isinstance((await task)[-1], Failed)


async def test_a_replica_ends_with_its_engine(
    cluster: tuple[LocalCluster, ClusterEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[int] = []
    monkeypatch.setattr(os, "_exit", ends.append)
    local, _ = cluster
    local.engine("one").ended.set()
    await until(lambda: ends)
    assert ends == [1]


# Which replica


def loads(**sequences: int) -> dict[str, Load]:
    return {name: Load(count, 0, 32) for name, count in sequences.items()}


def test_the_next_turn_goes_where_the_last_one_was() -> None:
    router = Router(100)
    first, second = request(1, 60), request(1, 90)
    router.place("b", [first])
    assert router.choose([second], loads(a=0, b=0)) == "b"
    assert router.uncached("b", [second]) == 90 - 60 // BLOCK * BLOCK
    assert router.choose([request(2)], loads(a=0, b=0)) == "a"


def test_not_if_it_is_much_busier() -> None:
    router = Router(100)
    router.place("b", [request(1, 60)])
    assert router.choose([request(1, 90)], loads(a=0, b=2)) == "b"
    assert router.choose([request(1, 90)], loads(a=0, b=4)) == "a"
    assert router.choose([request(1, 90)], loads(a=31, b=32)) == "a"


def test_clients_share_nothing() -> None:
    router = Router(100)
    router.place("b", [request(1, 60, client="anna")])
    assert router.choose([request(1, 60, client="ben")], loads(a=0, b=0)) == "a"
    assert router.uncached("b", [request(1, 60, client="anna")] * 3) == 60 % BLOCK


def test_what_was_placed_long_ago_is_forgotten() -> None:
    router = Router(3)
    router.place("a", [request(1, 48)])
    router.place("a", [request(2, 48)])
    assert router.uncached("a", [request(1, 48)]) == 48
    router.forget("a")
    assert router.uncached("a", [request(2, 48)]) == 48


async def test_two_servers_share_replicas(expected: tuple[Path, dict[str, list[Event]]]) -> None:
    cluster, engine = await local_cluster(expected[0])
    other = LocalCluster(cluster.folders, cluster.config)
    other.replicas = cluster.replicas
    other.made = 100
    second = await start_cluster(other, ("one", "two"))
    tasks, more = start(engine), start(second)
    await check(tasks, expected[1])
    await check(more, expected[1])
    await second.close()
    await engine.close()


def test_a_call_that_never_returns_keeps_nobody_waiting() -> None:
    never, started = threading.Event(), threading.Event()

    def hang() -> None:
        started.set()
        never.wait()

    async def main() -> None:
        assert await apart(lambda: 7 // 2) == 3
        with pytest.raises(ZeroDivisionError):
            await apart(lambda: 7 // 0)
        assert await apart(threading.current_thread, stays=True) in threading.enumerate()
        hanging = asyncio.ensure_future(apart(hang))
        await until(started.is_set)
        hanging.cancel()

    asyncio.run(main())  # waits for the threads of its own executor
    never.set()
