"""From a request to its endpoint: finds the route, checks key, origin and limits, reports errors.

`Api.handle` is the one function the HTTP layer calls. It never raises: a RequestError is answered
with its own status, anything else is our bug, logged with its traceback and answered with 500.
Every answer gets its request id, CORS headers and the caller's rate limits.

Read next: `streamtok.api.route`.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Literal, Protocol

from msgspec.structs import replace

from streamtok.api.route import OPENAI, ErrorFormat, Route, Router
from streamtok.api.services import Call, Services
from streamtok.api.validation import too_deep
from streamtok.errors import MethodNotAllowed, NotFound, RequestError, Unavailable, Unsupported
from streamtok.http.request import HeaderList, Request
from streamtok.http.response import Response
from streamtok.ids import random_id

log = logging.getLogger(__name__)

State = Literal["loading", "ok", "restarting", "draining"]
SAFE = ("GET", "HEAD", "OPTIONS")  # RFC 9110 section 9.2.1: they change nothing
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# Media types a JSON body may be declared as: curl -d sends the second by default.
JSON_TYPES = ("", "application/json", "application/x-www-form-urlencoded", "text/plain")
new_request_id = partial(random_id, "req_")


class Keys(Protocol):
    """API keys; `streamtok.api.access.keys` is plugged in here."""

    def authenticate(self, authorization: str | None, api_key: str | None) -> str:
        """Return the name of the key in an `Authorization` or an `X-Api-Key` header.

        Raises:
            Unauthorized: there is none, or it is not known.
        """

    def is_admin(self, name: str) -> bool:
        """Whether the key of this name may see what all keys have used."""


class Pages(Protocol):
    """Which web pages may use the server; `streamtok.http.edge.cors` is plugged in here."""

    def check(self, request: Request) -> None:
        """Check that no page that may not use the server has `request` sent.

        Raises:
            RequestError: one does.
        """

    def headers(self, request: Request) -> HeaderList:
        """Return the headers for the answer to `request`."""

    def preflight(self, request: Request, methods: Iterable[str]) -> HeaderList:
        """Return the headers that answer a preflight; none if `request` is not one."""


class Api:
    """Answers requests by the table of `routes`; before `open`, only those that are early.

    Without `keys` nobody needs one; `pages` decides what browsers may do; `check_host` refuses, by
    a RequestError, what names another host than this server's.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        keys: Keys | None = None,
        pages: Pages | None = None,
        new_request_id: Callable[[], str] = new_request_id,
        check_host: Callable[[Request], None] | None = None,
    ) -> None:
        self.routes = tuple(routes)
        self._router = Router(routes)
        self._formats = dict.fromkeys(route.errors for route in routes if route.errors.marker)
        self._keys = keys
        self._pages = pages
        self._check_host = check_host
        self._new_request_id = new_request_id
        self.services: Services | None = None
        self._draining = False
        self._opened = asyncio.Event()

    def open(self, services: Services) -> None:
        """Serve from now on."""
        self.services = services
        self._opened.set()

    def drain(self) -> None:
        """Let what runs go on, but report to load balancers that this server is leaving."""
        self._draining = True

    @property
    def state(self) -> State:
        """Whether requests are served, or why not."""
        if self._draining:
            return "draining"
        if self.services is None:
            return "loading"
        return "ok" if self.services.engine.ready else "restarting"

    # A request, in the order of its way through

    async def handle(self, request: Request) -> Response:
        """Answer `request`, whatever it is."""
        request_id = self._request_id(request)
        route, rest = self._router.find(request.method, request.path)
        errors = self._error_format(request, route)
        call = Call(request)
        try:
            self._check_sender(request, route)
            call = self._identify(request, route)
            response = await self._dispatch(call, route, rest)
        except RequestError as error:
            response = errors.refuse(error)
        except RecursionError:  # JSON that could just be read, and not gone through any further
            response = errors.refuse(too_deep())
        except Exception:
            log.exception("%s: %s %s failed", request_id, request.method, request.path)
            response = errors.refuse(
                RequestError("an internal error occurred; the server's log has more")
            )
        ids = tuple((name, request_id) for name in errors.id_headers)
        headers = (*ids, *(self._pages.headers(request) if self._pages else ()))
        if self.services:
            meter = self.services.meter
            labels = (route.path if route else "none", str(response.status), call.key)
            meter.metrics.requests[labels] += 1
            if route and route.limited:
                headers += meter.limits.headers(call.caller)
        return _labelled(response, request_id, headers)

    def _error_format(self, request: Request, route: Route | None) -> ErrorFormat:
        """Return how errors are reported: as the client's headers say, or else as the route does.

        A client of another API's reads that API's errors wherever it asks.
        """
        marked = (form for form in self._formats if request.header(form.marker) is not None)
        return next(marked, route.errors if route else OPENAI)

    def _request_id(self, request: Request) -> str:
        """Return the id that the client gave, if it is fit to be logged, or a new one."""
        given = request.header("x-request-id") or ""
        return given if REQUEST_ID.fullmatch(given) else self._new_request_id()

    def _check_sender(self, request: Request, route: Route | None) -> None:
        """Check that a browser is not made to send this by a page that has no business here.

        Raises:
            RequestError: it names another host, or changes or computes something for a page of
                another origin.
        """
        if self._check_host is not None:
            self._check_host(request)
        # GET /v1/generate is safe by its method, and still keeps the engine busy. OPTIONS is how a
        # browser asks what it may send.
        limited = route is not None and route.limited
        works = request.method not in SAFE or (limited and request.method != "OPTIONS")
        if self._pages is not None and works:
            self._pages.check(request)

    def _identify(self, request: Request, route: Route | None) -> Call:
        """Return the call with the name of its key.

        Raises:
            Unauthorized: it needs a key and has none that is known.
        """
        # A browser asks by OPTIONS, without a key, whether it may send one.
        if self._keys is None or request.method == "OPTIONS" or (route and route.open):
            return Call(request)
        given = request.header("authorization"), request.header("x-api-key")
        key = self._keys.authenticate(*given)
        return Call(request, key, sees_all=self._keys.is_admin(key))

    async def _dispatch(self, call: Call, route: Route | None, rest: tuple[str, ...]) -> Response:
        request = call.request
        if request.target == "*":  # the server as a whole (RFC 9110 section 9.3.7)
            return Response(204, (("allow", "GET, HEAD, POST, DELETE, OPTIONS"),))
        if route is None:
            raise NotFound(f"there is nothing at {request.path}", code="unknown_url")
        allowed = self._router.methods(route)
        if request.method == "OPTIONS":
            allow = ("allow", ", ".join(allowed))
            more = self._pages.preflight(request, allowed) if self._pages else ()
            return Response(204, (allow, *more))
        if request.method not in allowed:
            raise MethodNotAllowed(
                f"{request.method} is not allowed at {request.path}; allowed: {', '.join(allowed)}",
                allowed,
            )
        if route.early:
            return await route.endpoint(self, call)
        if request.header("last-event-id"):  # a browser that is refused would not come again
            await self._opened.wait()
        if self.services is None:
            raise Unavailable("the model is still being loaded", code="loading")
        if route.limited:
            self.services.meter.limits.admit(call.caller)
        if request.method == "POST":
            _check_type(request)
        # Refusals come before this line, so that a refused client never sends its body.
        call = replace(call, request=await request.complete())
        if request.trace is not None:
            request.trace.step("admit", route=route.path, key=call.key)
        return await route.endpoint(self.services, call, *rest)


def _labelled(response: Response, request_id: str, headers: HeaderList) -> Response:
    """Return `response` with `headers` too, and with its id in the access log."""

    def summary() -> str:
        return " ".join(filter(None, (request_id, response.summary())))

    return replace(response, headers=(*response.headers, *headers), summary=summary)


def _check_type(request: Request) -> None:
    """Refuse bodies that are declared to be something else than plain JSON."""
    coding = request.header("content-encoding") or "identity"
    if coding != "identity":
        raise Unsupported(f"content-encoding {coding!r} is not supported; send the body as it is")
    media_type = (request.header("content-type") or "").partition(";")[0].strip().lower()
    if media_type not in JSON_TYPES:
        raise Unsupported(f"content-type {media_type!r} is not supported; send application/json")
