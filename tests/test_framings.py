"""One token stream in three framings: exact bytes, who gets which, and how each one fails."""

import json
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_wire import Peer, chunk

from streamtok import __version__
from streamtok.errors import EngineFailed, NotAcceptable
from streamtok.http.framings import EVENT_STREAM, JSON_LINES, OFFERS, PLAIN_TEXT, negotiate
from streamtok.messages import Failed, Finished, Started, TokenEvent
from streamtok.testing import FakeTimer, RunningServer

CHAT, COMPLETIONS, LINK = "/v1/chat/completions", "/v1/completions", "/v1/generate"
HI = [{"role": "user", "content": "hi"}]
STREAM = {"prompt": "x", "stream": True, "max_tokens": 2}
X = ord("x") - 33  # the byte alphabet begins with "!"
PLAIN_HEAD = (
    b"HTTP/1.1 200 OK\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\n"
    + f"Server: streamtok/{__version__}\r\n".encode()
    + b"Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"
    + b"Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n"
)
END_OF_HEAD = b"X-Request-Id: req_1\r\nTransfer-Encoding: chunked\r\n\r\n"
TRAILER = b"Trailer: x-usage-prompt-tokens, x-usage-completion-tokens, x-usage-total-tokens\r\n"


def get(target: str, *headers: str, version: str = "1.1") -> bytes:
    lines = (f"GET {target} HTTP/{version}", "Host: localhost", *headers, "", "")
    return "\r\n".join(lines).encode()


def post(path: str, body: dict[str, Any], *headers: str) -> bytes:
    text = json.dumps(body)
    length = f"Content-Length: {len(text)}"
    return "\r\n".join(
        (f"POST {path} HTTP/1.1", "Host: localhost", *headers, length, "", text)
    ).encode()


async def refused(peer: Peer, request: bytes) -> tuple[int, dict[str, Any]]:
    """Send `request`; return the status of the answer and the error in it."""
    head, _, body = (await peer.converse(request)).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]


@pytest.fixture
def peer(tiny_model: Path) -> Callable[..., Peer]:
    return lambda text, **options: Peer(tiny_model, text, **options)


# Who gets which


@pytest.mark.parametrize(
    ("accept", "framing"),
    [
        (None, EVENT_STREAM),
        ("", EVENT_STREAM),
        ("*/*", EVENT_STREAM),
        ("application/json", EVENT_STREAM),
        ("application/json, text/plain, */*", EVENT_STREAM),
        ("text/*", EVENT_STREAM),
        ("text/html, */*;q=0.1", EVENT_STREAM),
        ("text/plain", PLAIN_TEXT),
        ("Text/Plain; charset=utf-8", PLAIN_TEXT),
        ("text/event-stream;q=0.5, text/plain;q=0.6", PLAIN_TEXT),
        ("text/*;q=0.5, text/plain ; q=1.0", PLAIN_TEXT),
        ("text/event-stream;q=0, text/*", PLAIN_TEXT),
        ("application/x-ndjson", JSON_LINES),
        ("application/*", JSON_LINES),
        ("application/json, application/x-ndjson", JSON_LINES),
        ("text/plain;q=nan, application/x-ndjson;q=0.1", JSON_LINES),
    ],
)
def test_the_best_that_is_accepted_is_chosen(accept: str | None, framing: object) -> None:
    assert negotiate(accept, OFFERS) is framing


@pytest.mark.parametrize("accept", ["text/html", "*/*;q=0", "text/plain;q=0", "image/*", ",", "x"])
def test_what_cannot_be_met_is_not_acceptable(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="can be streamed; there is text/event-stream"):
        negotiate(accept, OFFERS)


@given(accept=st.text(st.sampled_from("*/text,plain;q=0.1 inf-")))
def test_any_header_has_an_answer(accept: str) -> None:
    with suppress(NotAcceptable):
        assert negotiate(accept, OFFERS) in [framing for _, framing in OFFERS]


async def test_what_cannot_be_met_is_a_406_for_streams_only(peer: Callable[..., Peer]) -> None:
    accept = "Accept: text/html"
    status, error = await refused(peer("ab"), post(COMPLETIONS, STREAM, accept))
    assert (status, error["code"], error["param"]) == (406, "not_acceptable", None)
    answer = await peer("ab").converse(post(COMPLETIONS, STREAM | {"stream": False}, accept))
    assert answer.startswith(b"HTTP/1.1 200 ")


# Bytes


async def test_plain_text_byte_for_byte_wherever_the_request_is_cut(
    peer: Callable[..., Peer],
) -> None:
    for path, body in (
        (COMPLETIONS, STREAM),
        (CHAT, {"messages": HI, "stream": True, "max_tokens": 2}),
    ):
        request = post(path, body, "Accept: text/plain")
        expected = PLAIN_HEAD + END_OF_HEAD + chunk("é".encode()) + b"0\r\n\r\n"
        for cut in range(len(request)):
            assert await peer("éa").converse(request[:cut], request[cut:]) == expected


async def test_json_lines_are_the_events_without_their_dress(peer: Callable[..., Peer]) -> None:
    options = STREAM | {"stream_options": {"include_usage": True}}
    events = (await peer("ab").converse(post(COMPLETIONS, options))).partition(b"\r\n\r\n")[2]
    answer = await peer("ab").converse(post(COMPLETIONS, options, "Accept: application/x-ndjson"))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Type: application/x-ndjson\r\n" in head

    def line(choices: str, usage: str = "null") -> bytes:
        return (
            b'{"id":"cmpl-1","object":"text_completion","created":1700000000,"model":"tiny",'
            b'"system_fingerprint":"fp_scripted","choices":[%s],"usage":%s}'
            % (choices.encode(), usage.encode())
        )

    def choice(text: str, reason: str = "null") -> str:
        return f'{{"index":0,"text":"{text}","logprobs":null,"finish_reason":{reason}}}'

    counts = (
        '{"prompt_tokens":2,"completion_tokens":2,"total_tokens":4,'
        '"prompt_tokens_details":{"cached_tokens":0}}'
    )
    lines = [*map(line, (choice("a"), choice("b"), choice("", '"length"'))), line("", counts)]
    assert body == b"".join(chunk(text + b"\n") for text in lines) + b"0\r\n\r\n"
    assert events == (
        b"".join(chunk(b"data: " + text + b"\n\n") for text in lines)
        + chunk(b"data: [DONE]\n\n")
        + b"0\r\n\r\n"
    )


async def test_each_token_of_text_leaves_when_it_exists(peer: Callable[..., Peer]) -> None:
    client = peer("", held=True)
    client.stream.feed(get(f"{LINK}?prompt=x"))
    await client.engine.submitted()
    client.engine.emit("cmpl-1", Started(0))
    await client.stream.wait_for(lambda s: len(s.writes) == 1)
    assert client.stream.sent == PLAIN_HEAD + END_OF_HEAD
    client.engine.emit("cmpl-1", TokenEvent(0, X))
    await client.stream.wait_for(lambda s: len(s.writes) == 2)
    assert client.stream.writes[-1] == chunk(b"x")
    client.engine.emit("cmpl-1", Finished(0, "stop", 2))
    assert await client.converse() == PLAIN_HEAD + END_OF_HEAD + chunk(b"x") + b"0\r\n\r\n"


async def test_usage_is_in_trailers_for_who_wants_them(peer: Callable[..., Peer]) -> None:
    request = get(f"{LINK}?prompt=x&max_tokens=2", "TE: deflate;q=0.5, Trailers")
    assert await peer("ab").converse(request) == (
        PLAIN_HEAD
        + TRAILER
        + END_OF_HEAD
        + chunk(b"a")
        + chunk(b"b")
        + b"0\r\nX-Usage-Prompt-Tokens: 2\r\nX-Usage-Completion-Tokens: 2\r\n"
        + b"X-Usage-Total-Tokens: 4\r\n\r\n"
    )


@pytest.mark.parametrize("header", ["TE: deflate", "TE: x-trailers", "X-TE: trailers"])
async def test_there_are_no_trailers_for_who_does_not(
    peer: Callable[..., Peer], header: str
) -> None:
    answer = await peer("ab").converse(get(f"{LINK}?prompt=x", header))
    assert b"railer" not in answer
    assert answer.endswith(b"\r\n0\r\n\r\n")


async def test_an_http_1_0_peer_gets_the_bare_text(peer: Callable[..., Peer]) -> None:
    request = get(f"{LINK}?prompt=x&max_tokens=2", "TE: trailers", version="1.0")
    head, _, body = (await peer("ab").converse(request)).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert b"Trailer" not in head
    assert body == b"ab"


async def test_a_head_request_gets_no_text(peer: Callable[..., Peer]) -> None:
    request = get(f"{LINK}?prompt=x", "TE: trailers").replace(b"GET", b"HEAD")
    assert await peer("ab").converse(request) == PLAIN_HEAD + TRAILER + END_OF_HEAD


async def test_a_heartbeat_between_lines_is_white_space_and_text_has_none(
    peer: Callable[..., Peer],
) -> None:
    timer = FakeTimer()
    client = peer("", held=True, heartbeat=timer)
    client.stream.feed(get(f"{LINK}?prompt=x", "Accept: application/x-ndjson"))
    await client.engine.submitted()
    await timer.ring()
    await client.stream.wait_for(lambda s: len(s.writes) == 2)
    assert client.stream.writes[1] == chunk(b" ")
    client.engine.emit("cmpl-1", Started(0))
    client.engine.emit("cmpl-1", Finished(0, "stop", 1))
    lines = (await client.converse()).partition(b"\r\n\r\n1\r\n \r\n")[2].split(b"\r\n")
    assert json.loads(lines[1])["choices"][0]["finish_reason"] == "stop"
    assert lines[2:] == [b"0", b"", b""]
    silent = peer("", held=True, heartbeat=timer)
    silent.stream.feed(get(f"{LINK}?prompt=x"))
    await silent.engine.submitted()
    assert not timer.is_set
    silent.stream.lose()
    await silent.running


# Failing


async def fail(client: Peer, request: bytes) -> bytes:
    """Let the engine fail after one token; return everything that came."""
    client.stream.feed(request)
    await client.engine.submitted()
    for event in (Started(0), TokenEvent(0, X), Failed(0, EngineFailed("oh"), 1)):
        client.engine.emit("cmpl-1", event)
    await client.running
    return client.stream.sent


async def test_text_that_fails_has_no_zero_chunk(
    peer: Callable[..., Peer], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    client = peer("", held=True)
    answer = await fail(client, get(f"{LINK}?prompt=x", "TE: trailers"))
    assert answer == PLAIN_HEAD + TRAILER + END_OF_HEAD + chunk(b"x")
    assert client.stream.closed
    assert "broken off" in caplog.text
    assert "Traceback" not in caplog.text


async def test_lines_that_fail_end_with_an_error(peer: Callable[..., Peer]) -> None:
    client = peer("", held=True)
    request = get(f"{LINK}?prompt=x", "Accept: application/x-ndjson", "Connection: close")
    error = (
        b'{"error":{"message":"oh","type":"server_error","param":null,"code":"engine_failed"}}\n'
    )
    assert (await fail(client, request)).endswith(chunk(error) + b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("given", "param"),
    [({"n": 2}, "n"), ({"prompt": ["a", "b"]}, "prompt"), ({"logprobs": 0}, "logprobs")],
)
async def test_bare_text_is_refused_where_it_would_lose_something(
    peer: Callable[..., Peer], given: dict[str, Any], param: str
) -> None:
    status, error = await refused(
        peer("ab"), post(COMPLETIONS, STREAM | given, "Accept: text/plain")
    )
    assert (status, error["param"]) == (400, param)


# The link


@pytest.mark.parametrize(
    ("query", "param", "said"),
    [
        ("", "prompt", "missing required field"),
        ("?prompt=x&max_tokens=0", "max_tokens", "must be at least 1 (got 0)"),
        ("?prompt=x&max_tokens=two", "max_tokens", "must be an integer (got 'two')"),
        ("?prompt=x&temperature=3", "temperature", "must be between 0 and 2 (got 3)"),
        ("?prompt=x&chat=maybe", "chat", "must be a boolean (got 'maybe')"),
        ("?prompt=x&n=2", "n", "unknown field"),
        (f"?prompt={'x' * 1024}", "prompt", "context"),
        (f"?chat=1&prompt={'x' * 1024}", "prompt", "context"),
    ],
)
async def test_a_query_field_that_is_wrong_is_named(
    peer: Callable[..., Peer], query: str, param: str, said: str
) -> None:
    status, error = await refused(peer("ab"), get(LINK + query))
    assert (status, error["param"]) == (400, param)
    assert said in error["message"]


async def test_a_link_says_how_to_generate(peer: Callable[..., Peer]) -> None:
    client = peer("abc")
    query = "prompt=a+b&max_tokens=3&temperature=0.5&seed=7&stop=c&model=tiny"
    answer = await client.converse(get(f"{LINK}?{query}"))
    assert answer == PLAIN_HEAD + END_OF_HEAD + chunk(b"a") + chunk(b"b") + b"0\r\n\r\n"
    (sequence,) = client.engine.requests["cmpl-1"]
    assert client.services.tokenizer.decode(sequence.prompt_ids) == "a b"
    assert (sequence.sampling.temperature, sequence.sampling.seed) == (0.5, 7)
    assert sequence.max_tokens == 3


async def test_an_event_source_gets_chat_events(peer: Callable[..., Peer]) -> None:
    client = peer("ab")
    request = get(f"{LINK}?prompt=hi&chat=1&max_tokens=1", "Accept: text/event-stream")
    answer = await client.converse(request)
    assert b'"delta":{"content":"a"}' in answer
    assert answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


def test_a_raw_socket_reads_the_same_text_in_all_framings(server: RunningServer) -> None:
    def ask(*headers: str, version: str = "1.1") -> bytes:
        target = f"{LINK}?prompt=Once+upon+a+time&max_tokens=12&seed=3"
        with socket.create_connection(server.address) as sock:
            sock.sendall(get(target, "Connection: close", *headers, version=version))
            return b"".join(iter(lambda: sock.recv(65536), b"")).partition(b"\r\n\r\n")[2]

    text = ask(version="1.0").decode()
    assert len(text) > 12
    chunks = ask("TE: trailers").split(b"\r\n")
    assert b"".join(chunks[1:24:2]).decode() == text
    assert chunks[24:-2] == [
        b"0",
        b"X-Usage-Prompt-Tokens: 5",
        b"X-Usage-Completion-Tokens: 12",
        b"X-Usage-Total-Tokens: 17",
    ]
    lines = [
        json.loads(part)
        for part in ask("Accept: application/x-ndjson", version="1.0").split(b"\n")[:-1]
    ]
    assert "".join(line["choices"][0]["text"] for line in lines) == text


# What a stream carries besides text


def events(answer: bytes) -> list[bytes]:
    """Return the JSON of each event in `answer`."""
    return [line[6:] for line in answer.split(b"\n") if line.startswith(b"data: {")]


async def test_obfuscation_makes_all_events_as_long_as_each_other(
    peer: Callable[..., Peer],
) -> None:
    options = {"stream_options": {"include_obfuscation": True}, "max_tokens": 9}
    texts = events(await peer("aé€ bcd").converse(post(COMPLETIONS, STREAM | options)))
    assert {len(text) % 64 for text in texts} == {0}
    padding = [json.loads(text)["obfuscation"] for text in texts]
    assert len(set(padding)) == len(padding)


@pytest.mark.parametrize("last", [True, False])
async def test_the_usage_so_far_is_in_every_event(peer: Callable[..., Peer], last: bool) -> None:
    options = {"stream_options": {"continuous_usage_stats": True, "include_usage": last}}
    texts = events(await peer("ab").converse(post(COMPLETIONS, STREAM | options)))
    counts = [json.loads(text)["usage"]["completion_tokens"] for text in texts]
    assert counts == [1, 2, 2, *[2] * last]


@pytest.mark.parametrize("ignore_eos", [True, False])
async def test_stop_token_ids_end_a_text_like_the_model_s_own(
    peer: Callable[..., Peer], ignore_eos: bool
) -> None:
    client = peer("ab")
    body = STREAM | {"stop_token_ids": [5, 6], "ignore_eos": ignore_eos}
    await client.converse(post(COMPLETIONS, body))
    own = client.services.tokenizer.stop_ids
    (sequence,) = client.engine.requests["cmpl-1"]
    assert sequence.stop_ids == {5, 6} | (frozenset() if ignore_eos else own)


async def test_a_stop_token_id_that_is_none_is_refused(peer: Callable[..., Peer]) -> None:
    status, error = await refused(peer(""), post(COMPLETIONS, STREAM | {"stop_token_ids": [261]}))
    assert (status, error["param"]) == (400, "stop_token_ids")


async def test_min_tokens_are_the_engine_s_to_keep_and_no_more_than_max_tokens(
    peer: Callable[..., Peer],
) -> None:
    client = peer("ab")
    await client.converse(post(COMPLETIONS, STREAM | {"min_tokens": 2}))
    assert client.engine.requests["cmpl-1"][0].min_tokens == 2
    status, error = await refused(peer(""), post(COMPLETIONS, STREAM | {"min_tokens": 3}))
    assert (status, error["param"]) == (400, "min_tokens")
