"""Traces of single requests, kept in memory for the client that asked for one: `X-Trace: 1`.

`GET /v1/traces/{request id}` gives them, as the lines of `--trace-file`. So a program, such as the
server's own page, can lay what left the server beside what reached it. A request without the header
costs one look at its headers.

They are bounded in number and in bytes, the oldest go first, and only the key that sent a request
sees its trace. The request's bytes are not kept: its client has them.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

from msgspec.structs import replace

from streamtok.clock import Clock
from streamtok.errors import InvalidRequest
from streamtok.http.request import Request
from streamtok.http.response import Output, Response
from streamtok.http.tracer import StepName
from streamtok.http.tracer import Trace as Listener
from streamtok.http.transport import ByteStream
from streamtok.observe.sinks import weight
from streamtok.observe.trace import Record, Trace, Tracer

Handler = Callable[[Request], Awaitable[Response]]

HEADER = "x-trace"
MOST_TRACES = 256
MOST_BYTES = 32 * 2**20  # of all traces
MOST_BYTES_EACH = 2**20  # then a trace goes no further


class Kept:
    """What is kept of one request; `grow` is given the bytes that it takes more.

    `key` is None until the request has been admitted.
    """

    def __init__(self, clock: Clock, grow: Callable[[int], None]) -> None:
        self.key: str | None = None
        self.bytes = 0
        self.trace = Trace(Tracer(clock, [self._take]), "1")
        self._records: list[Record] = []
        self._grow = grow
        self._over = False

    def lines(self) -> bytes:
        """Return it as JSON, an object a line; what has happened so far, while it goes on."""
        from streamtok.observe.jsonl import JsonTrace  # few servers are asked for a trace

        encoder = JsonTrace()
        return b"".join(map(encoder.encode, list(self._records)))

    def drop(self) -> None:
        """Keep nothing of it any more."""
        self._over = True
        self._records.clear()
        self._grow(-self.bytes)

    def _take(self, record: Record) -> None:
        if self._over or self.bytes > MOST_BYTES_EACH:
            return
        self._records.append(record)
        size = weight(record)
        self.bytes += size
        self._grow(size)


class Traces:
    """Keeps traces. `around` is to be put around what handles requests."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str], Kept] = OrderedDict()
        self._bytes = 0

    def find(self, key: str, request_id: str) -> Kept | None:
        """Return what is kept of the request that `key` sent, if it is."""
        return self._kept.get((key, request_id))

    def around(self, handle: Handler) -> Handler:
        """Return a handler that does as `handle`, and keeps the traces that are asked for."""

        async def handle_traced(request: Request) -> Response:
            asked = request.header(HEADER)
            return await (handle(request) if asked is None else self._handle(handle, request))

        return handle_traced

    async def _handle(self, handle: Handler, request: Request) -> Response:
        if (asked := request.header(HEADER)) != "1":
            raise InvalidRequest(f"X-Trace: expected 1, found {asked!r}", code="invalid_value")
        kept = Kept(self._clock, self._grow)
        response = await handle(_heard(request, kept))
        request_id = next((value for name, value in response.headers if name == "x-request-id"), "")
        if kept.key is None or not request_id:  # refused before it was known who sends it
            kept.drop()
            return response
        self._keep((kept.key, request_id), kept)

        def close() -> None:
            kept.trace.step("finish", status=response.status)
            response.close()

        output = partial(_output, kept.trace, response.output)
        return replace(response, output=output, close=close)

    def _keep(self, place: tuple[str, str], kept: Kept) -> None:
        if before := self._kept.pop(place, None):
            before.drop()
        self._kept[place] = kept
        if len(self._kept) > MOST_TRACES:
            self._drop_oldest()

    def _grow(self, size: int) -> None:
        self._bytes += size
        while self._bytes > MOST_BYTES and self._kept:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._kept.popitem(last=False)[1].drop()


def _heard(request: Request, kept: Kept) -> Request:
    """Return `request` with its steps, and the reading of its body, reported to `kept` too."""
    trace = _Both(kept, request.trace)
    read = request.read
    if read is None:
        kept.trace.step("parse", **request.facts(), body_bytes=len(request.body))
        return replace(request, trace=trace)

    async def read_and_report() -> bytes:
        body = await read()
        kept.trace.step("parse", **request.facts(), body_bytes=len(body))
        return body

    return replace(request, trace=trace, read=read_and_report)


class _Both:
    """Reports steps to what is kept, and to the server's own trace where there is one."""

    def __init__(self, kept: Kept, other: Listener | None) -> None:
        self._kept = kept
        self._other = other

    def step(self, name: StepName, **facts: Any) -> None:
        if name == "admit":
            self._kept.key = facts["key"]
        self._kept.trace.step(name, **facts)
        if self._other is not None:
            self._other.step(name, **facts)


def _output(
    trace: Trace, make: Callable[[ByteStream], Output] | None, stream: ByteStream
) -> Output:
    """Return the output that an answer has, or a plain one, with what it writes recorded."""
    recorded = _Recorded(stream, trace)
    return make(cast(ByteStream, recorded)) if make else recorded


class _Recorded:
    """An output that records what it writes; for another output it is the stream to write to."""

    def __init__(self, stream: ByteStream, trace: Trace) -> None:
        self._stream = stream
        self._trace = trace

    async def send(self, data: bytes) -> None:
        if data:
            self._trace.bytes(data, sent=True)
        await self._stream.send(data)

    def hurry(self) -> None:
        pass

    def reset(self) -> None:
        self._trace.end("server", reset=True)
        self._stream.reset()
