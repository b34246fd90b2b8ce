"""One connection, from its first byte to its last: the conversation that this project is about.

Each turn reads a request with h11, hands it to the handler, and sends the answer: a complete one
with `Content-Length`, a streamed one as `Transfer-Encoding: chunked`, where one item of the body is
one chunk and one write. Then the next turn begins on the same connection, unless either side said
otherwise. Requests that were sent ahead (pipelining) wait in the socket's buffer for their turn.

A client may go away at any time. If the connection is reset, the turn is cancelled. If the client
only finished sending, it may be gone or it may be waiting for its answer (`nc` does that), and
only a write can tell: then, until the answer begins, interim `100 Continue` responses are sent,
which every HTTP/1.1 client skips (RFC 9110 section 15.2) and a closed socket answers by a reset.

Does not know what is served. Read next: `streamtok.api.routing`.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

import h11

from streamtok import __version__
from streamtok.clock import Clock
from streamtok.config import ConnectionConfig
from streamtok.errors import RequestError, Slow
from streamtok.http.edge.forwarded import Proxies
from streamtok.http.request import HeaderList, Request, decode_headers
from streamtok.http.response import BrokenOff, Output, Response
from streamtok.http.strict import CHUNK_LINE_BYTES, Guard, Malformed
from streamtok.http.tracer import Trace, Tracer
from streamtok.http.transport import ByteStream, ConnectionLost

log = logging.getLogger(__name__)
access = logging.getLogger("streamtok.access")

REASONS = {413: "Content Too Large"}  # RFC 9110; Python before 3.13 has the older name
CONTINUE = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
SERVER = f"streamtok/{__version__}"
FIRST_PROBE_S = 0.01  # how long after the end of input a client is first asked for a sign of life
LAST_PROBE_S = 1.0  # the pause between probes doubles up to this
NO_PROXIES = Proxies("")


@dataclass(frozen=True, slots=True)
class Service:
    """What a connection is given: who answers, how errors look, the limits, and who traces it."""

    handle: Callable[[Request], Awaitable[Response]]
    refuse: Callable[[RequestError], Response]
    clock: Clock
    limits: ConnectionConfig
    proxies: Proxies = NO_PROXIES
    tracer: Tracer | None = None


class Connection:
    """Serves one ByteStream. `run` returns when the connection is over."""

    def __init__(self, stream: ByteStream, service: Service, trace: Trace | None = None) -> None:
        self._stream = stream
        self._service = service
        self._limits = service.limits
        self._trace = trace
        self._guard = Guard(service.limits)
        # The guard's limits come first, so that h11's own is never met.
        unread_bytes = service.limits.max_header_bytes + CHUNK_LINE_BYTES
        self._h11 = h11.Connection(h11.SERVER, unread_bytes)
        self._idle = True
        self._turns = 0
        self._begun_s = 0.0  # when the first byte of the present request came
        self._last_turn = False
        self._output: Output | None = None  # of the present answer, where it has one of its own
        self._probe: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        stream.on_eof = self._input_ended
        stream.on_lost = self._lost

    async def run(self, refusal: RequestError | None = None) -> None:
        """Answer requests in turn until either side closes; with `refusal`, only say that."""
        self._task = asyncio.current_task()
        try:
            if refusal is not None:
                self._last_turn = True
                await self._answer(None, self._service.refuse(refusal))
            while not (self._last_turn and self._idle) and await self._turn():
                self._h11.start_next_cycle()
                self._guard.next_message()
                self._idle = True
            complete = self._h11.their_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED)
            await self._stream.close(linger=not complete)
        except (ConnectionLost, asyncio.CancelledError):
            pass  # the client is gone, or the server gives up on it: there is nobody to tell
        except BrokenOff:
            pass  # without the zero chunk the client can tell that the answer is not complete
        except Exception:
            log.exception("a connection failed")
        finally:
            if self._probe:
                self._probe.cancel()
            self._stream.abort()

    def finish(self) -> None:
        """Make the turn that is running the last one; an idle connection ends now."""
        self._last_turn = True
        if self._idle:
            self._lost()

    def _lost(self) -> None:
        if self._task:
            self._task.cancel()

    # One turn, in the order of the conversation

    async def _turn(self) -> bool:
        """Read one request and answer it; return whether another may follow."""
        self._turns += 1
        self._last_turn = self._last_turn or self._turns >= self._limits.max_requests_per_connection
        try:
            request = await self._read_request()
        except RequestError as error:
            self._last_turn = True  # what follows on the wire is not known to be a request
            await self._answer(None, self._service.refuse(error))
            return False
        if request is None:
            return False
        await self._answer(request, None)
        return self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE

    async def _read_request(self) -> Request | None:
        """Return the next request with its body; None if the client sends no more.

        Raises:
            RequestError: what comes is not a request, exceeds a limit, or comes too slowly.
        """
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                if self._h11.they_are_waiting_for_100_continue:
                    await self._send_event(CONTINUE)
                if not await self._read_more():
                    return None
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                return self._request(head, bytes(body))
            else:  # PAUSED: h11 waits for the end of a turn that has none
                raise AssertionError(f"h11 gave {event!r} while a request is read")

    async def _read_more(self) -> bool:
        """Give h11 what the guard lets pass, from the socket if need be; return False at the end.

        Raises:
            RequestError: the guard objects, the request breaks off, or it comes too slowly.
        """
        while not (good := self._guard.take()):
            try:
                async with asyncio.timeout(self._patience_s()):
                    data = await self._stream.receive()
            except TimeoutError:
                if not self._guard.begun:
                    return False
                raise Slow("the request comes too slowly") from None
            if not data:
                if self._guard.begun:
                    raise Malformed("the connection ended within a request")
                return False
            if self._idle:
                self._idle = False
                self._begun_s = self._service.clock.monotonic_s()
            self._guard.feed(data)
        self._h11.receive_data(good)
        return True

    def _patience_s(self) -> float:
        """Return how long to wait for the next bytes, in seconds."""
        limits = self._limits
        if not self._guard.begun:
            return limits.idle_timeout_s if self._turns > 1 else limits.header_timeout_s
        waited_s = self._service.clock.monotonic_s() - self._begun_s
        if self._guard.in_head:
            return limits.header_timeout_s - waited_s
        allowed_s = limits.body_timeout_s + self._guard.body_bytes / limits.min_body_rate
        return limits.header_timeout_s + allowed_s - waited_s

    def _request(self, head: h11.Request, body: bytes) -> Request:
        headers = decode_headers(head.headers)
        request = Request(
            method=head.method.decode("ascii"),
            target=head.target.decode("latin-1"),
            headers=headers,
            body=body,
            http_version=head.http_version.decode("ascii"),
            peer=self._service.proxies.client(self._stream.peer, headers),
            trace=self._trace,
        )
        if self._trace is not None:
            self._trace.step("parse", **_parsed(request))
        return request

    async def _answer(self, request: Request | None, response: Response | None) -> None:
        """Send `response`, or what the handler answers to `request`, and log the turn."""
        clock = self._service.clock
        started_s, outcome = clock.monotonic_s(), "client gone"
        try:
            if response is None:
                assert request is not None
                response = await self._service.handle(request)
            await self._send(response, head_only=request is not None and request.method == "HEAD")
            outcome = "complete"
        except BrokenOff:
            outcome = "broken off"
            raise
        finally:
            self._output = None
            if response is not None:
                response.close()
            if self._trace is not None:
                self._trace.step("finish", status=response and response.status, outcome=outcome)
            self._log(request, response, outcome, clock.monotonic_s() - started_s)

    async def _send(self, response: Response, head_only: bool) -> None:
        """Send status line, headers and body; each item of a streamed body is one chunk."""
        body = response.body
        if response.output:
            self._output = response.output(self._stream)
        trailers: HeaderList = ()
        if isinstance(body, bytes):
            await self._send_event(self._head(response, len(body)))
            if body and not head_only:
                await self._send_event(h11.Data(data=body))
        else:
            async with aclosing(body):
                await self._send_event(self._head(response, None))
                if not head_only:
                    async for part in body:
                        if self._trace is not None:
                            self._trace.step("chunk", bytes=len(part))
                        await self._send_event(h11.Data(data=part))
                    trailers = response.trailers()
        await self._send_event(h11.EndOfMessage(headers=_titled(trailers)))

    def _head(self, response: Response, length: int | None) -> h11.Response:
        """Return the status line and headers; h11 adds the transfer coding where it is needed."""
        headers: HeaderList = (
            ("date", formatdate(self._service.clock.wall_s(), usegmt=True)),
            ("server", SERVER),
            *response.headers,
        )
        if length is not None and response.status != 204:  # RFC 9110 section 8.6
            headers = (*headers, ("content-length", str(length)))
        if self._last_turn:
            headers = (*headers, ("connection", "close"))
        reason = REASONS.get(response.status) or HTTPStatus(response.status).phrase
        return h11.Response(status_code=response.status, headers=_titled(headers), reason=reason)

    async def _send_event(self, event: h11.Event) -> None:
        data = self._h11.send(event)
        if data:
            await (self._output or self._stream).send(data)

    # A client that may be gone

    def _input_ended(self) -> None:
        if self._output:
            self._output.hurry()
        if not self._idle:
            loop = asyncio.get_running_loop()
            self._probe = loop.call_later(FIRST_PROBE_S, self._ask, FIRST_PROBE_S)

    def _ask(self, pause_s: float) -> None:
        """See whether the last write met a reset; write an interim response if nothing else is.

        Is repeated after `pause_s`, and then at longer intervals.
        """
        if self._stream.is_reset():
            self._lost()
            return
        if self._h11.our_state is h11.SEND_RESPONSE and self._speaks_1_1():
            self._stream.write(self._h11.send(CONTINUE) or b"")
        again = min(2 * pause_s, LAST_PROBE_S)
        self._probe = asyncio.get_running_loop().call_later(pause_s, self._ask, again)

    def _speaks_1_1(self) -> bool:
        return self._h11.their_http_version not in (None, b"1.0")

    def _log(
        self, request: Request | None, response: Response | None, outcome: str, duration_s: float
    ) -> None:
        """Write the access log's one line for this turn."""
        sent = self._guard.line.decode("latin-1")
        line = json.dumps(f"{request.method} {request.target}" if request else sent)
        status = str(response.status) if response else "-"
        parts = [
            request.peer if request else self._stream.peer,
            line,
            status,
            f"{1000 * duration_s:.0f} ms",
        ]
        if outcome != "complete":
            parts.append(outcome)
        if response and (summary := response.summary()):
            parts.append(summary)
        access.info(" ".join(parts))


def _parsed(request: Request) -> dict[str, Any]:
    """Return what a trace tells of a request, and which trace it is a part of (W3C's headers)."""
    context = {name: request.header(name) for name in ("traceparent", "tracestate")}
    return {
        "method": request.method,
        "target": request.target,
        "version": request.http_version,
        "body_bytes": len(request.body),
        **{name: value for name, value in context.items() if value},
    }


def _titled(headers: HeaderList) -> list[tuple[str, str]]:
    """Return `headers` with names as h11 writes its own."""
    return [(name.title(), value) for name, value in headers]
