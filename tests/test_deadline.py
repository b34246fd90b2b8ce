"""A request that takes too long: its generation ends, and the client is told."""

from pathlib import Path

import pytest
from test_wire import CHAT, CHUNKED, DONE, HEAD, ROLE, Peer, ScriptedIds, chat_event, post, said

from streamtok.messages import Started, TokenEvent
from streamtok.testing import FakeTimer

ERROR = (
    b'{"error":{"message":"the request took longer than this server allows",'
    b'"type":"server_error","param":null,"code":"request_timeout"}}'
)


@pytest.fixture
def timer() -> FakeTimer:
    return FakeTimer()


@pytest.fixture
async def peer(tiny_model: Path, timer: FakeTimer) -> Peer:
    return Peer(tiny_model, "abc", held=True, deadline=timer)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_waits_too_long_gets_503(
    peer: Peer, timer: FakeTimer, stream: bool
) -> None:
    peer.stream.feed(post("/v1/chat/completions", CHAT | {"stream": stream}))
    await peer.engine.submitted()
    await timer.ring()
    answer = await peer.converse()
    assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert answer.endswith(ERROR)
    assert peer.engine.cancelled[0] == ("chatcmpl-1", None)


async def test_a_stream_that_runs_too_long_ends_with_an_error_event(
    peer: Peer, timer: FakeTimer
) -> None:
    peer.stream.feed(post("/v1/chat/completions", CHAT))
    await peer.engine.submitted()
    peer.engine.emit("chatcmpl-1", Started(0))
    peer.engine.emit("chatcmpl-1", TokenEvent(0, ScriptedIds["x"]))
    await peer.stream.wait_for(lambda stream: len(stream.writes) == 3)
    await timer.ring()
    answer = await peer.converse()
    error = b"data: " + ERROR + b"\n\n"
    assert answer == (
        HEAD
        + CHUNKED
        + chat_event(1, ROLE)
        + chat_event(1, said("x"))
        + b"%x\r\n%s\r\n" % (len(error), error)
        + DONE
    )


async def test_a_request_in_time_stops_the_timer(tiny_model: Path, timer: FakeTimer) -> None:
    answer = await Peer(tiny_model, "abc", deadline=timer).converse(
        post("/v1/chat/completions", CHAT | {"max_tokens": 1})
    )
    assert answer.endswith(DONE)
    assert not timer.is_set
