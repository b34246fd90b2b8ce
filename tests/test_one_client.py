"""One client must not cost the others: what each may make the server hold, write or compute."""

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from streamtok.api.route import refuse
from streamtok.clock import SystemClock
from streamtok.config import ConnectionConfig
from streamtok.errors import NotFound
from streamtok.http.connection import MOST_INTERIM, Connection
from streamtok.http.deadline import BodyBudget
from streamtok.http.request import Request
from streamtok.http.response import Response
from streamtok.http.server import Server
from streamtok.http.service import Service
from streamtok.http.strict import CHUNK_OVERHEAD_BYTES
from streamtok.testing import MemoryStream, listen_locally

CHUNKED = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


class Handler:
    """Refuses all but /a by the head, and keeps what bodies it was given."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.hold: asyncio.Event | None = None

    async def __call__(self, request: Request) -> Response:
        if request.path != "/a":
            return refuse(NotFound("no such path"))
        self.bodies.append((await request.complete()).body)
        if self.hold:
            await self.hold.wait()
        return Response(200, (), b"hello")


def service(handle: Any = None, **limits: Any) -> Service:
    return Service(handle or Handler(), refuse, SystemClock(), ConnectionConfig(**limits))


async def answer(*pieces: bytes, **limits: Any) -> bytes:
    """Send `pieces`, and no end; return what came until the server closed."""
    stream = MemoryStream()
    running = asyncio.ensure_future(Connection(stream, service(**limits)).run())
    for piece in pieces:
        stream.feed(piece)
        await asyncio.sleep(0)
    await asyncio.wait_for(running, timeout=10)
    return stream.sent


# The head is judged before the body


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
@pytest.mark.parametrize("framing", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
async def test_what_the_head_refuses_is_answered_without_its_body(
    expect: bytes, framing: bytes
) -> None:
    """At once, with the one final status, and the connection closes: its end was not read."""
    head = b"POST /b HTTP/1.1\r\nHost: a\r\n" + expect + framing + b"\r\n\r\n"
    got = await answer(head)
    assert got.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert b"\r\nConnection: close\r\n" in got
    assert got.count(b"HTTP/1.1") == 1
    body = b"x" * 9 if b"Length" in framing else b"9\r\n" + b"x" * 9 + b"\r\n0\r\n\r\n"
    cut = await answer(head[:20], head[20:], body, b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
    assert cut.count(b"HTTP/1.1") == 1


async def test_a_refused_request_without_a_body_leaves_the_connection_open() -> None:
    head = b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    got = await answer(head + head, idle_timeout_s=0.01)
    assert got.count(b"HTTP/1.1 404") == 2
    assert b"Connection: close" not in got


async def test_who_waits_for_it_is_told_to_continue_once_the_head_is_accepted() -> None:
    stream = MemoryStream()
    running = asyncio.ensure_future(Connection(stream, service()).run())
    stream.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    await stream.wait_for(lambda s: s.sent == b"HTTP/1.1 100 Continue\r\n\r\n")
    stream.feed(b"ab")
    await stream.wait_for(lambda s: s.sent.endswith(b"hello"))
    stream.feed_eof()
    await running


# Bodies that are kept


async def test_bodies_above_the_budget_of_all_are_refused_and_room_comes_back() -> None:
    handler = Handler()
    handler.hold = asyncio.Event()
    budget, asked = BodyBudget(1000, free=100), service(handler)

    def post(size: int) -> bytes:
        return b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size

    streams = [MemoryStream() for _ in range(4)]
    running = [
        asyncio.ensure_future(Connection(stream, asked, budget=budget).run()) for stream in streams
    ]
    streams[0].feed(post(1100)[:-1])  # all but the last byte, and it is held
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    streams[1].feed(post(1000))
    await asyncio.wait_for(running[1], timeout=10)
    assert streams[1].sent.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b'"code":"request_bodies"' in streams[1].sent
    streams[2].feed(post(100))  # small ones always have room
    streams[0].lose()
    await running[0]
    streams[3].feed(post(1100))
    handler.hold.set()
    for stream in streams[2:]:
        await stream.wait_for(lambda s: s.sent.endswith(b"hello"))
        stream.feed_eof()
    await asyncio.gather(*running)
    assert sorted(map(len, handler.bodies)) == [100, 1100]
    assert budget.hold(0, 1100) == 1000  # all of it is free again


# Chunks


async def test_a_body_of_one_byte_chunks_is_refused_before_it_costs_much() -> None:
    sent = CHUNKED + b"1\r\n \r\n" * 400_000
    got = await answer(sent)
    assert got.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"chunks of the body are too small" in got


async def test_chunk_extensions_have_a_budget() -> None:
    got = await answer(CHUNKED + (b"1;" + b"x" * 1000 + b"\r\n \r\n") * 30)
    assert got.startswith(b"HTTP/1.1 400 Bad Request\r\n")


@pytest.mark.parametrize(("size", "count"), [(1, 3000), (3, 50_000), (1000, 1000), (65536, 20)])
async def test_bodies_in_chunks_of_a_sensible_size_are_read(size: int, count: int) -> None:
    """Few of one byte, or any number of those that hold as much as they cost."""
    handler, stream = Handler(), MemoryStream()
    running = asyncio.ensure_future(Connection(stream, service(handler)).run())
    if 6 + len(b"%x" % size) - 2 > size and count * 4 > CHUNK_OVERHEAD_BYTES:
        count = CHUNK_OVERHEAD_BYTES // 6
    stream.feed(CHUNKED + (b"%x\r\n" % size + b"x" * size + b"\r\n") * count + b"0\r\n\r\n")
    stream.feed_eof()
    await running
    assert stream.sent.startswith(b"HTTP/1.1 200 OK")
    assert list(map(len, handler.bodies)) == [size * count]


async def test_other_connections_have_their_turn_between_lines_and_requests() -> None:
    """Neither a body of many chunks nor many requests sent ahead keep the loop to themselves."""
    get = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
    chunks = CHUNKED + b"8\r\n12345678\r\n" * 20_000 + b"0\r\n\r\n"
    for sent, most in ((get * 1000, 10), (chunks, 1000)):
        stream, turns = MemoryStream(), 0
        running = asyncio.ensure_future(Connection(stream, service()).run())
        stream.feed(sent)
        stream.feed_eof()
        while not running.done():
            turns += 1
            await asyncio.sleep(0)
        assert turns > sent.count(b"\n") / most / 4


# Half-closed clients, HEAD, versions


async def test_a_client_that_only_finished_sending_gets_five_interim_responses_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streamtok.http.probe.FIRST_PAUSE_S", 0.0001)
    monkeypatch.setattr("streamtok.http.probe.LAST_PAUSE_S", 0.0001)
    handler, stream, asked = Handler(), MemoryStream(), 0
    handler.hold = asyncio.Event()

    def is_reset() -> bool:
        nonlocal asked
        asked += 1
        if asked == 20:
            assert handler.hold
            handler.hold.set()
        return False

    monkeypatch.setattr(stream, "is_reset", is_reset)
    running = asyncio.ensure_future(Connection(stream, service(handler)).run())
    stream.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
    await stream.wait_for(lambda s: b"100 Continue" in s.sent)
    stream.feed(b"x")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    stream.feed_eof()
    await running
    assert stream.sent.count(b"HTTP/1.1 100 Continue") == MOST_INTERIM == 5  # the expected one too
    assert stream.sent.endswith(b"hello")


@pytest.mark.parametrize(
    "sent",
    [
        b"HEAD /a HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        b"HEAD /a HTTP/1.1\r\n\r\n",
        b"HEAD /a HTTP/2.0\r\nHost: a\r\n\r\n",
        b"HEAD /a\r\nHost: a\r\n\r\n",
        b"HEAD  /a HTTP/1.1\r\nHost: a\r\n\r\n",
        b"HEAD /" + b"a" * 20_000,
        b"HEAD /a HTTP/1.1\nHost: a\r\n\r\n",
        b"\r\nHEAD /a HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"HEAD /a HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000,
        b"HEAD /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
        b"HEAD /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_a_head_that_is_refused_gets_no_body(sent: bytes) -> None:
    got = await answer(sent)
    assert got.startswith((b"HTTP/1.1 4", b"HTTP/1.1 505"))
    head, _, body = got.partition(b"\r\n\r\n")
    assert body == b""
    assert int(head.partition(b"Content-Length: ")[2].partition(b"\r")[0]) > 50  # a GET's


@pytest.mark.parametrize("method", [b"HEADS", b"HEAD-1", b"head", b"GET"])
async def test_what_only_begins_like_head_gets_its_body(method: bytes) -> None:
    got = await answer(method + b" /a HTTP/1.1\r\n\r\n")
    assert got.endswith(b"}}")


@pytest.mark.parametrize("version", [b"1.2", b"1.3", b"1.9"])
async def test_a_higher_minor_version_is_read_as_1_1(version: bytes) -> None:
    get = b"GET /a HTTP/" + version + b"\r\nHost: a\r\n\r\n"
    got = await answer(get + get, idle_timeout_s=0.01)  # it is kept alive, as 1.1 is
    assert got.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert (await answer(get.replace(b"Host: a\r\n", b""))).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("version", [b"0.9", b"2.0", b"3.1"])
async def test_another_major_version_is_a_505(version: bytes) -> None:
    got = await answer(b"GET /a HTTP/" + version + b"\r\nHost: a\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 505 ")


# Readers that do not read


async def test_a_stalled_reader_is_reset_so_that_the_kernel_keeps_nothing_for_it() -> None:
    async def flood(request: Request) -> Response:
        async def body() -> AsyncGenerator[bytes, None]:
            while True:
                yield b"x" * 1000

        return Response(200, (), body())

    server = Server(service(flood, stall_timeout_s=0.05))
    address = listen_locally(server)
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await loop.sock_connect(client, address)
        await loop.sock_sendall(client, b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await loop.sock_recv(client, 9) == b"HTTP/1.1 "
        assert await server.wait(10)

        async def read() -> None:
            while await loop.sock_recv(client, 65536):
                pass

        with pytest.raises(ConnectionResetError):
            await read()
    server.finish()


# Logs


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /a?prompt=secret HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://a/a?prompt=secret HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /b?prompt=a?secret HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a?prompt=secret HTTP/1.1\r\nHost: a\r\nbad\r\n\r\n",
        b"GET /a?prompt=secret HTTP/7.0\r\nHost: a\r\n\r\n",
        b"GET /a?prompt=a secret HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a?prompt=secret\r\n\r\n",
    ],
)
async def test_the_access_log_holds_no_query(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        await answer(sent, idle_timeout_s=0.01)
    assert "secret" not in caplog.text
    assert "GET " in caplog.records[-1].message
    assert "/a" in caplog.records[-1].message or "/b" in caplog.records[-1].message


@pytest.mark.skipif(not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="the system has no such bound")
async def test_the_kernel_takes_little_for_a_client_that_does_not_read() -> None:
    """So that its stream is paused soon, and gives its slot to who waits."""
    produced = 0

    async def flood(request: Request) -> Response:
        async def body() -> AsyncGenerator[bytes, None]:
            nonlocal produced
            while True:
                produced += 1000
                yield b"x" * 1000

        return Response(200, (), body())

    server = Server(service(flood, stall_timeout_s=0.05))
    address = listen_locally(server)
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await loop.sock_connect(client, address)
        await loop.sock_sendall(client, b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await loop.sock_recv(client, 9) == b"HTTP/1.1 "
        assert await server.wait(10)
    server.finish()
    assert produced < 512 * 1024
