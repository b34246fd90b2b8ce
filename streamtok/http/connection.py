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
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus

import h11

from streamtok import __version__
from streamtok.clock import Clock
from streamtok.errors import BodyTooLarge, InvalidRequest, RequestError
from streamtok.http.request import HeaderList, Request, decode_headers
from streamtok.http.response import Response
from streamtok.http.transport import ByteStream, ConnectionLost

log = logging.getLogger(__name__)
access = logging.getLogger("streamtok.access")

CONTINUE = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
SERVER = f"streamtok/{__version__}"
FIRST_PROBE_S = 0.01  # how long after the end of input a client is first asked for a sign of life
LAST_PROBE_S = 1.0  # the pause between probes doubles up to this


@dataclass(frozen=True, slots=True)
class Service:
    """What a connection is given: who answers, how errors look, and the limits."""

    handle: Callable[[Request], Awaitable[Response]]
    refuse: Callable[[RequestError], Response]
    clock: Clock
    max_body_bytes: int
    max_header_bytes: int


class Connection:
    """Serves one ByteStream. `run` returns when the connection is over."""

    def __init__(self, stream: ByteStream, service: Service) -> None:
        self._stream = stream
        self._service = service
        self._h11 = h11.Connection(h11.SERVER, service.max_header_bytes)
        self._idle = True
        self._last_turn = False
        self._probe: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        stream.on_eof = self._input_ended
        stream.on_lost = self._lost

    async def run(self) -> None:
        """Answer requests in turn until either side closes."""
        self._task = asyncio.current_task()
        try:
            while not (self._last_turn and self._idle) and await self._turn():
                self._h11.start_next_cycle()
                self._idle = True
            await self._stream.close()
        except (ConnectionLost, asyncio.CancelledError):
            pass  # the client is gone, or the server gives up on it: there is nobody to tell
        except Exception:
            # Without the zero chunk the client can tell that the answer is not complete.
            log.exception("a connection failed")
        finally:
            self._stop_probing()
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
        """Return the next request with its body; None if the client sends no more."""
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = self._next_event()
            if event is h11.NEED_DATA:
                if self._h11.they_are_waiting_for_100_continue:
                    await self._send_event(CONTINUE)
                self._h11.receive_data(await self._stream.receive())
                self._idle = self._idle and not self._h11.trailing_data[0]
            elif isinstance(event, h11.Request):
                self._idle = False
                head = event
                self._check_length(head)
            elif isinstance(event, h11.Data):
                body += event.data
                self._check_size(len(body))
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                return self._request(head, bytes(body))
            else:  # ConnectionClosed, or PAUSED by a request to switch protocols
                return None

    def _next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            return self._h11.next_event()
        except h11.RemoteProtocolError as error:
            raise _Malformed(str(error), error.error_status_hint) from error

    def _check_length(self, head: h11.Request) -> None:
        """Refuse a body that is declared too large before it is sent."""
        for name, value in head.headers:
            if name == b"content-length":
                self._check_size(int(value))

    def _check_size(self, size: int) -> None:
        if size > (limit := self._service.max_body_bytes):
            raise BodyTooLarge(f"the body has {size} bytes or more; at most {limit} are read")

    def _request(self, head: h11.Request, body: bytes) -> Request:
        return Request(
            method=head.method.decode("ascii"),
            target=head.target.decode("latin-1"),
            headers=decode_headers(head.headers),
            body=body,
            http_version=head.http_version.decode("ascii"),
            peer=self._stream.peer,
        )

    async def _answer(self, request: Request | None, response: Response | None) -> None:
        """Send `response`, or what the handler answers to `request`, and log the turn."""
        clock = self._service.clock
        started_s, outcome = clock.monotonic_s(), "client gone"
        try:
            if response is None:
                assert request is not None
                response = await self._service.handle(request)
            self._stop_probing()
            await self._send(response, head_only=request is not None and request.method == "HEAD")
            outcome = "complete"
        finally:
            self._log(request, response, outcome, clock.monotonic_s() - started_s)

    async def _send(self, response: Response, head_only: bool) -> None:
        """Send status line, headers and body; each item of a streamed body is one chunk."""
        body = response.body
        if isinstance(body, bytes):
            await self._send_event(self._head(response, len(body)))
            if body and not head_only:
                await self._send_event(h11.Data(data=body))
        else:
            async with aclosing(body):
                await self._send_event(self._head(response, None))
                async for chunk in body:
                    await self._send_event(h11.Data(data=chunk))
        await self._send_event(h11.EndOfMessage())

    def _head(self, response: Response, length: int | None) -> h11.Response:
        """Return the status line and headers; h11 adds the transfer coding where it is needed."""
        headers: HeaderList = (
            ("date", formatdate(self._service.clock.wall_s(), usegmt=True)),
            ("server", SERVER),
            *response.headers,
        )
        if length is not None:
            headers = (*headers, ("content-length", str(length)))
        if self._last_turn:
            headers = (*headers, ("connection", "close"))
        reason = HTTPStatus(response.status).phrase
        titled = [(name.title(), value) for name, value in headers]  # as h11 writes its own
        return h11.Response(status_code=response.status, headers=titled, reason=reason)

    async def _send_event(self, event: h11.Event) -> None:
        data = self._h11.send(event)
        if data:
            await self._stream.send(data)

    # A client that may be gone

    def _input_ended(self) -> None:
        if not self._idle:
            loop = asyncio.get_running_loop()
            self._probe = loop.call_later(FIRST_PROBE_S, self._ask, FIRST_PROBE_S)

    def _ask(self, pause_s: float) -> None:
        """Write an interim response, unless the answer has begun; do it again after `pause_s`."""
        speaks_1_1 = self._h11.their_http_version not in (None, b"1.0")
        if self._h11.our_state is h11.SEND_RESPONSE and speaks_1_1:
            self._stream.write(self._h11.send(CONTINUE) or b"")
            again = min(2 * pause_s, LAST_PROBE_S)
            self._probe = asyncio.get_running_loop().call_later(pause_s, self._ask, again)

    def _stop_probing(self) -> None:
        if self._probe:
            self._probe.cancel()
            self._probe = None

    def _log(
        self, request: Request | None, response: Response | None, outcome: str, duration_s: float
    ) -> None:
        """Write the access log's one line for this turn."""
        line = f'"{request.method} {request.target}"' if request else '"-"'
        status = str(response.status) if response else "-"
        parts = [self._stream.peer, line, status, f"{1000 * duration_s:.0f} ms"]
        if outcome != "complete":
            parts.append(outcome)
        if response and (summary := response.summary()):
            parts.append(summary)
        access.info(" ".join(parts))


class _Malformed(InvalidRequest):
    """What was received is not HTTP; `hint` is the status h11 proposes."""

    def __init__(self, message: str, hint: int) -> None:
        super().__init__(f"malformed HTTP: {message}", code="malformed_http")
        self.status = hint
