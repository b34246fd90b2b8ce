"""One connection, from its first byte to its last: the conversation that this project is about.

Theory of operation. A connection is a loop of turns; one turn is one request and its answer. Bytes
take this way: socket -> `Guard`, which passes on only what has one reading -> h11, which makes
events of them -> `Request` -> the handler -> `Response` -> h11 -> socket.

1. The head is read. The handler is called with it at once, before any body: it can refuse the
   request, and wants the body only if it does not (`Request.complete`). Only then is
   `100 Continue` sent to a client that waits for it, and a byte of the body buffered.
2. The answer is sent: a complete one with `Content-Length`, a streamed one as `Transfer-Encoding:
   chunked`, where the chunks of one item of the body leave in one write.
3. If both sides are done with the message, the next turn begins. Requests sent ahead (pipelining)
   wait in the guard's buffer for it. If a body has not been read, where it ends is not known, so
   the connection closes after the response, once the client has had time to read it.

Whatever a client does wrong ends in a RequestError, which is answered with its status, or in the
end of the connection: no byte of it is answered twice, and none is taken for another request.

Every resource that a client can use up has a bound: the bytes and the time of a head, the time a
body may pause, the bytes of all bodies together, the lines that are looked at before other
connections have their turn, and the bytes that wait for a client that does not read.

A client may go away at any time. If the connection is reset, the task of the turn is cancelled. If
the client only finished sending, it is probed (`streamtok.http.probe`).

Does not know what is served.

Read next: `streamtok.http.strict`.
"""

import asyncio
import logging
from contextlib import aclosing
from email.utils import formatdate
from functools import partial
from http import HTTPStatus

import h11
from msgspec.structs import replace

from streamtok import __version__
from streamtok.errors import RequestError, RequestTimeout
from streamtok.http import access
from streamtok.http.body import BodyFramer
from streamtok.http.deadline import BodyBudget, Deadline
from streamtok.http.probe import Probe
from streamtok.http.request import HeaderList, Request, decode_headers
from streamtok.http.response import BrokenOff, Output, Response
from streamtok.http.service import Service
from streamtok.http.strict import CHUNK_LINE_BYTES, Guard, Malformed
from streamtok.http.tracer import Trace
from streamtok.http.transport import READ_AHEAD_BYTES, ByteStream, ConnectionLost

log = logging.getLogger(__name__)

REASONS = {413: "Content Too Large"}  # RFC 9110; Python before 3.13 has the older name
CONTINUE = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
SERVER = f"streamtok/{__version__}"
# Interim responses to one request. Go's client takes five, Java's eight, then they fail; undici
# fails at the first it did not ask for, but it never ends its half of a connection.
MOST_INTERIM = 5


class Connection:
    """Serves one ByteStream. `run` returns when the connection is over.

    `budget` is what all connections of a server share; without one it has its own.
    """

    def __init__(
        self,
        stream: ByteStream,
        service: Service,
        trace: Trace | None = None,
        budget: BodyBudget | None = None,
    ) -> None:
        limits = service.limits
        self._stream = stream
        self._service = service
        self._limits = limits
        self._now_s = service.clock.monotonic_s
        self._trace = trace
        self._budget = budget or BodyBudget(limits.max_buffered_bytes, READ_AHEAD_BYTES)
        self._held = 0  # of the budget
        self._guard = Guard(limits)
        self._deadline = Deadline(limits)
        # The guard's limits come first, so that h11's own is never met.
        self._h11 = h11.Connection(h11.SERVER, limits.max_header_bytes + CHUNK_LINE_BYTES)
        self._idle = True
        self._turns = 0
        self._interim = 0  # interim responses in this turn
        self._parsed = False  # whether the trace knows of the present request
        self._last_turn = False
        self._output: Output | None = None  # of the present answer, where it has one of its own
        self._probe = Probe(stream.is_reset, self._send_interim, self._lost)
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
            pass  # the client is gone, or the server gives up on it: nobody would hear an error
        except BrokenOff:
            pass  # without the zero chunk the client knows that the answer is not complete
        except Exception:
            log.exception("a connection failed")
        finally:
            self._probe.stop()
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
        self._interim, self._parsed = 0, False
        self._last_turn = self._last_turn or self._turns >= self._limits.max_requests_per_connection
        try:
            request = await self._read_head()
        except RequestError as error:
            self._last_turn = True  # what follows on the wire is not known to be a request
            await self._answer(None, self._service.refuse(error))
            return False
        if request is None:
            return False
        await self._answer(request, None)
        return self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE

    async def _read_head(self) -> Request | None:
        """Return the next request, its body still to be read; None if the client sends no more.

        Raises:
            RequestError: what comes is not a request, exceeds a limit, or comes too slowly.
        """
        self._deadline.wait(self._now_s(), first=self._turns == 1)
        if self._guard.has_more:  # sent ahead: other connections first, or many would hold them up
            await asyncio.sleep(0)
            self._begin()
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            if not await self._read_more():
                return None
        assert isinstance(event, h11.Request), event
        headers = decode_headers(event.headers)
        request = Request(
            method=event.method.decode("ascii"),
            target=event.target.decode("latin-1"),
            headers=headers,
            body=b"",
            http_version=event.http_version.decode("ascii"),
            peer=self._service.peers.client(self._stream.peer, headers),
            trace=self._trace,
        )
        if self._guard.has_body:
            return replace(request, read=partial(self._read_body, request))
        self._h11.next_event()  # the end of the message
        self._report(request, 0)
        return request

    async def _read_body(self, request: Request) -> bytes:
        """Read the rest of the present `request`.

        Raises:
            RequestError: it is malformed or too large, comes too slowly, or there is no room.
        """
        body = bytearray()
        self._deadline.begin_body(self._now_s())
        while not isinstance(event := self._h11.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                body += event.data
                self._held = self._budget.hold(self._held, len(body))
                continue
            if self._h11.they_are_waiting_for_100_continue:
                self._interim += 1
                await self._send_event(CONTINUE)
            await self._read_more()
        self._report(request, len(body))
        return bytes(body)

    async def _read_more(self) -> bool:
        """Give h11 what the guard lets pass, from the socket if need be; return False at the end.

        Raises:
            RequestError: the guard objects, the request breaks off, or it comes too slowly.
        """
        guard, read_bytes = self._guard, self._guard.body_bytes
        while not (good := guard.take()):
            try:
                async with asyncio.timeout(self._deadline.left_s(self._now_s())):
                    data = await self._stream.receive()
            except TimeoutError:
                if not guard.begun:
                    return False
                raise RequestTimeout("the request comes too slowly") from None
            if not data:
                if guard.begun:
                    raise Malformed("the connection ended within a request")
                return False
            self._begin()
            guard.feed(data)
        self._deadline.receive(guard.body_bytes - read_bytes, self._now_s())
        self._h11.receive_data(good)
        if guard.has_more:  # many lines: other connections have their turn too
            await asyncio.sleep(0)
        return True

    def _begin(self) -> None:
        """Note that the first byte of a request has come, if it is that."""
        if self._idle:
            self._idle = False
            self._deadline.begin(self._now_s())

    async def _answer(self, request: Request | None, response: Response | None) -> None:
        """Send `response`, or what the handler answers to `request`, and log the turn."""
        started_s, outcome = self._now_s(), "client gone"
        try:
            if response is None:
                assert request is not None
                response = await self._handle(request)
            await self._send(response, head_only=self._guard.expects_no_body)
            outcome = "complete"
        except BrokenOff:
            outcome = "broken off"
            raise
        finally:
            self._output = None
            if response is not None:
                response.close()
            if self._trace is not None:
                if request is not None:
                    self._report(request, self._guard.body_bytes)
                self._trace.step("finish", status=response and response.status, outcome=outcome)
            peer = request.peer if request else self._stream.peer
            line = self._guard.line.decode("latin-1")
            asked = f"{request.method} {request.target}" if request else line
            access.log(peer, asked, response, outcome, self._now_s() - started_s)

    async def _handle(self, request: Request) -> Response:
        try:
            return await self._service.handle(request)
        except RequestError as error:  # of the body, where the handler does not answer it
            return self._service.refuse(error)
        finally:
            # The handler has made of the body what it needs
            self._budget.release(self._held)
            self._held = 0

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
            elif head_only and self._h11.their_state is h11.IDLE:
                return  # a HEAD that h11 has not seen: it would have us send the body
        else:
            async with aclosing(body):
                await self._send_event(self._head(response, None))
                if not head_only:
                    output = self._output or self._stream
                    framer = BodyFramer(self._h11, self._trace, singly=bool(self._output))
                    self._service.attach(body, framer, self._stream)
                    async for item in body:
                        for data in framer.frame(item):
                            if data:
                                await output.send(data)
                    trailers = response.trailers()
        await self._send_event(h11.EndOfMessage(headers=_titled(trailers)))

    def _head(self, response: Response, length: int | None) -> h11.Response:
        """Return the status line and headers; h11 adds the transfer coding where it is needed."""
        own = (
            ("date", formatdate(self._service.clock.wall_s(), usegmt=True)),
            ("server", SERVER),
        )
        given = {name for name, _ in response.headers}
        headers: HeaderList = (
            *(field for field in own if field[0] not in given),  # a proxy passes on its server's
            *response.headers,
        )
        if length is not None and response.status != 204:  # RFC 9110 section 8.6
            headers = (*headers, ("content-length", str(length)))
        if self._last_turn or self._h11.their_state is h11.SEND_BODY:
            headers = (*headers, ("connection", "close"))
        status = response.status
        known = status in HTTPStatus.__members__.values()  # a proxy passes others on
        reason = REASONS.get(status) or (HTTPStatus(status).phrase if known else "")
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
            self._probe.start()

    def _send_interim(self) -> None:
        """Send an interim response, if one may be sent now."""
        speaks_1_1 = self._h11.their_http_version not in (None, b"1.0")
        waits = self._h11.our_state is h11.SEND_RESPONSE
        if speaks_1_1 and waits and self._interim < MOST_INTERIM:
            self._interim += 1
            self._stream.write(self._h11.send(CONTINUE) or b"")

    def _report(self, request: Request, body_bytes: int) -> None:
        """Report `request` to the trace, if there is one, and once."""
        if self._trace is not None and not self._parsed:
            self._parsed = True
            self._trace.step("parse", **request.facts(), body_bytes=body_bytes)


def _titled(headers: HeaderList) -> list[tuple[str, str]]:
    """Return `headers` with names as h11 writes its own."""
    return [(name.title(), value) for name, value in headers]
