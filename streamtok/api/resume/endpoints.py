"""How clients ask for resumable streams, and come back to them.

A stream that is asked for with `X-Resumable: 1` (or `"resumable": true` in its body) has an `id:`
line with each event: the answer's id and the event's number. So has each event stream of
`GET /v1/generate`, since a browser's EventSource sends the last id when it connects again
(WHATWG HTML, "Server-sent events", `Last-Event-ID`) and cannot send other headers.
`GET /v1/streams/{id}` gives the rest of any such stream.
"""

from collections.abc import Sequence
from functools import wraps
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from streamtok.api.input.validation import checked, read_object
from streamtok.api.openai import answers
from streamtok.api.resume.streams import Streams
from streamtok.api.route import Endpoint
from streamtok.api.services import Call, Services
from streamtok.errors import InvalidRequest
from streamtok.http.framings import EventStream, Offer, negotiate
from streamtok.http.request import Request
from streamtok.http.response import Response, json_response

ENDPOINT = "/v1/streams"
HEADER, FIELD = "x-resumable", "resumable"
LAST_EVENT_ID = "last-event-id"
MOST_DIGITS = 10  # of an event's number
ON, OFF = ("1", "true"), ("", "0", "false")


class StreamQuery(Struct, forbid_unknown_fields=True):
    """`GET /v1/streams/{id}`: how many events the client has, where no header says it."""

    starting_after: Annotated[int, Meta(ge=0)] = 0


class StreamDeleted(Struct):
    """What `DELETE /v1/streams/{id}` answers."""

    id: str
    object: str = "stream"
    deleted: bool = True


def post(streams: Streams, endpoint: Endpoint, offers: Sequence[Offer]) -> Endpoint:
    """Return an endpoint whose streams are resumable where the request says so."""

    @wraps(endpoint)
    async def respond(services: Services, call: Call) -> Response:
        if not _asked(call.request):
            return await endpoint(services, call)
        if read_object(call.request.body).get("stream") is not True:
            raise InvalidRequest(f"{HEADER} needs stream: true", param="stream")
        if not _has_events(call.request, offers):
            raise InvalidRequest(f"{HEADER} needs text/event-stream", param="accept")
        return await _begin(streams, endpoint, services, call)

    return respond


def get(streams: Streams, endpoint: Endpoint, offers: Sequence[Offer]) -> Endpoint:
    """Return an endpoint that is asked by an EventSource, which comes back by itself."""

    @wraps(endpoint)
    async def respond(services: Services, call: Call) -> Response:
        if not _has_events(call.request, offers):
            if _asked(call.request):
                raise InvalidRequest(f"{HEADER} needs text/event-stream", param="accept")
            return await endpoint(services, call)
        if last := call.request.header(LAST_EVENT_ID):
            answer_id, position = _position(last)
            return streams.read(await streams.find(services, call, answer_id), position)
        return await _begin(streams, endpoint, services, call)

    return respond


async def stream(streams: Streams, services: Services, call: Call, answer_id: str) -> Response:
    """`GET /v1/streams/{id}`: the events of a resumable stream after those the client has."""
    query = checked(call.request.query, StreamQuery, strict=False)
    position = query.starting_after
    if last := call.request.header(LAST_EVENT_ID):
        named, position = _position(last)
        if named != answer_id:
            raise InvalidRequest(f"Last-Event-ID: {last!r} is of another stream")
    return streams.read(await streams.find(services, call, answer_id), position)


async def delete(streams: Streams, services: Services, call: Call, answer_id: str) -> Response:
    """`DELETE /v1/streams/{id}`: cancel a resumable stream, and forget it."""
    await streams.cancel(await streams.find(services, call, answer_id))
    return json_response(answers.encode(StreamDeleted(answer_id)))


async def _begin(streams: Streams, endpoint: Endpoint, services: Services, call: Call) -> Response:
    """Answer a call with a stream that can be resumed, if that is offered here."""
    if not streams.offered(services):
        response = await endpoint(services, call)
        return replace(response, headers=(*response.headers, (HEADER, "0")))
    answer = streams.new(call)
    response = await answer.make(services, call, endpoint)
    try:
        await streams.add(services, answer)
    except BaseException:
        response.close()
        raise
    answer.headers = (*response.headers, (HEADER, "1"), ("x-stream-id", answer.id))
    first = answer.read(0)
    answer.run(response)
    return replace(response, headers=answer.headers, body=first.body, close=first.close)


def _asked(request: Request) -> bool:
    """Whether a request asks for a resumable stream.

    Raises:
        InvalidRequest: it neither does nor does not.
    """
    given = (request.header(HEADER) or "").lower()
    if given not in (*ON, *OFF):
        raise InvalidRequest(f"{HEADER}: expected 1 or 0, found {given!r}", param=HEADER)
    if b'"resumable"' not in request.body:
        return given in ON
    field = read_object(request.body).get(FIELD)
    if not isinstance(field, bool | None):
        raise InvalidRequest(f"{FIELD} must be a boolean", param=FIELD, code="invalid_value")
    return given in ON or bool(field)


def _has_events(request: Request, offers: Sequence[Offer]) -> bool:
    return isinstance(negotiate(request.header("accept"), offers), EventStream)


def _position(last: str) -> tuple[str, int]:
    """Return the stream and the number of events that a `Last-Event-ID` names."""
    answer_id, _, number = last.rpartition("/")
    if not (answer_id and number.isascii() and number.isdigit() and len(number) <= MOST_DIGITS):
        raise InvalidRequest(f"Last-Event-ID: expected STREAM/NUMBER, found {last!r}")
    return answer_id, int(number)
