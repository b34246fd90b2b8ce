"""`GET /v1/traces/{id}`: what left the server in answer to a request that asked for a trace."""

from streamtok.api.route import Operation, Route
from streamtok.api.services import Call, Services
from streamtok.errors import NotFound
from streamtok.http.response import Response


async def trace(services: Services, call: Call, request_id: str) -> Response:
    """Return the trace of a request, by the id in its `X-Request-Id`: an object a line.

    Raises:
        NotFound: none is kept, or it is another key's.
    """
    if (kept := services.find_trace(call.key, request_id)) is None:
        raise NotFound(
            f"no trace of the request {request_id!r} is kept; the header X-Trace: 1 asks for one",
            code="trace_not_found",
        )
    lines = await services.offload.run(kept.bytes, call.caller, kept.lines)
    headers = (("content-type", "application/x-ndjson"), ("cache-control", "no-store"))
    return Response(200, headers, lines)


ROUTES = (Route("GET", "/v1/traces/*", trace, Operation(media_type="application/x-ndjson")),)
