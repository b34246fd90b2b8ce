"""One connection: exact bytes in, exact bytes out, however the input is cut."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamtok import __version__
from streamtok.api.route import refuse
from streamtok.config import ConnectionConfig
from streamtok.http.connection import Connection
from streamtok.http.request import Request
from streamtok.http.response import Response
from streamtok.http.service import Service
from streamtok.testing import FakeClock, MemoryStream

INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
HEAD = f"Date: Tue, 14 Nov 2023 22:13:20 GMT\r\nServer: streamtok/{__version__}\r\n".encode()


async def echo(request: Request) -> Response:
    """Answer with the request's line and body; stream it word by word where the path says so."""
    request = await request.complete()
    line = f"{request.method} {request.target} ".encode()
    if request.path != "/stream":
        return Response(200, (), line + request.body)

    async def words() -> AsyncGenerator[bytes, None]:
        for word in (line + request.body).split():
            yield word

    return Response(200, (), words())


def plain_service(
    handle: Callable[[Request], Awaitable[Response]] = echo, **limits: Any
) -> Service:
    given = {"max_body_bytes": 1000, "max_header_bytes": 2000} | limits
    return Service(handle, refuse, FakeClock(), ConnectionConfig(**given))


async def converse(*pieces: bytes, service: Service | None = None) -> bytes:
    """Send `pieces`, each when the one before has been read, then end; return all that came."""
    stream = MemoryStream()
    running = asyncio.ensure_future(Connection(stream, service or plain_service()).run())
    for piece in pieces:
        stream.feed(piece)
        await asyncio.sleep(0)
    stream.feed_eof()
    await running
    return stream.sent


def plain(body: bytes, headers: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return b"HTTP/1.1 200 OK\r\n" + HEAD + length + headers + b"\r\n" + body


def chunked(*chunks: bytes) -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))
    return b"HTTP/1.1 200 OK\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + body


GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED_POST = (
    b"POST /stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nx y\r\nA;name=value\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n"
)
EXCHANGES = {
    "get": (GET, plain(b"GET / ")),
    "post": (
        b"POST /p?q=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
        plain(b"POST /p?q=1 body"),
    ),
    "chunked both ways": (CHUNKED_POST, chunked(b"POST", b"/stream", b"x", b"y0123456789")),
    "keep-alive and pipelining": (
        GET + CHUNKED_POST + GET,
        plain(b"GET / ") + chunked(b"POST", b"/stream", b"x", b"y0123456789") + plain(b"GET / "),
    ),
    "head": (
        b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" + GET,
        b"HTTP/1.1 200 OK\r\n" + HEAD + b"Content-Length: 7\r\n\r\n" + plain(b"GET / "),
    ),
    "close": (
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + GET,
        plain(b"GET / ", b"Connection: close\r\n"),
    ),
    "http/1.0 whole": (
        b"GET / HTTP/1.0\r\n\r\n" + GET,
        plain(b"GET / ", b"Connection: close\r\n"),
    ),
    "http/1.0 streamed": (
        b"GET /stream HTTP/1.0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + HEAD + b"Connection: close\r\n\r\nGET/stream",
    ),
    "nothing": (b"", b""),
    "half a request": (b"GET / HT", None),
    "not http": (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", None),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", None),
    "bad length": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", None),
    "bad chunk": (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        None,
    ),
}


@pytest.mark.parametrize("name", EXCHANGES)
async def test_the_answer_is_these_bytes_wherever_the_input_is_cut(name: str) -> None:
    sent, expected = EXCHANGES[name]
    halves = [(sent[:cut], sent[cut:]) for cut in range(1, len(sent))]
    for pieces in ((sent,), *halves, tuple(sent[i : i + 1] for i in range(len(sent)))):
        answer = await converse(*pieces)
        answer = answer.replace(INTERIM, b"")  # on a slow machine the half-closed client is probed
        if expected is not None:
            assert answer == expected
        else:  # the words depend on how much of the nonsense had come
            assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert b"Connection: close" in answer
            assert b'"code":"malformed_http"' in answer


async def test_each_item_of_a_body_is_one_chunk_in_one_write() -> None:
    stream = MemoryStream()
    running = asyncio.ensure_future(Connection(stream, plain_service()).run())
    stream.feed(CHUNKED_POST)
    await stream.wait_for(lambda s: s.sent.endswith(b"0\r\n\r\n"))
    assert stream.writes[1:] == [
        b"4\r\nPOST\r\n",
        b"7\r\n/stream\r\n",
        b"1\r\nx\r\n",
        b"b\r\ny0123456789\r\n",
        b"0\r\n\r\n",
    ]
    stream.feed_eof()
    await running


async def test_continue_is_sent_before_the_body_and_not_where_the_body_is_refused() -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    stream = MemoryStream()
    running = asyncio.ensure_future(Connection(stream, plain_service()).run())
    stream.feed(head % 4)
    await stream.wait_for(lambda s: s.sent == b"HTTP/1.1 100 Continue\r\n\r\n")
    stream.feed(b"body")
    await stream.wait_for(lambda s: s.sent.endswith(b"POST / body"))
    stream.feed_eof()
    await running
    refused = await converse(head % 1001)
    assert refused.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in refused


async def test_a_body_is_refused_as_soon_as_it_is_too_large() -> None:
    chunk = b"258\r\n" + b"x" * 600 + b"\r\n"
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = await converse(head + chunk + chunk)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"more than 1000 bytes" in answer


async def test_a_head_that_is_too_large_is_refused() -> None:
    answer = await converse(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 3000)
    assert answer.startswith(b"HTTP/1.1 431 ")


class Waiting:
    """A handler that tells when it began and waits until it may go on."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.cancelled = False

    async def __call__(self, request: Request) -> Response:
        self.begun.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return Response(200, (), b"late")


async def test_a_reset_cancels_the_handler() -> None:
    handler, stream = Waiting(), MemoryStream()
    running = asyncio.ensure_future(Connection(stream, plain_service(handler)).run())
    stream.feed(GET)
    await handler.begun.wait()
    stream.lose()
    await running
    assert handler.cancelled
    assert stream.closed


async def test_a_reset_closes_a_streamed_body() -> None:
    closed = asyncio.Event()

    async def handle(request: Request) -> Response:
        async def body() -> AsyncGenerator[bytes, None]:
            try:
                while True:
                    yield b"more"
            finally:
                closed.set()

        return Response(200, (), body())

    stream = MemoryStream()
    running = asyncio.ensure_future(Connection(stream, plain_service(handle)).run())
    stream.feed(GET)
    await stream.wait_for(lambda s: len(s.writes) > 3)
    stream.lose()
    await running
    assert closed.is_set()


async def test_who_only_finished_sending_is_probed_and_gets_the_answer() -> None:
    """Interim responses ask whether the client is there; a client that is skips them."""
    handler, stream = Waiting(), MemoryStream()
    running = asyncio.ensure_future(Connection(stream, plain_service(handler)).run())
    stream.feed(GET)
    await handler.begun.wait()
    stream.feed_eof()
    await stream.wait_for(lambda s: len(s.writes) == 2)
    handler.go_on.set()
    await running
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert stream.sent.removeprefix(interim * 2) == plain(b"late")


async def test_an_http_1_0_client_is_not_probed() -> None:
    handler, stream = Waiting(), MemoryStream()
    running = asyncio.ensure_future(Connection(stream, plain_service(handler)).run())
    stream.feed(b"GET / HTTP/1.0\r\n\r\n")
    await handler.begun.wait()
    stream.feed_eof()
    await asyncio.sleep(0)
    handler.go_on.set()
    await running
    assert stream.writes[0].startswith(b"HTTP/1.1 200 OK")


async def test_a_body_that_fails_ends_without_the_zero_chunk(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handle(request: Request) -> Response:
        async def body() -> AsyncGenerator[bytes, None]:
            yield b"one"
            raise RuntimeError("boom")

        return Response(200, (), body())

    answer = await converse(GET, service=plain_service(handle))
    assert answer.endswith(b"3\r\none\r\n")
    assert "boom" in caplog.text


async def test_finish_ends_an_idle_connection_and_lets_a_busy_one_answer() -> None:
    idle, stream = MemoryStream(), MemoryStream()
    quiet = Connection(idle, plain_service())
    resting = asyncio.ensure_future(quiet.run())
    handler = Waiting()
    busy = Connection(stream, plain_service(handler))
    running = asyncio.ensure_future(busy.run())
    stream.feed(GET + GET)
    await handler.begun.wait()
    quiet.finish()
    busy.finish()
    await resting
    assert idle.closed
    handler.go_on.set()
    await running
    assert stream.sent == plain(b"late", b"Connection: close\r\n")


@given(data=st.binary(max_size=60), head=st.sampled_from([b"", GET, GET[:-2], CHUNKED_POST[:70]]))
def test_any_bytes_are_answered_or_closed(data: bytes, head: bytes) -> None:
    """Whatever is sent, the connection ends, and what it sent before is HTTP."""
    answer = asyncio.run(asyncio.wait_for(converse(head + data), timeout=5))
    assert answer == b"" or answer.startswith(b"HTTP/1.1 ")


@pytest.mark.parametrize("name", ["keep-alive and pipelining", "chunked both ways", "post"])
async def test_a_reset_at_any_moment_ends_the_connection(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In the head, in the body, during the answer, between requests: nothing is left running."""
    sent, _ = EXCHANGES[name]
    for cut in range(len(sent) + 1):
        for turns in (0, 1, 5):
            stream = MemoryStream()
            running = asyncio.ensure_future(Connection(stream, plain_service()).run())
            stream.feed(sent[:cut])
            for _ in range(turns):
                await asyncio.sleep(0)
            stream.lose()
            await asyncio.wait_for(running, timeout=5)
            assert stream.closed
    assert not caplog.records
