"""Responses in the background: OpenAI's own way to a response that outlives its connection.

`POST /v1/responses` with `background: true` returns at once. Then `GET /v1/responses/{id}` has its
status, and with `?stream=true&starting_after=N` its events after the one with that number, live;
`POST /v1/responses/{id}/cancel` ends it. It is a resumable answer that waits for no reader, and it
goes on by itself when the server is started again.
"""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import wraps
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, structs
from msgspec.structs import replace

from streamtok.answer.events import Began, Usage
from streamtok.api.endpoint import answer as generate
from streamtok.api.input.validation import checked, read_object
from streamtok.api.openai import answers
from streamtok.api.openai.streaming import obfuscate
from streamtok.api.parameters import check_streamed
from streamtok.api.responses import responses, stored
from streamtok.api.responses.answers import (
    ArgumentsDelta,
    OutputTextDelta,
    ResponseDeleted,
)
from streamtok.api.responses.events import ResponseEvents
from streamtok.api.resume.answers import BACKGROUND, Answer
from streamtok.api.resume.rows import StreamRow
from streamtok.api.resume.streams import Streams
from streamtok.api.route import Endpoint
from streamtok.api.services import Call, Services
from streamtok.errors import InvalidRequest, NotFound, RequestError
from streamtok.http.response import Body, Response, chunks_of, json_response

EVENTS = (("accept", "text/event-stream"), ("content-type", "application/json"))
NO_CONVERSATION = b"null"  # of a response that is not kept any more
UNFINISHED = ("queued", "in_progress")
DELTA = re.compile(rb"^event: response\.[a-z_.]+\.delta\ndata: ")


class ResponseQuery(Struct, forbid_unknown_fields=True):
    """`GET /v1/responses/{id}`: what a query can say.

    `include_obfuscation` adds the field to the events of a stream, or takes it away; without it,
    they are as they were made.
    """

    stream: bool = False
    starting_after: Annotated[int, Meta(ge=0)] | None = None
    include_obfuscation: bool | None = None


class Background:
    """The endpoints of responses, with those in the background; `streams` has them."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        streams.on_background, streams.on_lost = self._keep_failed, self._keep_lost

    def around(self, endpoint: Endpoint) -> Endpoint:
        """Return an endpoint whose responses are in the background where the request says so."""

        @wraps(endpoint)
        async def respond(services: Services, call: Call) -> Response:
            body = call.request.body
            if b'"background"' in body and read_object(body).get("background") is True:
                return await self.respond(services, call)
            return await endpoint(services, call)

        return respond

    async def respond(self, services: Services, call: Call) -> Response:
        """Begin a response in the background, and return it as it is, or its events."""
        body = read_object(call.request.body)
        _check(services, body)
        request = replace(
            call.request, headers=EVENTS, body=json.dumps(body | {"stream": True}).encode()
        )
        made = self._streams.new(replace(call, request=request), BACKGROUND)
        prepared: list[tuple[ResponseEvents, Began]] = []

        async def endpoint(services: Services, call: Call) -> Response:
            asked, dialect, ignored = await responses.prepare(services, call)
            fingerprint = services.engine.fingerprint
            began = Began("", 0, asked.model, fingerprint, 1, Usage(0, 0, 0))
            prepared.append((dialect, began))
            return await generate(services, call, asked, dialect, ignored)

        making = self._streams.make(services, made, replace(call, request=request), endpoint)
        await asyncio.wait([making, made.submitted], return_when=asyncio.FIRST_COMPLETED)
        if making.done():
            making.result()
        [(dialect, began)] = prepared
        created = int(made.row.recording.times[0])
        response = await dialect.queued(structs.replace(began, id=made.id, created=created))
        made.queued = answers.encode(response)
        await self._streams.add(services, made)
        if body.get("stream"):
            await made.log.begun()
            return self._streams.attach(made, 0, numbered=False)
        return json_response(made.queued)

    async def get(self, endpoint: Endpoint, services: Services, call: Call, name: str) -> Response:
        """Return a response as it is now, or its events."""
        query = checked(responses.without_include(call), ResponseQuery, strict=False)
        if query.stream:
            found = await self._streams.find(services, call, name)
            await found.log.begun()
            position = 0 if query.starting_after is None else query.starting_after + 1
            rest = self._streams.attach(found, position, numbered=False)
            if query.include_obfuscation is None:
                return rest
            assert not isinstance(rest.body, bytes)
            return replace(rest, body=_obfuscated(rest.body, query.include_obfuscation))
        if query.starting_after is not None:
            raise InvalidRequest("starting_after needs stream=true", param="starting_after")
        if (running := self._running(call, name)) is not None:
            return json_response(await _snapshot(running))
        return await endpoint(services, _without_query(call), name)

    async def cancel(self, services: Services, call: Call, name: str) -> Response:
        """End a response in the background; one that has ended already is returned as it is."""
        await self._streams.made(name)
        if (running := self._running(call, name)) is not None:
            body = await _snapshot(running, status="cancelled")
            await self._streams.cancel(running)
            await _keep(services, running.row, body)
            return json_response(body)
        found = await responses.find(services, call, name)
        body = json.loads(found.body)
        if not body.get("background"):
            raise InvalidRequest("only responses with background: true can be cancelled")
        if body["status"] in UNFINISHED:  # it waits to go on after a restart
            if not await self._streams.abandon(name):
                raise MadeElsewhere(name)
            found = replace(found, body=json.dumps(body | {"status": "cancelled"}).encode())
            await stored.keep(services.meter.ledger.database, found, services.stored_responses)
        return json_response(found.body)

    async def delete(
        self, endpoint: Endpoint, services: Services, call: Call, name: str
    ) -> Response:
        """Forget a response; one that runs is cancelled first."""
        await self._streams.made(name)
        if (running := self._running(call, name)) is None:
            deleted = await endpoint(services, call, name)
            self._streams.drop(name)
            return deleted
        await self._streams.cancel(running)
        await stored.forget(services.meter.ledger.database, name)
        return json_response(answers.encode(ResponseDeleted(name)))

    def _running(self, call: Call, name: str) -> Answer | None:
        """Return a response in the background of the caller's key that has not ended."""
        found = self._streams.running(name)
        if found is None or found.row.kind != BACKGROUND or found.log.ended:
            return None
        if found.key != call.key:
            raise NotFound(f"no response is kept for {name!r}", code="response_not_found")
        return found

    async def _keep_failed(self, services: Services, made: Answer) -> None:
        """Keep a response that has failed, once it has ended; others are kept as usual."""
        await made.log.finished()
        if made.log.events and (last := made.log.events[-1]).startswith(b"event: response.failed"):
            body = json.loads(last.partition(b"data: ")[2])["response"]
            await _keep(services, made.row, json.dumps(body).encode())

    async def _keep_lost(self, services: Services, row: StreamRow, error: RequestError) -> None:
        """Keep a response that cannot go on in this process as one that has failed."""
        if (found := await stored.kept(services.meter.ledger.database, row.id)) is not None:
            failure = {"code": "server_error", "message": error.message}
            body = json.loads(found.body) | {"status": "failed", "error": failure}
            await _keep(services, row, json.dumps(body).encode())


class MadeElsewhere(RequestError):
    """409: another server process computes this response."""

    status = 409
    type = "invalid_request_error"
    default_code = "response_elsewhere"

    def __init__(self, name: str) -> None:
        super().__init__(f"{name!r} is being computed by another process of this server")


def _check(services: Services, body: dict[str, Any]) -> None:
    """Check that a response can be in the background.

    Raises:
        InvalidRequest: it is not to be kept, or none are kept here.
    """
    check_streamed(body.get("stream_options"), body.get("stream"))
    if body.get("store") is False or not services.stored_responses:
        raise InvalidRequest("background needs store: true", param="background")


async def _snapshot(made: Answer, status: str = "in_progress") -> bytes:
    """Return the body of a response that has not ended."""
    if made.queued and not made.log.events:
        waiting = "queued" if status == "in_progress" else status
        return json.dumps(json.loads(made.queued) | {"status": waiting}).encode()
    await made.log.begun()
    body = json.loads(made.log.events[0].partition(b"data: ")[2])["response"]
    return json.dumps(body | {"status": status}).encode()


async def _keep(services: Services, row: StreamRow, body: bytes) -> None:
    """Keep what has become of a response, with the input that was kept at its beginning."""
    database = services.meter.ledger.database
    begun = await stored.kept(database, row.id)
    conversation = begun.conversation if begun else NO_CONVERSATION
    kept = stored.KeptResponse(row.id, row.key, body, conversation)
    await stored.keep(database, kept, services.stored_responses)


async def _obfuscated(body: Body, wanted: bool) -> AsyncGenerator[Sequence[bytes], None]:
    """Yield events with the field `obfuscation` in those with a delta, or without it."""
    async with aclosing(body):
        async for chunks in body:
            yield [_with_obfuscation(chunk, wanted) for chunk in chunks_of(chunks)]


def _with_obfuscation(event: bytes, wanted: bool) -> bytes:
    if not (head := DELTA.match(event)):
        return event
    delta = msgspec.json.decode(event[head.end() :], type=OutputTextDelta | ArgumentsDelta)
    delta.obfuscation = UNSET
    if wanted:
        obfuscate(delta)
    return head[0] + answers.encode(delta) + b"\n\n"


def _without_query(call: Call) -> Call:
    path = call.request.target.partition("?")[0]
    return replace(call, request=replace(call.request, target=path))
