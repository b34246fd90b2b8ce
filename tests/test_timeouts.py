"""Clients that are slow, many, or never done: each limit's answer, and nobody else notices."""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamtok.api.route import refuse
from streamtok.clock import SystemClock
from streamtok.config import ConnectionConfig
from streamtok.http.connection import Connection
from streamtok.http.deadline import Deadline
from streamtok.http.request import Request
from streamtok.http.response import Response
from streamtok.http.server import Server
from streamtok.http.service import Service
from streamtok.http.transport import WRITE_AHEAD_BYTES
from streamtok.testing import MemoryStream, listen_locally

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"


async def greet(request: Request) -> Response:
    await request.complete()
    return Response(200, (), b"hello")


def service(handle: Any = greet, **limits: Any) -> Service:
    return Service(handle, refuse, SystemClock(), ConnectionConfig(**limits))


async def left_alone(sent: bytes, **limits: Any) -> bytes:
    """Send something and then nothing more; return what came until the server closed."""
    stream = MemoryStream()
    stream.feed(sent)
    await Connection(stream, service(**limits)).run()
    assert stream.closed
    return stream.sent


@pytest.mark.parametrize("sent", [b"G", GET[:-2], GET[:-1]])
async def test_a_head_that_does_not_end_is_answered_with_408(sent: bytes) -> None:
    answer = await left_alone(sent, header_timeout_s=0.01)
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"Connection: close" in answer
    assert b'"code":"request_timeout"' in answer


@pytest.mark.parametrize("sent", [POST, POST + b"half"])
async def test_a_body_that_does_not_come_is_answered_with_408(sent: bytes) -> None:
    answer = await left_alone(sent, header_timeout_s=0.01, body_timeout_s=0.01)
    assert answer.startswith(b"HTTP/1.1 408 ")


def deadline() -> Deadline:
    limits = ConnectionConfig(header_timeout_s=3, body_timeout_s=5, min_body_rate=10.0)
    return Deadline(limits)


def test_a_head_has_a_fixed_time() -> None:
    waiting = deadline()
    waiting.wait(100.0, first=True)
    assert waiting.left_s(100.0) == 3
    waiting.wait(100.0, first=False)
    assert waiting.left_s(100.0) == 75
    waiting.begin(110.0)
    assert waiting.left_s(112.0) == 1


def test_a_body_that_keeps_its_rate_has_time() -> None:
    coming = deadline()
    coming.begin_body(0.0)
    for second in range(1, 1000):
        assert coming.left_s(second) > 0
        coming.receive(10, second)


@given(bodies=st.lists(st.integers(1, 4_000_000), min_size=1, max_size=20))
def test_what_was_sent_buys_no_time_to_be_silent_with(bodies: list[int]) -> None:
    """Whoever sends a byte just before the deadline each time has soon used up what there is."""
    coming, now_s = deadline(), 0.0
    coming.begin_body(now_s)
    for size in bodies:  # a burst
        coming.receive(size, now_s)
    for sent in range(300):
        assert 0 < coming.left_s(now_s) <= 5
        now_s += 0.999 * coming.left_s(now_s)
        assert now_s < 5 + sent / 10
        coming.receive(1, now_s)


@pytest.mark.parametrize(
    ("sent", "answers"), [(b"", 0), (GET, 1), (GET + GET, 2)], ids=["new", "used", "used twice"]
)
async def test_an_idle_connection_is_closed_without_a_word(sent: bytes, answers: int) -> None:
    answer = await left_alone(sent, header_timeout_s=0.01, idle_timeout_s=0.01)
    assert answer.count(b"HTTP/1.1 200 OK") == answers
    assert answer.endswith(b"hello" if answers else b"")


async def test_a_connection_serves_so_many_requests() -> None:
    answer = await left_alone(GET * 5, max_requests_per_connection=3)
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert answer.count(b"Connection: close") == 1


@asynccontextmanager
async def listening(service: Service) -> AsyncIterator[tuple[Server, tuple[str, int]]]:
    server = Server(service)
    address = listen_locally(server)
    try:
        yield server, address
    finally:
        server.finish()
        await server.abort()


async def ask(address: tuple[str, int]) -> bytes:
    """Send one request and return the answer's first line."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(GET)
    line = await reader.readline()
    writer.close()
    return line


@pytest.mark.parametrize("limit", ["max_connections", "max_connections_per_address"])
async def test_connections_above_the_limit_get_503_and_room_comes_back(limit: str) -> None:
    async with listening(service(**{limit: 2})) as (server, address):
        held = [await asyncio.open_connection(*address) for _ in range(2)]
        for _, writer in held:
            writer.write(GET)
        for reader, _ in held:
            await reader.readuntil(b"hello")
        reader, writer = await asyncio.open_connection(*address)
        refused = await reader.read()
        assert refused.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"Retry-After: 1\r\n" in refused
        writer.close()
        for _, writer in held:
            writer.close()
        assert await server.wait(timeout_s=10)
        assert await ask(address) == b"HTTP/1.1 200 OK\r\n"


async def test_a_reader_that_takes_nothing_is_dropped_and_its_memory_is_bounded() -> None:
    closed = asyncio.Event()
    produced = 0

    async def flood(request: Request) -> Response:
        async def body() -> AsyncGenerator[bytes, None]:
            nonlocal produced
            try:
                while True:
                    produced += 1000
                    yield b"x" * 1000
            finally:
                closed.set()

        return Response(200, (), body())

    async with listening(service(flood, stall_timeout_s=0.05)) as (_, address):
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            await asyncio.get_running_loop().sock_connect(client, address)
            await asyncio.get_running_loop().sock_sendall(client, GET)
            await asyncio.wait_for(closed.wait(), timeout=10)
    # The kernel's buffer of the sending side grows by itself; ours does not.
    assert produced < 8 * 1024 * 1024
    assert WRITE_AHEAD_BYTES <= 64 * 1024


async def test_a_slow_reader_that_reads_gets_everything() -> None:
    """Slow is not stalled: each read restarts the patience."""
    size = 6 * 1024 * 1024

    async def large(request: Request) -> Response:
        return Response(200, (("connection", "close"),), b"x" * size)

    async with listening(service(large, stall_timeout_s=0.5)) as (_, address):
        reader, writer = await asyncio.open_connection(*address, limit=4096)
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\n")
        assert len(await reader.read(-1)) == size
        writer.close()


async def test_an_error_answer_is_not_lost_to_a_reset() -> None:
    """The client still sends when it is refused: it reads the answer before the end."""
    async with listening(service(max_body_bytes=10)) as (_, address):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 500_000
        )
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 413 Content Too Large\r\n")
        assert answer.endswith(b"}}")
        writer.close()
