"""Which path and method leads where, and how every failure becomes a JSON answer.

`Api.handle` is the one function the HTTP layer calls. It never raises: a RequestError is answered
with its own status, anything else is our bug, logged with its traceback and answered with 500.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from streamtok.api import chat, completions, info, schemas
from streamtok.api.services import Services
from streamtok.errors import MethodNotAllowed, NotFound, RequestError, Unavailable, Unsupported
from streamtok.http.request import Request
from streamtok.http.response import Response, json_response

log = logging.getLogger(__name__)

Endpoint = Callable[..., Awaitable[Response]]  # (services, request[, rest of the path])


@dataclass(frozen=True, slots=True)
class Route:
    """`path` may end in "/*": what stands there is given to the endpoint."""

    method: str
    path: str
    endpoint: Endpoint


HEALTH = Route("GET", "/health", info.page)  # answered by the Api itself
ROUTES = (
    HEALTH,
    Route("POST", chat.ENDPOINT, chat.chat),
    Route("POST", completions.ENDPOINT, completions.complete),
    Route("GET", "/v1/models", info.models),
    Route("GET", "/v1/models/*", info.model),
    Route("GET", "/v1/usage", info.usage_sums),
    Route("GET", "/v1/usage/*", info.usage),
    Route("GET", "/metrics", info.metrics),
    Route("GET", "/", info.page),
)
# Media types a JSON body may be declared as: curl -d says the second unless told otherwise.
JSON_TYPES = ("", "application/json", "application/x-www-form-urlencoded", "text/plain")


class Api:
    """Answers requests. Until `open` is called, and after `drain`, only to say that it does not."""

    def __init__(self) -> None:
        self._services: Services | None = None
        self._draining = False

    def open(self, services: Services) -> None:
        """Serve from now on."""
        self._services = services

    def drain(self) -> None:
        """Let what runs go on, but report to load balancers that this server is leaving."""
        self._draining = True

    async def handle(self, request: Request) -> Response:
        """Answer `request`, whatever it is."""
        try:
            response = await self._dispatch(request)
        except RequestError as error:
            response = refuse(error)
        except Exception:
            log.exception("%s %s failed", request.method, request.target)
            response = refuse(RequestError("an internal error occurred; the server's log has more"))
        if self._services:
            found = _find(request.path)
            endpoint = found[0].path if found else "none"
            requests = self._services.meter.metrics.requests
            requests.labels(endpoint, str(response.status)).inc()
        return response

    async def _dispatch(self, request: Request) -> Response:
        found = _find(request.path)
        if found is None:
            raise NotFound(f"there is nothing at {request.path}", code="unknown_url")
        route, rest = found
        allowed = (*(("GET", "HEAD") if route.method == "GET" else (route.method,)), "OPTIONS")
        if request.method == "OPTIONS":
            return Response(204, (("allow", ", ".join(allowed)),))
        if request.method not in allowed:
            raise MethodNotAllowed(
                f"{request.method} is not allowed at {request.path}; allowed: {', '.join(allowed)}",
                allowed,
            )
        if route is HEALTH:
            return self._health()
        if self._services is None:
            raise Unavailable("the model is still being loaded", code="loading")
        if request.method == "POST":
            _check_type(request)
        return await route.endpoint(self._services, request, *rest)

    def _health(self) -> Response:
        state = "draining" if self._draining else "ok" if self._services else "loading"
        return json_response(schemas.encode({"status": state}), 200 if state == "ok" else 503)


def refuse(error: RequestError) -> Response:
    """Return the answer that tells the client of `error`."""
    return json_response(schemas.error_body(error), error.status, error.headers())


def _find(path: str) -> tuple[Route, tuple[str, ...]] | None:
    """Return the route of `path`, and what stands in place of its "*"."""
    for route in ROUTES:
        stem, star, _ = route.path.partition("*")
        if path == route.path and not star:
            return route, ()
        if star and path.startswith(stem) and path != stem:
            return route, (path.removeprefix(stem),)
    return None


def _check_type(request: Request) -> None:
    """Refuse bodies that are declared to be something else than plain JSON."""
    coding = request.header("content-encoding") or "identity"
    if coding != "identity":
        raise Unsupported(f"content-encoding {coding!r} is not supported; send the body as it is")
    media_type = (request.header("content-type") or "").partition(";")[0].strip().lower()
    if media_type not in JSON_TYPES:
        raise Unsupported(f"content-type {media_type!r} is not supported; send application/json")
