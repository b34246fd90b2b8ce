"""Chunks a second: the whole way of a streamed completion, beside uvicorn with starlette.

usage: chunks.py [ROUNDS]

All servers are processes of their own on asyncio's event loop, frame with h11, and send the same
chunks to the same client, which reads 32 streams at once. There are two comparisons:

  * ready: here an engine that is told its tokens gives as many at once as a queue takes, and each
    becomes text, JSON, an event and a chunk; there the events are ready-made, taken from an answer
    of the other, so that uvicorn has nothing to do but to send them;
  * steps: both get token ids in the rhythm of an engine, one for each stream and turn of the event
    loop, each stream through a bounded asyncio.Queue, and make text, JSON, an event and a chunk of
    it, with the same JSON library. uvicorn's application does only that: no usage, no metrics, no
    stop strings, no limits. This is the comparison of what a client is sent by a real engine.

Beside the chunks a second stands the processor time that the server's process takes for each,
kernel included: on a machine that has other things to do too, that is what can be compared.

uvicorn and starlette have to be installed.
"""

import asyncio
import codecs
import importlib.util
import json
import multiprocessing
import selectors
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from operator import truediv
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import msgspec

from streamtok.api.more.routes import ROUTES
from streamtok.api.routing import Api
from streamtok.clock import SystemClock
from streamtok.engine.base import TokenStream
from streamtok.engine.commands import HIGH_WATER
from streamtok.http.server import Server
from streamtok.messages import Finished, Prefilled, SequenceRequest, Started, TokenEvent
from streamtok.testing import (
    ScriptedEngine,
    listen_locally,
    make_service,
    make_services,
    write_model,
)

STREAMS, TOKENS, ROUNDS = 32, 500, 5
TOKEN, TEXT = 68, "e"  # of the model that `write_model` makes
BODY = json.dumps({"prompt": "x", "stream": True, "max_tokens": TOKENS}).encode()
REQUEST = (
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
Serve = Callable[[Connection, list[bytes]], None]


class SteppingEngine(ScriptedEngine):
    """Gives each stream a token in each turn of the event loop, unless its queue is full."""

    def __init__(self) -> None:
        super().__init__([])
        self._left: dict[TokenStream, int] = {}
        self._steps: asyncio.Task[None] | None = None

    def submit(self, request_id: str, sequences: Sequence[SequenceRequest]) -> TokenStream:
        """Let a stream begin with the next step."""
        stream = TokenStream(1, lambda _: None)
        stream.put(Started(0))
        stream.put(Prefilled(0, 0))
        self._left[stream] = TOKENS
        if self._steps is None:
            self._steps = asyncio.create_task(self._run())
        return stream

    async def _run(self) -> None:
        """Step until every stream has ended."""
        while self._left:
            for stream, left in list(self._left.items()):
                if not left:
                    stream.put(Finished(0, "length", TOKENS))
                    del self._left[stream]
                elif stream.unread < HIGH_WATER:
                    stream.put(TokenEvent(0, TOKEN))
                    self._left[stream] = left - 1
            await asyncio.sleep(0)
        self._steps = None


def serve_streamtok(pipe: Connection, make_engine: Callable[[], ScriptedEngine]) -> None:
    """Serve for ever; say at which port."""

    async def run() -> None:
        with TemporaryDirectory() as folder:
            clock = SystemClock()
            api = Api(ROUTES)
            api.open(make_services(write_model(Path(folder) / "tiny"), make_engine(), clock))
            server = Server(make_service(api, clock))
            pipe.send(listen_locally(server)[1])
            await asyncio.Event().wait()

    asyncio.run(run())


def serve_ready(pipe: Connection, _: list[bytes]) -> None:
    """Serve with an engine that gives its tokens at once."""
    serve_streamtok(pipe, lambda: ScriptedEngine([TOKEN] * TOKENS))


def serve_steps(pipe: Connection, _: list[bytes]) -> None:
    """Serve with an engine that gives them step by step."""
    serve_streamtok(pipe, SteppingEngine)


def serve_uvicorn(pipe: Connection, chunks: Callable[[], AsyncIterator[bytes]]) -> None:
    """Serve `chunks` for ever with uvicorn and starlette; say at which port."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    async def complete(request: Request) -> StreamingResponse:
        await request.json()
        return StreamingResponse(chunks(), media_type="text/event-stream")

    app = Starlette(routes=[Route("/v1/completions", complete, methods=["POST"])])
    sock = socket.create_server(("127.0.0.1", 0))
    pipe.send(sock.getsockname()[1])
    config = uvicorn.Config(app, http="h11", loop="asyncio", log_level="error", access_log=False)
    uvicorn.Server(config).run([sock])


def serve_uvicorn_ready(pipe: Connection, events: list[bytes]) -> None:
    """Serve ready-made events."""

    async def chunks() -> AsyncIterator[bytes]:
        for event in events:
            yield event

    serve_uvicorn(pipe, chunks)


def serve_uvicorn_steps(pipe: Connection, events: list[bytes]) -> None:
    """Serve what is made of token ids, which come step by step through a queue for each stream.

    The last events, which have no text, are ready-made.
    """
    shape = msgspec.json.decode(events[0].removeprefix(b"data: "))
    encode = msgspec.json.Encoder().encode
    pieces = {TOKEN: TEXT.encode()}
    left: dict[asyncio.Queue[int | None], int] = {}
    running: list[asyncio.Task[None]] = []

    async def steps() -> None:
        while left:
            for queue, count in list(left.items()):
                if not count:
                    queue.put_nowait(None)
                    del left[queue]
                elif queue.qsize() < HIGH_WATER:
                    queue.put_nowait(TOKEN)
                    left[queue] = count - 1
            await asyncio.sleep(0)
        running.clear()

    async def chunks() -> AsyncIterator[bytes]:
        queue: asyncio.Queue[int | None] = asyncio.Queue(HIGH_WATER + 16)
        left[queue] = TOKENS
        if not running:
            running.append(asyncio.create_task(steps()))
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while (token := await queue.get()) is not None:
            if text := decoder.decode(pieces[token]):
                choice = {**shape["choices"][0], "text": text}
                yield b"data: %b\n\n" % encode({**shape, "choices": [choice]})
        for event in events[TOKENS:]:
            yield event

    serve_uvicorn(pipe, chunks)


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


@dataclass(frozen=True, slots=True)
class Running:
    """A server in a process of its own."""

    pid: int
    port: int

    def processor_s(self) -> float:
        """Return the processor time that its threads have taken so far (Linux: schedstat, in ns).

        `/proc/[pid]/stat` counts in hundredths of a second, a tenth of what a round takes.
        """
        threads = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


@dataclass(frozen=True, slots=True)
class Comparison:
    """Medians here and there: chunks a second, and microseconds of processor time for each."""

    rates: tuple[float, float]
    times_us: tuple[float, float]
    faster: float  # the median of the rounds' ratios
    cheaper: float


@contextmanager
def running(serve: Serve, events: list[bytes]) -> Iterator[Running]:
    """Run a server in a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=serve, args=(theirs, events))
    process.start()
    try:
        assert process.pid is not None
        yield Running(process.pid, ours.recv())
    finally:
        process.kill()
        process.join()


def rate(server: Running, chunks: int) -> tuple[float, float]:
    """Return the chunks that come in a second, of which each answer has so many, and the
    microseconds of processor time for one.
    """
    begun_s, spent_s = time.perf_counter(), server.processor_s()
    answers = read(server.port, STREAMS)
    took_s, spent_s = time.perf_counter() - begun_s, server.processor_s() - spent_s
    counts = {len(chunks_of(answer)) for answer in answers}
    assert counts == {chunks}, counts
    count = STREAMS * chunks
    return count / took_s, spent_s / count * 1e6


def missing() -> str | None:
    """Return why this cannot be measured, if it cannot."""
    if all(map(importlib.util.find_spec, ("uvicorn", "starlette"))):
        return None
    return "chunks: not compared, uvicorn and starlette are needed (pip install uvicorn starlette)"


def compare(rounds: int) -> dict[str, Comparison]:
    """Return medians of rounds, by comparison."""
    found = {}
    with running(serve_ready, []) as server:
        events = chunks_of(read(server.port, 1)[0])
    pairs: dict[str, tuple[Serve, Serve]] = {
        "ready": (serve_ready, serve_uvicorn_ready),
        "steps": (serve_steps, serve_uvicorn_steps),
    }
    for name, (ours, theirs) in pairs.items():
        with running(ours, []) as here, running(theirs, events) as there:
            rate(here, len(events)), rate(there, len(events))  # memory is mapped, and not counted
            both = [(rate(here, len(events)), rate(there, len(events))) for _ in range(rounds)]
        rates, times = zip(*(ours for ours, _ in both), strict=True)
        their_rates, their_times = zip(*(theirs for _, theirs in both), strict=True)
        found[name] = Comparison(
            (median(rates), median(their_rates)),
            (median(times), median(their_times)),
            median(map(truediv, rates, their_rates)),
            median(map(truediv, their_times, times)),
        )
    return found


def described(name: str, found: Comparison) -> str:
    """Return what was found, in one line."""
    (here, there), (ours_us, theirs_us) = found.rates, found.times_us
    return (
        f"{name}: {here:8.0f} chunks/s, uvicorn {there:8.0f}: {found.faster:.2f} times as many; "
        f"{ours_us:.1f} us of processor time for each, uvicorn {theirs_us:.1f}: "
        f"{found.cheaper:.2f} times as many for the same"
    )


def main() -> None:
    """Measure in turns, and print medians."""
    if why := missing():
        sys.exit(why)
    for name, found in compare(int((sys.argv[1:] or [ROUNDS])[0])).items():
        print(described(name, found))


if __name__ == "__main__":
    main()
