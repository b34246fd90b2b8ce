"""Whole requests through endpoint and connection: exact bytes in, exact bytes out."""

import asyncio
import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from streamtok import __version__
from streamtok.api.access.keys import KeyFile
from streamtok.api.more.routes import ROUTES
from streamtok.api.routing import Api
from streamtok.errors import EngineFailed
from streamtok.http.connection import Connection
from streamtok.http.transport import ConnectionLost
from streamtok.messages import Failed, Finished, Started, TokenEvent
from streamtok.testing import FakeClock, MemoryStream, ScriptedEngine, make_service, make_services
from streamtok.text.tokenizer import Tokenizer

INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
CHAT = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
HEAD = (
    b"HTTP/1.1 200 OK\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\n"
    + f"Server: streamtok/{__version__}\r\n".encode()
    + b"Content-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
    + b"X-Accel-Buffering: no\r\nX-Request-Id: req_1\r\n"
)


def post(path: str, body: object, headers: bytes = b"") -> bytes:
    text = json.dumps(body).encode()
    return b"POST %s HTTP/1.1\r\nHost: a\r\n%sContent-Length: %d\r\n\r\n%s" % (
        path.encode(),
        headers,
        len(text),
        text,
    )


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def chat_event(number: int, choice: str, usage: str = "") -> bytes:
    return chunk(
        b'data: {"id":"chatcmpl-%d","object":"chat.completion.chunk","created":1700000000,'
        b'"model":"tiny","system_fingerprint":"fp_scripted","choices":[%s]%s}\n\n'
        % (number, choice.encode(), usage.encode())
    )


def delta(content: str, reason: str = "null", index: int = 0) -> str:
    return f'{{"index":{index},"delta":{{{content}}},"logprobs":null,"finish_reason":{reason}}}'


def said(text: str, index: int = 0) -> str:
    return delta(f'"content":{json.dumps(text, ensure_ascii=False)}', index=index)


ROLE = delta('"role":"assistant","content":""')
DONE = chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


class Peer:
    """A client on a connection in memory, served by a scripted engine that says `text`."""

    def __init__(
        self,
        folder: Path,
        text: str,
        *,
        held: bool = False,
        keys: KeyFile | None = None,
        **services: Any,
    ):
        ids = Tokenizer(folder).encode(text, special=False)
        self.engine = ScriptedEngine(ids, held=held)
        clock = FakeClock()
        self.services = make_services(folder, self.engine, clock, **services)
        api = Api(ROUTES, keys, new_request_id=lambda: "req_1")
        api.open(self.services)
        self.stream = MemoryStream()
        service = make_service(api, clock)
        self.running = asyncio.ensure_future(Connection(self.stream, service).run())

    async def converse(self, *pieces: bytes) -> bytes:
        """Send `pieces` one by one, then end; return everything that came.

        A slow machine has time to ask for a sign of life before the answer: that is left out.
        """
        for piece in pieces:
            self.stream.feed(piece)
            await asyncio.sleep(0)
        self.stream.feed_eof()
        await self.running
        await self.services.meter.close()
        return self.stream.sent.replace(INTERIM, b"")


@pytest.fixture
def peer(tiny_model: Path) -> Callable[..., Peer]:
    return lambda text, **options: Peer(tiny_model, text, **options)


async def test_a_chat_stream_byte_for_byte_wherever_the_request_is_cut(
    peer: Callable[..., Peer],
) -> None:
    request = post("/v1/chat/completions", CHAT | {"max_tokens": 3})
    expected = (
        HEAD
        + CHUNKED
        + b"".join(
            chat_event(1, choice)
            for choice in (ROLE, said("a"), said("b"), said("c"), delta("", '"length"'))
        )
        + DONE
    )
    assert await peer("abcdef").converse(request) == expected
    for cut in range(1, len(request)):
        assert await peer("abcdef").converse(request[:cut], request[cut:]) == expected
    assert await peer("abcdef").converse(*(request[i : i + 1] for i in range(len(request)))) == (
        expected
    )


async def test_every_token_leaves_in_a_write_of_its_own_when_it_exists(
    peer: Callable[..., Peer],
) -> None:
    client = peer("", held=True)
    client.stream.feed(post("/v1/chat/completions", CHAT))
    await client.engine.submitted()
    assert client.stream.sent == b""
    client.engine.emit("chatcmpl-1", Started(0))
    await client.stream.wait_for(lambda s: len(s.writes) == 2)
    assert client.stream.writes == [HEAD + CHUNKED, chat_event(1, ROLE)]
    for number, letter in enumerate("xyz"):
        client.engine.emit("chatcmpl-1", TokenEvent(0, ScriptedIds[letter]))
        await client.stream.wait_for(lambda s, n=number: len(s.writes) == 3 + n)
        assert client.stream.writes[-1] == chat_event(1, said(letter))
    client.engine.emit("chatcmpl-1", Finished(0, "stop", 4))
    await client.stream.wait_for(lambda s: s.sent.endswith(b"0\r\n\r\n"))
    assert client.stream.writes[-3] == chat_event(1, delta("", '"stop"'))
    client.stream.feed_eof()
    await client.running


ScriptedIds = {letter: ord(letter) - 33 for letter in "xyz"}  # the byte alphabet begins with "!"


async def test_usage_comes_last_and_is_null_before(peer: Callable[..., Peer]) -> None:
    options = {"stream_options": {"include_usage": True}, "max_tokens": 1}
    answer = await peer("ab").converse(post("/v1/chat/completions", CHAT | options))
    events = [chat_event(1, c, ',"usage":null') for c in (ROLE, said("a"), delta("", '"length"'))]
    total = (
        ',"usage":{"prompt_tokens":6,"completion_tokens":1,"total_tokens":7,'
        '"prompt_tokens_details":{"cached_tokens":0}}'
    )
    assert answer == HEAD + CHUNKED + b"".join([*events, chat_event(1, "", total)]) + DONE


async def test_a_character_is_never_split_between_events(peer: Callable[..., Peer]) -> None:
    """Every character here is several tokens of one byte; a cut one ends as U+FFFD."""
    client = peer("é€🙂")
    answer = await client.converse(post("/v1/chat/completions", CHAT | {"max_tokens": 8}))
    choices = (ROLE, said("é"), said("€"), said("\ufffd"), delta("", '"length"'))
    assert answer == HEAD + CHUNKED + b"".join(chat_event(1, c) for c in choices) + DONE


async def test_a_stop_string_is_not_sent_and_ends_the_engine_s_work(
    peer: Callable[..., Peer],
) -> None:
    client = peer("one STOP two", held=True)
    client.stream.feed(post("/v1/chat/completions", CHAT | {"stop": "STOP"}))
    await client.engine.submitted()
    client.engine.emit("chatcmpl-1", Started(0))
    for letter in client.services.tokenizer.encode("one STOP", special=False):
        client.engine.emit("chatcmpl-1", TokenEvent(0, letter))
    await client.stream.wait_for(lambda s: s.sent.endswith(b"0\r\n\r\n"))
    assert client.engine.cancelled == [("chatcmpl-1", 0)]
    choices = [ROLE, *(said(c) for c in "one "), delta("", '"stop"')]
    assert client.stream.sent == (
        HEAD + CHUNKED + b"".join(chat_event(1, c) for c in choices) + DONE
    )
    client.stream.feed_eof()
    await client.running


async def test_choices_share_a_stream_and_each_has_a_role_and_an_end(
    peer: Callable[..., Peer],
) -> None:
    answer = await peer("ab").converse(
        post("/v1/chat/completions", CHAT | {"n": 2, "max_tokens": 1})
    )
    second_role = delta('"role":"assistant","content":""', index=1)
    choices = (
        ROLE,
        second_role,
        said("a"),
        delta("", '"length"'),
        said("a", 1),
        delta("", '"length"', 1),
    )
    assert answer == HEAD + CHUNKED + b"".join(chat_event(1, c) for c in choices) + DONE


async def test_an_engine_that_fails_before_the_first_byte_gives_a_status(
    peer: Callable[..., Peer],
) -> None:
    client = peer("", held=True)
    client.stream.feed(post("/v1/chat/completions", CHAT))
    await client.engine.submitted()
    client.engine.emit("chatcmpl-1", Failed(0, EngineFailed("no luck"), 0))
    answer = await client.converse()
    assert answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert answer.endswith(
        b'{"error":{"message":"no luck","type":"server_error","param":null,"code":"engine_failed"}}'
    )


async def test_an_engine_that_fails_in_the_stream_gives_an_error_event(
    peer: Callable[..., Peer],
) -> None:
    client = peer("", held=True)
    client.stream.feed(post("/v1/chat/completions", CHAT))
    await client.engine.submitted()
    for event in (Started(0), TokenEvent(0, ScriptedIds["x"]), Failed(0, EngineFailed("oh"), 1)):
        client.engine.emit("chatcmpl-1", event)
    answer = await client.converse()
    error = chunk(
        b'data: {"error":{"message":"oh","type":"server_error","param":null,'
        b'"code":"engine_failed"}}\n\n'
    )
    assert answer == (
        HEAD + CHUNKED + chat_event(1, ROLE) + chat_event(1, said("x")) + error + DONE
    )


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"POST /v1/nothing", b"404"),
        (b"DELETE /v1/chat/completions", b"405"),
        (b"POST /v1/chat/completions", b"401"),
        (b"POST /v1/completions", b"415"),
    ],
)
async def test_who_would_be_refused_is_not_asked_for_a_body(
    peer: Callable[..., Peer], tmp_path: Path, line: bytes, status: bytes
) -> None:
    """Path, method, key and type are judged by the head, and so before 100 Continue."""
    keys = tmp_path / "keys"
    keys.write_text(f"anna:{sha256(b'sk-anna').hexdigest()}\n")
    held = peer("", keys=KeyFile(keys) if status == b"401" else None)
    fields = b"Content-Length: 9\r\nContent-Type: text/html\r\nExpect: 100-continue\r\n"
    got = await held.converse(line + b" HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n")
    assert got.startswith(b"HTTP/1.1 " + status)
    assert got.count(b"HTTP/1.1 ") == 1


async def test_the_connection_serves_the_next_request(peer: Callable[..., Peer]) -> None:
    request = post("/v1/chat/completions", CHAT | {"max_tokens": 1})
    answer = await peer("a").converse(
        request + b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n" + request
    )
    assert answer.count(DONE) == 2
    assert answer.count(b'{"status":"ok"}') == 1
    assert answer.index(b"chatcmpl-1") < answer.index(b'"ok"') < answer.index(b"chatcmpl-2")


@pytest.mark.parametrize("asked", ["by the client", "by the server"])
async def test_the_connection_closes_where_that_was_asked(
    peer: Callable[..., Peer], asked: str
) -> None:
    headers = b"Connection: close\r\n" if asked == "by the client" else b""
    request = post("/v1/chat/completions", CHAT | {"max_tokens": 1}, headers)
    client = peer("a", close_after_stream=not headers)
    client.stream.feed(request + request)
    await client.running  # without waiting for the client to close
    assert client.stream.sent.count(DONE) == 1
    assert b"Connection: close\r\n" in client.stream.sent


async def test_an_http_1_0_client_gets_the_events_without_chunks(
    peer: Callable[..., Peer],
) -> None:
    request = post("/v1/chat/completions", CHAT | {"max_tokens": 1})
    answer = await peer("a").converse(request.replace(b"HTTP/1.1", b"HTTP/1.0"))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert body.startswith(b"data: {")
    assert body.endswith(b"data: [DONE]\n\n")


async def test_a_whole_answer_has_its_length(peer: Callable[..., Peer]) -> None:
    answer = await peer("abc").converse(
        post("/v1/chat/completions", CHAT | {"stream": False, "max_tokens": 2})
    )
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Length: %d" % len(body) in head
    assert json.loads(body) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "tiny",
        "system_fingerprint": "fp_scripted",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "ab", "refusal": None},
                "logprobs": None,
                "finish_reason": "length",
            }
        ],
        "usage": {
            "prompt_tokens": 6,
            "completion_tokens": 2,
            "total_tokens": 8,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    }


async def test_a_completion_stream_byte_for_byte(peer: Callable[..., Peer]) -> None:
    request = post("/v1/completions", {"prompt": "x", "stream": True, "max_tokens": 2})
    answer = await peer("ab").converse(request)

    def event(text: str, reason: str = "null") -> bytes:
        return chunk(
            b'data: {"id":"cmpl-1","object":"text_completion","created":1700000000,'
            b'"model":"tiny","system_fingerprint":"fp_scripted","choices":[{"index":0,'
            b'"text":"%s","logprobs":null,"finish_reason":%s}]}\n\n'
            % (text.encode(), reason.encode())
        )

    assert answer == HEAD + CHUNKED + event("a") + event("b") + event("", '"length"') + DONE


async def test_a_client_that_leaves_is_accounted_for(peer: Callable[..., Peer]) -> None:
    client = peer("", held=True)
    client.stream.feed(post("/v1/chat/completions", CHAT))
    await client.engine.submitted()
    client.engine.emit("chatcmpl-1", Started(0))
    client.engine.emit("chatcmpl-1", TokenEvent(0, ScriptedIds["x"]))
    await client.stream.wait_for(lambda s: len(s.writes) == 3)
    client.stream.lose()
    await client.running
    assert client.engine.cancelled == [("chatcmpl-1", None)]
    await client.services.meter.settled()
    record = await client.services.meter.ledger.get("chatcmpl-1")
    assert record is not None
    assert record.finish_reason == "cancelled"
    assert record.prompt_tokens == 6


async def test_a_client_that_leaves_before_the_head_is_accounted_for(
    peer: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The body was made and never begun: its generation must end all the same."""
    client = peer("", held=True)

    async def fail(data: bytes) -> None:
        raise ConnectionLost

    monkeypatch.setattr(client.stream, "send", fail)
    client.stream.feed(post("/v1/chat/completions", CHAT))
    await client.engine.submitted()
    client.engine.emit("chatcmpl-1", Started(0))
    await client.running
    assert client.engine.cancelled == [("chatcmpl-1", None)]
    await client.services.meter.settled()
    assert await client.services.meter.ledger.get("chatcmpl-1")


async def test_an_answer_that_has_no_body_declares_no_length(peer: Callable[..., Peer]) -> None:
    """RFC 9110 section 8.6 forbids it for 204, even where it would be zero."""
    answer = await peer("").converse(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 204 No Content\r\n")
    assert b"Content-Length" not in answer
    assert b"Transfer-Encoding" not in answer
