"""The proxy between real clients and servers: no byte of a body changes, and nothing is lost."""

import asyncio
import json
import socket
import stat
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from streamtok.app import App
from streamtok.config import ServeConfig
from streamtok.errors import ConfigError
from streamtok.observe.reader import MessageReader
from streamtok.proxy.app import ProxyApp
from streamtok.proxy.config import ProxyConfig

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

CHAT = {
    "messages": [{"role": "user", "content": "Hello"}],
    "stream": True,
    "stream_options": {"include_usage": True},
    "max_tokens": 8,
    "seed": 1,
}
KEY = "sk-secret-of-the-client"


@asynccontextmanager
async def proxy(url: str, **settings: Any) -> AsyncIterator[str]:
    app = ProxyApp(ProxyConfig(port=0, **settings), url)
    try:
        yield await app.start()
    finally:
        await app.stop()


@asynccontextmanager
async def upstream(handler: Handler) -> AsyncIterator[str]:
    """Run a server that does with each connection what `handler` does."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    try:
        yield "http://{}:{}".format(*server.sockets[0].getsockname())
    finally:
        server.close()


def saying(answer: bytes, heard: list[bytes] | None = None) -> Handler:
    """Return what reads a request without a body, gives `answer` and closes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if heard is not None:
            heard.append(head)
        writer.write(answer)
        await writer.drain()
        writer.close()

    return handle


@asynccontextmanager
async def tiny_server(tiny_model: Path, **settings: Any) -> AsyncIterator[str]:
    """Run a server whose answers are the same bytes every time."""
    config = ServeConfig(
        port=0,
        ledger=":memory:",
        model=str(tiny_model),
        engine="thread",
        frozen_clock=True,
        ids="sequential",
        **settings,
    )
    app = App(config)
    try:
        yield await app.start()
    finally:
        await app.stop()


async def raw(url: str, request: bytes) -> bytes:
    """Send bytes, and return all that comes until the other side closes."""
    parts = httpx.URL(url)
    reader, writer = await asyncio.open_connection(parts.host, parts.port)
    writer.write(request)
    data = await reader.read()
    writer.close()
    return data


def post(body: Any, *headers: str) -> bytes:
    data = json.dumps(body).encode()
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        "Host: localhost",
        "Connection: close",
        f"Content-Length: {len(data)}",
        "Content-Type: application/json",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + data


GET = b"GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def chunks_of(answer: bytes) -> list[bytes]:
    """Return the data of each chunk."""
    reader = MessageReader()
    parts = [*reader.feed(answer), *reader.end()]
    assert not [part for part in parts if part.flaw]
    return [part.data for part in parts if part.kind == "data"]


# Forwarding


async def test_every_chunk_of_a_stream_passes_unchanged(tiny_model: Path) -> None:
    async with tiny_server(tiny_model) as server:
        direct = await raw(server, post(CHAT))
    async with tiny_server(tiny_model) as server, proxy(server) as between:
        passed = await raw(between, post(CHAT))
    assert b"".join(chunks_of(passed)) == b"".join(chunks_of(direct))
    assert chunks_of(direct)[-1] == b"data: [DONE]\n\n"
    for head in (direct, passed):
        assert b"Content-Type: text/event-stream; charset=utf-8\r\n" in head
        assert head.count(b"\r\nDate:") == head.count(b"\r\nServer:") == 1


async def test_a_body_of_known_length_keeps_it() -> None:
    said = (
        b"HTTP/1.1 529 Overloaded\r\nContent-Length: 4\r\nServer: other\r\nX-A: b\r\n\r\n\xff\x00ab"
    )
    async with upstream(saying(said)) as server, proxy(server) as between:
        answer = await raw(between, GET)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 529 ")
    assert b"Content-Length: 4" in head
    assert b"Transfer-Encoding" not in head
    assert b"Server: other" in head
    assert b"X-A: b" in head
    assert body == b"\xff\x00ab"


async def test_a_body_that_ends_with_the_connection_is_complete() -> None:
    async with (
        upstream(saying(b"HTTP/1.0 200 OK\r\n\r\nall of it")) as server,
        proxy(server) as between,
        httpx.AsyncClient() as client,
    ):
        answer = await client.get(f"{between}/x")
    assert answer.content == b"all of it"


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body(status: int) -> None:
    said = b"HTTP/1.1 %d Status\r\nEtag: a\r\n\r\n" % status
    async with (
        upstream(saying(said)) as server,
        proxy(server) as between,
        httpx.AsyncClient() as client,
    ):
        answer = await client.get(f"{between}/x")
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (status, b"", "a")


async def test_head_is_passed_on_as_head() -> None:
    heard: list[bytes] = []
    async with (
        upstream(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", heard)) as server,
        proxy(server) as between,
        httpx.AsyncClient() as client,
    ):
        answer = await client.head(f"{between}/x")
    assert heard[0].startswith(b"HEAD /x HTTP/1.1\r\n")
    assert answer.headers["content-length"] == "9"


async def test_fields_of_one_connection_stay_there() -> None:
    heard: list[bytes] = []
    said = b"HTTP/1.1 200 OK\r\nConnection: close, X-Own\r\nX-Own: 1\r\nX-All: 2\r\n\r\n"
    request = (
        b"GET /a?b=%20c HTTP/1.1\r\nHost: localhost\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\n"
        b"TE: trailers\r\nAuthorization: Bearer k\r\nX-All: 2\r\n\r\n"
    )
    async with upstream(saying(said, heard)) as server, proxy(f"{server}/base") as between:
        answer = await raw(between, request)
    sent = heard[0].lower()
    assert sent.startswith(b"get /base/a?b=%20c http/1.1\r\n")
    assert b"x-mine" not in sent
    assert b"\r\nte:" not in sent
    assert b"authorization: bearer k" in sent
    assert b"via: 1.1 streamtok" in sent
    assert b"host: 127.0.0.1:" in sent
    assert b"X-Own" not in answer
    assert b"X-All: 2" in answer


# What goes wrong


async def test_a_server_that_is_not_there_is_a_502() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        async with proxy(f"http://127.0.0.1:{port}") as between, httpx.AsyncClient() as client:
            answer = await client.get(f"{between}/x")
    assert answer.status_code == 502
    assert f"127.0.0.1:{port} cannot be reached" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "said", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nbroken\r\n\r\n"]
)
async def test_what_is_no_answer_is_a_502(said: bytes) -> None:
    async with (
        upstream(saying(said)) as server,
        proxy(server) as between,
        httpx.AsyncClient() as client,
    ):
        answer = await client.get(f"{between}/x")
    assert answer.status_code == 502


async def test_silence_is_a_504() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with (
        upstream(silent) as server,
        proxy(server, timeout_s=0.05) as between,
        httpx.AsyncClient() as client,
    ):
        answer = await client.get(f"{between}/x")
    assert answer.status_code == 504


async def test_an_answer_that_breaks_off_breaks_off() -> None:
    said = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5\r\nde"
    async with upstream(saying(said)) as server, proxy(server) as between:
        answer = await raw(between, GET)
    assert b"3\r\nabc\r\n" in answer
    assert not answer.endswith(b"0\r\n\r\n")


async def test_a_client_that_leaves_is_seen_by_the_server() -> None:
    gone = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        with suppress(ConnectionError):
            assert await reader.read() == b""
        gone.set()
        writer.close()

    async with upstream(endless) as server, proxy(server) as between:
        parts = httpx.URL(between)
        reader, writer = await asyncio.open_connection(parts.host, parts.port)
        writer.write(GET)
        await reader.readuntil(b"1\r\na\r\n")
        linger = struct.pack(
            "ii", 1, 0
        )  # closes with a reset, so that no write is needed to see it
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
        async with asyncio.timeout(10):
            await gone.wait()


async def test_a_rebound_name_is_refused_unless_it_is_allowed() -> None:
    request = GET.replace(b"localhost", b"evil.example")
    said = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    async with upstream(saying(said)) as server:
        async with proxy(server) as between:
            refused = await raw(between, request)
        async with proxy(server, allowed_hosts="evil.example") as between:
            allowed = await raw(between, request)
    assert refused.startswith(b"HTTP/1.1 421 ")
    assert allowed.endswith(b"\r\n\r\nok")


# Recording and replay


async def test_a_replay_has_the_recorded_bytes_without_the_server(
    tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "recorded"
    request = post(CHAT, f"Authorization: Bearer {KEY}")
    async with tiny_server(tiny_model) as server, proxy(server, record=str(folder)) as between:
        passed = [await raw(between, request) for _ in range(2)]
    files = sorted(folder.iterdir())
    assert [path.name for path in files] == ["000001.json", "000002.json"]
    assert all(KEY not in path.read_text() for path in files)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    async with proxy("", replay=str(folder), at_once=True) as between:
        replayed = [await raw(between, request) for _ in range(3)]
        missing = await raw(between, post({**CHAT, "seed": 2}))
    assert replayed[:2] == passed
    assert passed[0] != passed[1]
    assert replayed[2] == passed[1]  # the last one from then on
    assert missing.startswith(b"HTTP/1.1 404 ")
    assert b'"not_recorded"' in missing


async def test_a_recording_of_what_broke_off_breaks_off(tmp_path: Path) -> None:
    said = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na\xff\xfe\r\n5\r\nde"
    async with upstream(saying(said)) as server, proxy(server, record=str(tmp_path)) as between:
        passed = await raw(between, GET)
    async with proxy("", replay=str(tmp_path), at_once=True) as between:
        replayed = await raw(between, GET)
    assert replayed.partition(b"\r\n\r\n")[2] == passed.partition(b"\r\n\r\n")[2]
    assert b"a\xff\xfe" in replayed


# Faults, the doctor's rules, the trace


async def test_a_fault_is_put_into_any_servers_stream(tiny_model: Path) -> None:
    async with tiny_server(tiny_model) as server, proxy(server, faults=True) as between:
        answer = await raw(between, post(CHAT, "X-Fault: done-missing, bom"))
        plain = await raw(between, post(CHAT))
        unknown = await raw(between, post(CHAT, "X-Fault: nonsense"))
        inner = [await raw(between, post(CHAT, f"X-Fault: {f}")) for f in ("error", "engine-death")]
    data = b"".join(chunks_of(answer))
    assert data.startswith(b"\xef\xbb\xbfdata: ")
    assert b"[DONE]" not in data
    assert b"".join(chunks_of(plain)).endswith(b"data: [DONE]\n\n")
    assert unknown.startswith(b"HTTP/1.1 400 ")
    assert all(b"acts in the engine, and so on this server's answers only" in one for one in inner)


async def test_the_doctors_rules_are_applied_to_what_passes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with tiny_server(Path(ServeConfig().model_folder), faults=True) as server:
        async with proxy(server, check=True) as between:
            await raw(between, post(CHAT))
            await raw(between, GET.replace(b"/x", b"/health"))
        clean = capsys.readouterr().out
        async with proxy(server, check=True) as between:
            await raw(between, post(CHAT, "X-Fault: role-repeated"))
        broken = capsys.readouterr().out
        async with proxy(server, check=True, faults=True) as between:
            await raw(between, post(CHAT, "X-Fault: role-repeated;times=1"))
            for fault in ("role-repeated;times=1", "bom", "close;at=1", "status;code=503"):
                await raw(between, post(CHAT, f"X-Fault: {fault}"))
        booked = " ".join(capsys.readouterr().out.split())
    assert "0 errors, 0 warnings" in clean
    assert "2 answers passed through" in clean
    assert "role-repeated" in broken
    assert "0 errors, 0 warnings" in booked
    said = "faults put in by this proxy, not by the server: "
    assert booked.endswith(f"{said}role-repeated (1), bom (1), close (1), status (1)")
    assert "POST /v1/chat/completions" in broken


async def test_the_trace_shows_both_sides_and_no_key(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    async with (
        tiny_server(tiny_model) as server,
        proxy(server, trace_file=str(path)) as between,
    ):
        await raw(between, post(CHAT, f"Authorization: Bearer {KEY}"))
    text = path.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert len({line["connection"] for line in lines}) == 2
    assert text.count("[DONE]") == 2
    assert KEY not in text


# Settings


@pytest.mark.parametrize(
    ("url", "settings", "words"),
    [
        ("", {}, "expected the URL of a server"),
        ("http://a", {"replay": "folder"}, "expected the URL of a server"),
        ("ftp://a", {}, "upstream ftp://a"),
        ("http://a:port", {}, "upstream http://a:port"),
        ("", {"replay": "nowhere"}, "--replay nowhere: there are no recordings"),
        ("http://a", {"at_once": True}, "--at-once: needs --replay"),
        ("", {"replay": "nowhere", "check": True}, "--replay: excludes"),
        ("http://a", {"workers": 2}, "--workers"),
    ],
)
def test_wrong_settings_are_named(url: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ProxyApp(ProxyConfig(**settings), url)
