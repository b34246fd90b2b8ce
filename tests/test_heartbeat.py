"""Signs of life before the first token: when they come, their bytes, and what they cost."""

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from test_e2e import post as post_json
from test_e2e import read_chunks
from test_wire import (
    CHAT,
    CHUNKED,
    DONE,
    HEAD,
    ROLE,
    Peer,
    ScriptedIds,
    chat_event,
    chunk,
    delta,
    post,
    said,
)

from streamtok.api.more.routes import ROUTES
from streamtok.api.routing import Api
from streamtok.clock import Clock
from streamtok.config import ServeConfig
from streamtok.engine.base import TokenStream
from streamtok.errors import EngineFailed
from streamtok.http.request import Request
from streamtok.messages import Failed, Finished, Started, TokenEvent, Waiting
from streamtok.testing import (
    FakeClock,
    FakeTimer,
    ScriptedEngine,
    chunks,
    make_services,
    running_server,
)

PING = chunk(b": ping\n")
ID = "chatcmpl-1"


@pytest.fixture
def timer() -> FakeTimer:
    return FakeTimer()


@pytest.fixture
async def peer(tiny_model: Path, timer: FakeTimer) -> Peer:
    """A client whose engine waits for the test, as does the timer of its heartbeats."""
    return Peer(tiny_model, "", held=True, heartbeat=timer)


async def sent(peer: Peer, *events: bytes) -> None:
    """Wait until the head and these events have been sent, each in a write of its own."""
    expected = [HEAD + CHUNKED, *events]
    await peer.stream.wait_for(lambda stream: len(stream.writes) >= len(expected))
    assert peer.stream.writes == expected


async def test_the_head_leaves_at_the_first_heartbeat_in_the_queue(
    peer: Peer, timer: FakeTimer
) -> None:
    peer.stream.feed(post("/v1/chat/completions", CHAT))
    await peer.engine.submitted()
    assert peer.stream.sent == b""
    await timer.ring()
    await sent(peer, PING)
    await timer.ring()
    await sent(peer, PING, PING)
    peer.engine.emit(ID, Started(0))
    role = chat_event(1, ROLE)
    await sent(peer, PING, PING, role)
    await timer.ring()  # the prompt is long
    await sent(peer, PING, PING, role, PING)
    peer.engine.emit(ID, TokenEvent(0, ScriptedIds["x"]))
    await sent(peer, PING, PING, role, PING, chat_event(1, said("x")))
    await timer.ring()  # there are tokens now
    await timer.wait()
    peer.engine.ready = False
    await timer.ring()  # and now there is no engine
    await sent(peer, PING, PING, role, PING, chat_event(1, said("x")), PING)
    peer.engine.ready = True
    peer.engine.emit(ID, Finished(0, "length", 1))
    await peer.stream.wait_for(lambda stream: stream.sent.endswith(DONE))
    text = chat_event(1, said("x")) + PING + chat_event(1, delta("", '"length"'))
    assert peer.stream.sent == HEAD + CHUNKED + 2 * PING + role + PING + text + DONE
    assert not timer.is_set
    peer.stream.feed_eof()
    await peer.running


async def test_who_need_not_wait_gets_the_same_bytes(tiny_model: Path, timer: FakeTimer) -> None:
    request = post("/v1/chat/completions", CHAT | {"max_tokens": 2})
    plain = await Peer(tiny_model, "abc").converse(request)
    beating = await Peer(tiny_model, "abc", heartbeat=timer).converse(request)
    assert beating == plain
    assert not timer.is_set


async def test_a_failure_before_the_first_heartbeat_has_its_status(
    peer: Peer, timer: FakeTimer
) -> None:
    peer.stream.feed(post("/v1/chat/completions", CHAT))
    await peer.engine.submitted()
    peer.engine.emit(ID, Failed(0, EngineFailed("no luck"), 0))
    answer = await peer.converse()
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert not timer.is_set


async def test_a_failure_after_it_is_an_event(peer: Peer, timer: FakeTimer) -> None:
    peer.stream.feed(post("/v1/chat/completions", CHAT))
    await timer.ring()
    await sent(peer, PING)
    peer.engine.emit(ID, Failed(0, EngineFailed("no luck"), 0))
    error = (
        b'data: {"error":{"message":"no luck","type":"server_error","param":null,'
        b'"code":"engine_failed"}}\n\n'
    )
    assert await peer.converse() == HEAD + CHUNKED + PING + chunk(error) + DONE
    assert not timer.is_set


async def test_a_client_that_leaves_the_queue_is_cancelled(peer: Peer, timer: FakeTimer) -> None:
    peer.stream.feed(post("/v1/chat/completions", CHAT))
    await timer.ring()
    await sent(peer, PING)
    peer.stream.lose()
    await peer.running
    assert peer.engine.cancelled == [(ID, None)]
    assert not timer.is_set
    await peer.services.meter.settled()
    record = await peer.services.meter.ledger.get(ID)
    assert record is not None
    assert (record.finish_reason, record.delivered_tokens) == ("cancelled", 0)


async def test_a_heartbeat_that_comes_behind_the_first_token_is_sent(
    peer: Peer, timer: FakeTimer
) -> None:
    peer.stream.feed(post("/v1/chat/completions", CHAT))
    await peer.engine.submitted()
    for event in (Started(0), TokenEvent(0, ScriptedIds["x"])):
        peer.engine.emit(ID, event)
    await timer.ring()  # before the reader has come to the token
    await sent(peer, chat_event(1, ROLE), chat_event(1, said("x")), PING)
    peer.stream.lose()
    await peer.running
    assert not timer.is_set


async def test_an_answer_that_is_not_streamed_has_none(peer: Peer, timer: FakeTimer) -> None:
    peer.stream.feed(post("/v1/chat/completions", CHAT | {"stream": False}))
    await peer.engine.submitted()
    assert not timer.is_set
    for event in (Started(0), TokenEvent(0, ScriptedIds["x"]), Finished(0, "length", 1)):
        peer.engine.emit(ID, event)
    assert (await peer.converse()).endswith(b'"cached_tokens":0}}}')


async def test_heartbeats_do_not_count_as_unread_events() -> None:
    stream = TokenStream(1, lambda _: None)
    for _ in range(100):
        stream.nudge()
        assert await anext(stream) == Waiting()
    assert (stream.unread, stream.taken) == (0, 0)


@pytest.mark.parametrize("heartbeat", [False, True])
async def test_tokens_cost_no_tasks(tiny_model: Path, heartbeat: bool) -> None:
    """Neither with heartbeats nor without: one timer a request, and none for a token."""

    async def count_tasks(tokens: int) -> int:
        engine = ScriptedEngine([65] * tokens)
        timer = FakeTimer() if heartbeat else None
        services = make_services(tiny_model, engine, FakeClock(), heartbeat=timer)
        api, made = Api(ROUTES), []
        api.open(services)

        def make(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
            made.append(work)
            return asyncio.Task(work, loop=loop, **options)

        body = json.dumps({"prompt": "x", "stream": True, "max_tokens": tokens}).encode()
        request = Request("POST", "/v1/completions", (), body, "1.1", "test")
        asyncio.get_running_loop().set_task_factory(make)
        response = await api.handle(request)
        assert not isinstance(response.body, bytes)
        assert len([event async for event in chunks(response)]) == tokens + 2
        asyncio.get_running_loop().set_task_factory(None)
        return len(made)

    assert await count_tasks(100) == await count_tasks(1)


async def test_the_official_client_takes_them(
    tiny_model: Path, timer: FakeTimer, listen: Callable[[Api, Clock], str]
) -> None:
    engine = ScriptedEngine([], held=True)
    services = make_services(tiny_model, engine, FakeClock(), heartbeat=timer)
    api = Api(ROUTES)
    api.open(services)
    url = listen(api, services.meter.clock)

    async def generate() -> None:
        await timer.ring()
        await timer.ring()
        engine.emit(ID, Started(0))
        await timer.ring()
        for letter in "xyz":
            engine.emit(ID, TokenEvent(0, ScriptedIds[letter]))
        engine.emit(ID, Finished(0, "length", 3))

    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        generating = asyncio.ensure_future(generate())
        stream = await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        deltas = [chunk.choices[0].delta async for chunk in stream]
        await generating
    assert [delta.content for delta in deltas] == ["", "x", "y", "z", None]


def test_a_real_server_beats_while_a_request_waits_for_its_place() -> None:
    config = ServeConfig(port=0, ledger=":memory:", max_streams=1, heartbeat_s=0.001)
    body = {"prompt": "Once", "stream": True, "ignore_eos": True}
    with (
        running_server(config) as server,
        socket.create_connection(server.address) as first,
        socket.create_connection(server.address) as second,
    ):
        first.sendall(post_json("/v1/completions", body | {"max_tokens": 1000}))
        running = read_chunks(first)
        while next(running) == b": ping\n":
            pass
        second.sendall(post_json("/v1/completions", body | {"max_tokens": 2}))
        waiting = read_chunks(second)
        assert [next(waiting) for _ in range(5)] == [b": ping\n"] * 5
        with contextlib.closing(first):
            running.close()
        rest = [data for data in waiting if data != b": ping\n"]
    assert [json.loads(data[6:])["choices"][0]["finish_reason"] for data in rest[:-1]] == [
        None,
        None,
        "length",
    ]
    assert rest[-1] == b"data: [DONE]\n\n"
