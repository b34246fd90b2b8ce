"""Chunks a second: the whole way of a streamed completion, beside uvicorn with starlette.

usage: bench_chunks.py

Both servers are processes of their own on asyncio's event loop, both frame with h11, and send the
same events in chunks of their own to the same client, which reads 32 streams at once. Here an
engine that is told its tokens gives them all at once, and each becomes text, JSON, an event and a
chunk. There the events are ready-made, taken from an answer of the other: what is measured is what
the two make of a stream, and not the JSON of another program. uvicorn and starlette have to be
installed.
"""

import asyncio
import importlib.util
import json
import multiprocessing
import selectors
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from streamtok.api.more.routes import ROUTES
from streamtok.api.route import refuse
from streamtok.api.routing import Api
from streamtok.clock import SystemClock
from streamtok.config import ConnectionConfig
from streamtok.http.server import Server
from streamtok.http.service import Service
from streamtok.testing import ScriptedEngine, listen_locally, make_services, write_model

STREAMS, TOKENS, ROUNDS = 32, 500, 5
BODY = json.dumps({"prompt": "x", "stream": True, "max_tokens": TOKENS}).encode()
REQUEST = (
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)


def serve_streamtok(pipe: Connection, events: list[bytes]) -> None:
    """Serve for ever; say at which port."""

    async def run() -> None:
        with TemporaryDirectory() as folder:
            engine = ScriptedEngine([97] * TOKENS)
            api, clock = Api(ROUTES), SystemClock()
            api.open(make_services(write_model(Path(folder) / "tiny"), engine, clock))
            server = Server(Service(api.handle, refuse, clock, ConnectionConfig()))
            pipe.send(listen_locally(server)[1])
            await asyncio.Event().wait()

    asyncio.run(run())


def serve_uvicorn(pipe: Connection, events: list[bytes]) -> None:
    """Serve `events` for ever; say at which port."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    async def chunks() -> AsyncIterator[bytes]:
        for event in events:
            yield event

    async def complete(request: Request) -> StreamingResponse:
        await request.json()
        return StreamingResponse(chunks(), media_type="text/event-stream")

    app = Starlette(routes=[Route("/v1/completions", complete, methods=["POST"])])
    sock = socket.create_server(("127.0.0.1", 0))
    pipe.send(sock.getsockname()[1])
    config = uvicorn.Config(app, http="h11", loop="asyncio", log_level="error", access_log=False)
    uvicorn.Server(config).run([sock])


def read(port: int, streams: int) -> list[bytes]:
    """Return the whole answers of so many streams at once."""
    answers: dict[socket.socket, bytearray] = {}
    with selectors.DefaultSelector() as selector:
        for _ in range(streams):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.sendall(REQUEST)
            selector.register(connection, selectors.EVENT_READ)
            answers[connection] = bytearray()
        while selector.get_map():
            for key, _ in selector.select():
                assert isinstance(key.fileobj, socket.socket)
                if data := key.fileobj.recv(65536):
                    answers[key.fileobj] += data
                else:
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
    return [bytes(answer) for answer in answers.values()]


def chunks_of(answer: bytes) -> list[bytes]:
    """Return the chunks of an answer, which has nothing but events in its body."""
    body = answer.partition(b"\r\n\r\n")[2]
    *chunks, last = body.split(b"\n\n\r\n")
    assert last == b"0\r\n\r\n", last
    return [chunk.partition(b"\r\n")[2] + b"\n\n" for chunk in chunks]


@contextmanager
def running(serve: Callable[[Connection, list[bytes]], None], events: list[bytes]) -> Iterator[int]:
    """Run a server in a process of its own; give its port."""
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=serve, args=(theirs, events))
    process.start()
    try:
        yield ours.recv()
    finally:
        process.kill()
        process.join()


def rate(port: int, chunks: int) -> float:
    """Return how many chunks a second come, of which each answer has so many."""
    begun_s = time.perf_counter()
    answers = read(port, STREAMS)
    took_s = time.perf_counter() - begun_s
    assert all(len(chunks_of(answer)) == chunks for answer in answers)
    return STREAMS * chunks / took_s


def main() -> None:
    """Measure in turns, and print medians."""
    if not all(map(importlib.util.find_spec, ("uvicorn", "starlette"))):
        sys.exit("uvicorn and starlette are needed: pip install uvicorn starlette")
    with running(serve_streamtok, []) as here:
        events = chunks_of(read(here, 1)[0])
        with running(serve_uvicorn, events) as there:
            rates = [(rate(here, len(events)), rate(there, len(events))) for _ in range(ROUNDS)]
    for name, values in zip(("streamtok", "uvicorn"), zip(*rates, strict=True), strict=True):
        print(f"{median(values):8.0f} chunks/s: {name}")
    print(f"{median(ours / theirs for ours, theirs in rates):8.2f} times as many")


if __name__ == "__main__":
    main()
