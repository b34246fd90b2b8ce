"""What the proxy does with a request: forward it, or answer it from a recording.

The answer's body passes as it comes: what one read from the upstream server gave of one chunk is
one chunk to the client. On the way it may be recorded, judged and spoiled; all of these are off
unless they were asked for. Read next: `streamtok.http.edge.upstream`.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from msgspec import Struct
from msgspec.structs import replace

from streamtok.api.route import refuse
from streamtok.clock import Clock
from streamtok.errors import RequestError
from streamtok.faults.inject import HEADER, Faults
from streamtok.http.edge.upstream import Upstream, UpstreamAnswer, end_to_end
from streamtok.http.request import Request
from streamtok.http.response import BrokenOff, Response
from streamtok.observe.trace import Tracer
from streamtok.proxy.judge import Judge, Verdict, json_object
from streamtok.proxy.recording import (
    VERSION,
    Exchange,
    Part,
    Recorder,
    Replayer,
    part,
    recorded_headers,
    replay,
)
from streamtok.proxy.watch import Watching

log = logging.getLogger(__name__)

CHAT = "/chat/completions"
EVENT_END = (b"\n\n", b"\r\n\r\n", b"\r\r")

Body = AsyncGenerator[bytes, None]


class Options(Struct, frozen=True):
    """What is done beside forwarding; nothing by default."""

    recorder: Recorder | None = None
    faults: Faults | None = None
    judge: Judge | None = None
    tracer: Tracer | None = None


class Forward:
    """Answers requests with what the upstream server says."""

    def __init__(self, upstream: Upstream, clock: Clock, options: Options) -> None:
        self._upstream = upstream
        self._clock = clock
        self._options = options

    async def handle(self, request: Request) -> Response:
        """Forward `request`; what goes wrong before an answer is there has a status of its own."""
        try:
            return await self._forward(await request.complete())
        except RequestError as error:
            return refuse(error)

    async def _forward(self, request: Request) -> Response:
        options, started_s = self._options, self._clock.monotonic_s()
        plan = None
        if options.faults is not None:
            is_stream = bool(json_object(request.body).get("stream"))
            is_chat = request.path.endswith(CHAT)
            plan = options.faults.plan_for(request, is_stream=is_stream, is_chat=is_chat)
            kept = tuple(field for field in request.headers if field[0] != HEADER)
            request = replace(request, headers=kept)
        verdict = options.judge.begin(request) if options.judge else None
        answer = await self._upstream.ask(request, Watching(options.tracer, verdict))
        head_at_s = self._clock.monotonic_s() - started_s
        body = answer.body
        if options.recorder is not None:
            body = self._recorded(options.recorder, request, answer, started_s, head_at_s)
        if verdict is not None:
            body = _judged(verdict, body)
        headers = end_to_end(answer.headers)
        response = Response(answer.status, headers, body, close=answer.close)
        if plan is None:
            return response
        if answer.header("content-type").startswith("text/event-stream"):
            response = replace(response, body=events(body))
        headers = tuple(field for field in headers if field[0] != "content-length")
        return plan.response(replace(response, headers=headers))

    async def _recorded(
        self,
        recorder: Recorder,
        request: Request,
        answer: UpstreamAnswer,
        started_s: float,
        head_at_s: float,
    ) -> Body:
        """Yield the body, and write the exchange when it is over, however it ends."""
        number, parts, complete = recorder.number(), list[Part](), False
        try:
            async with aclosing(answer.body):
                async for data in answer.body:
                    parts.append(part(self._clock.monotonic_s() - started_s, data))
                    yield data
            complete = True
        finally:
            exchange = Exchange(
                VERSION,
                request.method,
                request.target,
                recorded_headers(request.headers),
                part(0.0, request.body),
                answer.status,
                recorded_headers(end_to_end(answer.headers)),
                head_at_s,
                tuple(parts),
                complete,
            )
            await asyncio.shield(_write(recorder, number, exchange))


class Replay:
    """Answers requests from recordings: at their own pace, or `at_once`."""

    def __init__(self, replayer: Replayer, *, at_once: bool) -> None:
        self._replayer = replayer
        self._wait: Callable[[float], Awaitable[None]] = _no_wait if at_once else asyncio.sleep

    async def handle(self, request: Request) -> Response:
        """Answer `request` as it was answered when it was recorded; 404 if it never was."""
        try:
            exchange = self._replayer.find(await request.complete())
        except RequestError as error:
            return refuse(error)
        await self._wait(exchange.head_at_s)
        return Response(exchange.status, exchange.headers, replay(exchange, self._wait))


async def events(body: Body) -> Body:
    """Yield an event stream's events one by one, as faults on events need them."""
    rest = b""
    async with aclosing(body):
        async for data in body:
            rest += data
            while end := _event_end(rest):
                yield rest[:end]
                rest = rest[end:]
    if rest:
        yield rest


def _event_end(data: bytes) -> int:
    """Return where the first event in `data` ends; 0 if it is not complete."""
    ends = [place + len(mark) for mark in EVENT_END if (place := data.find(mark)) >= 0]
    return min(ends, default=0)


async def _judged(verdict: Verdict, body: Body) -> Body:
    """Yield `body`, and judge it at its end; one that the client leaves has no end to judge."""
    try:
        async with aclosing(body):
            async for data in body:
                yield data
    except BrokenOff:
        verdict.end()
        raise
    verdict.end()


async def _no_wait(_seconds: float) -> None:
    pass


async def _write(recorder: Recorder, number: int, exchange: Exchange) -> None:
    """Write an exchange in a thread; what cannot be written is logged, and the answer goes on."""
    try:
        await asyncio.to_thread(recorder.write, number, exchange)
    except OSError as error:
        log.error("an exchange was not recorded: %s", error)
