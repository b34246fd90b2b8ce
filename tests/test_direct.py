"""A stream whose chunks are made and written without waking its connection has the same bytes."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from streamtok.answer.events import AnswerEvent, TextDelta
from streamtok.answer.generation import Generation
from streamtok.answer.render import Renderer
from streamtok.api.more.routes import ROUTES
from streamtok.api.routing import Api
from streamtok.engine.base import EventQueue
from streamtok.engine.commands import HIGH_WATER
from streamtok.errors import EngineFailed
from streamtok.http.server import Server
from streamtok.http.transport import ConnectionLost
from streamtok.messages import Failed, Finished, Prefilled, Started, TokenEvent
from streamtok.testing import FakeClock, ScriptedEngine, make_service, make_services

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
OPTIONS: list[dict[str, Any]] = [
    {},
    {"stop": ["EE", "B"]},
    {"n": 2},
    {"logprobs": 1},
    {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
]


def token(letter: str, index: int = 0) -> TokenEvent:
    """Return the token of the tiny model that is this letter."""
    return TokenEvent(index, ord(letter) - ord("!"))


class Client(asyncio.Transport):
    """The other end of a connection, without a socket: it keeps what is written to it."""

    def __init__(self, server: Server, body: dict[str, Any], version: str = "1.1") -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.data = b""
        self.is_closed = False
        self.over = asyncio.Event()
        text = json.dumps({"prompt": "x", "stream": True, "max_tokens": 40} | body).encode()
        fields = f"Host: localhost\r\nConnection: close\r\nContent-Length: {len(text)}"
        self.stream = server._make_stream()
        self.stream.connection_made(self)
        head = f"POST /v1/completions HTTP/{version}\r\n{fields}\r\n\r\n"
        self.stream.data_received(head.encode() + text)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return self.is_closed

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.data += data

    def get_write_buffer_size(self) -> int:
        return 1

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.stream.eof_received()

    def resume_reading(self) -> None:
        pass

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            asyncio.get_running_loop().call_soon(self.stream.connection_lost, None)
            self.over.set()

    abort = close


def serve(model: Path, engine: ScriptedEngine, *, direct: bool = True) -> Server:
    """Return a server around `engine`, which listens nowhere."""
    services = make_services(model, engine, FakeClock())
    if not direct:
        services = replace(services, direct=lambda body, *_: body)
    api = Api(ROUTES, new_request_id=lambda: "req_1")
    api.open(services)
    return Server(make_service(api, FakeClock()))


async def begin(engine: ScriptedEngine, count: int) -> list[str]:
    """Let so many requests begin; return their ids."""
    await engine.wait_for(lambda engine: len(engine.requests) == count)
    ids = list(engine.requests)
    for name in ids:
        for sequence in engine.requests[name]:
            engine.emit(name, Started(sequence.index))
            engine.emit(name, Prefilled(sequence.index, 0))
    return ids


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def answer(
    model: Path, bursts: Sequence[tuple[int, int]], body: dict[str, Any], version: str, direct: bool
) -> bytes:
    """Return an answer whose tokens come in `bursts`, of which each has its turns to be sent."""
    engine = ScriptedEngine([], held=True)
    client = Client(serve(model, engine, direct=direct), body, version)
    [name] = await begin(engine, 1)
    await turns(10)
    sequences = range(body.get("n", 1))
    made = 0
    for size, pause in bursts:
        for _ in range(size):
            for index in sequences:
                if (name, index) in engine._open:
                    engine.emit(name, token(LETTERS[made % len(LETTERS)], index))
            made += 1
        await turns(pause)
    for index in sequences:
        if (name, index) in engine._open:
            engine.emit(name, Finished(index, "length", made))
    await client.over.wait()
    return client.data


@pytest.mark.parametrize("body", OPTIONS, ids=str)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
@given(bursts=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 12)), max_size=12))
def test_the_bytes_are_those_of_a_connection_that_is_woken(
    tiny_model: Path, body: dict[str, Any], version: str, bursts: list[tuple[int, int]]
) -> None:
    def run(*, direct: bool) -> bytes:
        return asyncio.run(answer(tiny_model, bursts, body, version, direct))

    assert run(direct=True) == run(direct=False)


async def test_a_token_wakes_nobody_and_is_written_at_once(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[EventQueue] = []
    wake = EventQueue.wake
    monkeypatch.setattr(EventQueue, "wake", lambda queue: (woken.append(queue), wake(queue)))
    engine = ScriptedEngine([], held=True)
    client = Client(serve(tiny_model, engine), {})
    [name] = await begin(engine, 1)
    engine.emit(name, token("A"))  # h11 frames the first chunk
    await turns(20)
    woken.clear()
    for letter in LETTERS[1:]:
        engine.emit(name, token(letter))
        await turns(2)
        assert f'"text":"{letter}"'.encode() in client.data
    assert not woken
    engine.emit(name, Finished(0, "length", 26))
    await client.over.wait()
    assert len(woken) == 1
    assert client.data.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


async def test_who_does_not_keep_up_leaves_tokens_in_the_queue_and_gets_them_later(
    tiny_model: Path,
) -> None:
    engine = ScriptedEngine([], held=True)
    client = Client(serve(tiny_model, engine), {"max_tokens": 200})
    [name] = await begin(engine, 1)
    engine.emit(name, token("A"))
    await turns(20)
    client.stream.pause_writing()
    for _ in range(100):
        engine.emit(name, token("B"))
        await turns(3)
    unread = engine._streams[name].unread
    assert HIGH_WATER < unread < 100  # the rest is not in it yet: the engine waits
    client.stream.resume_writing()
    await turns(20)
    assert client.data.count(b'"text":"B"') == 100
    engine.emit(name, Finished(0, "length", 101))
    await client.over.wait()
    assert client.data.endswith(b"0\r\n\r\n")


async def test_an_engine_that_fails_is_reported(tiny_model: Path) -> None:
    engine = ScriptedEngine([], held=True)
    client = Client(serve(tiny_model, engine), {})
    [name] = await begin(engine, 1)
    for letter in "AB":
        engine.emit(name, token(letter))
        await turns(5)
    engine.emit(name, Failed(0, EngineFailed("it broke"), 2))
    await client.over.wait()
    assert b'"text":"B"' in client.data
    assert b"it broke" in client.data


async def test_an_error_ends_its_own_stream_and_no_other(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    render = Renderer.chunks

    def fail(renderer: Renderer, events: Sequence[AnswerEvent]) -> list[bytes]:
        if any(isinstance(event, TextDelta) and event.text == "!" for event in events):
            raise RuntimeError("a dialect failed")
        return render(renderer, events)

    monkeypatch.setattr(Renderer, "chunks", fail)
    engine = ScriptedEngine([], held=True)
    server = serve(tiny_model, engine)
    one, two = Client(server, {}), Client(server, {})
    names = await begin(engine, 2)
    for letters in ("AA", "!B", "CC"):
        for name, letter in zip(names, letters, strict=True):
            if (name, 0) in engine._open:
                engine.emit(name, token(letter))
        await turns(20)
    assert one.is_closed
    assert b"0\r\n\r\n" not in one.data
    assert "a dialect failed" in caplog.text
    assert engine.cancelled == [(names[0], None)]
    engine.emit(names[1], Finished(0, "length", 3))
    await two.over.wait()
    assert b'"text":"C"' in two.data
    assert two.data.endswith(b"0\r\n\r\n")


async def test_a_client_that_goes_ends_its_stream(tiny_model: Path) -> None:
    engine = ScriptedEngine([], held=True)
    client = Client(serve(tiny_model, engine), {})
    [name] = await begin(engine, 1)
    engine.emit(name, token("A"))
    await turns(20)
    engine.emit(name, token("B"))
    client.stream.connection_lost(ConnectionResetError())
    await engine.wait_for(lambda engine: bool(engine.cancelled))
    await turns(5)
    assert b'"text":"B"' not in client.data


async def test_a_connection_that_is_ended_in_the_same_turn_delivers_nothing_more(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivered: list[AnswerEvent] = []
    monkeypatch.setattr(Generation, "deliver", lambda _, made: delivered.extend(made))
    engine = ScriptedEngine([], held=True)
    server = serve(tiny_model, engine)
    client = Client(server, {})
    [name] = await begin(engine, 1)
    engine.emit(name, token("A"))
    await turns(20)
    assert [event.text for event in delivered if isinstance(event, TextDelta)] == ["A"]
    engine.emit(name, token("B"))
    await server.abort()
    assert client.is_closed
    assert len(delivered) == 1


async def test_who_is_gone_does_not_keep_up_whatever_the_transport_says(tiny_model: Path) -> None:
    client = Client(serve(tiny_model, ScriptedEngine([])), {})
    assert client.stream.keeps_up
    client.stream.connection_lost(None)
    client.stream.resume_writing()
    assert not client.stream.keeps_up
    with pytest.raises(ConnectionLost):
        await client.stream.send(b"late")
