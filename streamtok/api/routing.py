"""Which path and method leads where, who may go there, and how failures become JSON answers.

`Api.handle` is the one function the HTTP layer calls. It never raises: a RequestError is answered
with its own status, anything else is our bug, logged with its traceback and answered with 500.
Whatever the answer, it gets its request id, what web pages need, and how the caller's limits stand.

Read next: `streamtok.api.route`.
"""

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache, partial
from typing import Protocol

from streamtok.api.anthropic import messages as anthropic
from streamtok.api.auth import KeyFile
from streamtok.api.more import info, link, openapi, tokens, traces
from streamtok.api.openai import answers, chat, completions, embeddings
from streamtok.api.responses import responses
from streamtok.api.route import Route
from streamtok.api.services import Call, Services
from streamtok.api.validation import too_deep
from streamtok.errors import MethodNotAllowed, NotFound, RequestError, Unavailable, Unsupported
from streamtok.http.request import HeaderList, Request
from streamtok.http.response import Response, json_response
from streamtok.ids import random_id

log = logging.getLogger(__name__)

_anthropic = partial(Route, refuse=anthropic.refuse, id_headers=("request-id", "x-request-id"))
HEALTH = Route("GET", "/health", info.page, open=True)  # answered by the Api itself
DESCRIPTION = Route("GET", "/openapi.json", info.page)  # this one too
NOWHERE = Route("", "none", info.page)  # what is not found
ANTHROPIC = _anthropic("", "none", info.page)  # what its clients read, wherever they ask
SAFE = ("GET", "HEAD", "OPTIONS")  # RFC 9110 section 9.2.1: they change nothing
ROUTES = (
    HEALTH,
    DESCRIPTION,
    Route("POST", chat.ENDPOINT, chat.chat, limited=True),
    Route("POST", completions.ENDPOINT, completions.complete, limited=True),
    Route("GET", link.ENDPOINT, link.generate, limited=True),
    Route("POST", responses.ENDPOINT, responses.respond, limited=True),
    Route("POST", f"{responses.ENDPOINT}/input_tokens", responses.count_input),
    Route("GET", f"{responses.ENDPOINT}/*/input_items", responses.list_input),
    Route("GET", f"{responses.ENDPOINT}/*", responses.response),
    Route("DELETE", f"{responses.ENDPOINT}/*", responses.delete),
    _anthropic("POST", anthropic.ENDPOINT, anthropic.message, limited=True),
    _anthropic("POST", f"{anthropic.ENDPOINT}/count_tokens", anthropic.count_tokens),
    Route("POST", embeddings.ENDPOINT, embeddings.embed, limited=True),
    Route("POST", "/tokenize", tokens.tokenize),
    Route("POST", "/detokenize", tokens.detokenize),
    Route("POST", "/apply-template", tokens.apply_template),
    Route("GET", "/props", tokens.props),
    Route("GET", "/v1/models", info.models),
    Route("GET", "/v1/models/*", info.model),
    Route("GET", "/v1/usage", info.usage_sums),
    Route("GET", "/v1/usage/*", info.usage),
    Route("GET", "/v1/traces/*", traces.trace),
    Route("GET", "/metrics", info.metrics),
    # A browser cannot send a key with an address that is typed in, and the page holds no secret:
    # what it asks this server for afterwards needs one.
    Route("GET", "/", info.page, open=True),
)
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# Media types a JSON body may be declared as: curl -d says the second unless told otherwise.
JSON_TYPES = ("", "application/json", "application/x-www-form-urlencoded", "text/plain")
new_request_id = partial(random_id, "req_")


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
    """Answers requests. Until `open` is called, and after `drain`, only to say that it does not.

    Without `keys` nobody needs one; `pages` decides what browsers may do; `check_host` refuses, by
    a RequestError, what names another host than this server's.
    """

    def __init__(
        self,
        keys: KeyFile | None = None,
        pages: Pages | None = None,
        new_request_id: Callable[[], str] = new_request_id,
        check_host: Callable[[Request], None] | None = None,
    ) -> None:
        self._keys = keys
        self._pages = pages
        self._check_host = check_host
        self._new_request_id = new_request_id
        self._services: Services | None = None
        self._draining = False

    def open(self, services: Services) -> None:
        """Serve from now on."""
        self._services = services

    def drain(self) -> None:
        """Let what runs go on, but report to load balancers that this server is leaving."""
        self._draining = True

    # A request, in the order of its way through

    async def handle(self, request: Request) -> Response:
        """Answer `request`, whatever it is."""
        request_id = self._request_id(request)
        route, rest = _find(request)
        shape = ANTHROPIC if request.header("anthropic-version") is not None else route
        call = Call(request)
        try:
            self._check_sender(request, route)
            call = self._identify(request, route)
            response = await self._dispatch(call, route, rest)
        except RequestError as error:
            response = shape.refuse(error)
        except RecursionError:  # JSON that could just be read, and not gone through any further
            response = shape.refuse(too_deep())
        except Exception:
            log.exception("%s: %s %s failed", request_id, request.method, request.path)
            response = shape.refuse(
                RequestError("an internal error occurred; the server's log has more")
            )
        ids = tuple((name, request_id) for name in shape.id_headers)
        headers = (*ids, *(self._pages.headers(request) if self._pages else ()))
        if self._services:
            meter = self._services.meter
            meter.metrics.requests.labels(route.path, str(response.status), call.key).inc()
            if route.limited:
                headers += meter.limits.headers(call.caller)
        return _labelled(response, request_id, headers)

    def _request_id(self, request: Request) -> str:
        """Return the id that the client gave, if it is fit to be logged, or a new one."""
        given = request.header("x-request-id") or ""
        return given if REQUEST_ID.fullmatch(given) else self._new_request_id()

    def _check_sender(self, request: Request, route: Route) -> None:
        """Check that a browser is not made to send this by a page that has no business here.

        Raises:
            RequestError: it names another host, or changes or computes something for a page of
                another origin.
        """
        if self._check_host is not None:
            self._check_host(request)
        # GET /v1/generate is safe by its method, and still keeps the engine busy. OPTIONS is how a
        # browser asks what it may send.
        works = request.method not in SAFE or (route.limited and request.method != "OPTIONS")
        if self._pages is not None and works:
            self._pages.check(request)

    def _identify(self, request: Request, route: Route) -> Call:
        """Return the call with the name of its key.

        Raises:
            Unauthorized: it needs a key and has none that is known.
        """
        # A browser asks by OPTIONS, without a key, whether it may send one.
        if self._keys is None or request.method == "OPTIONS" or route.open:
            return Call(request)
        given = request.header("authorization"), request.header("x-api-key")
        key = self._keys.authenticate(*given)
        return Call(request, key, sees_all=self._keys.is_admin(key))

    async def _dispatch(self, call: Call, route: Route, rest: tuple[str, ...]) -> Response:
        request = call.request
        if request.target == "*":  # the server as a whole (RFC 9110 section 9.3.7)
            return Response(204, (("allow", "GET, HEAD, POST, DELETE, OPTIONS"),))
        if route is NOWHERE:
            raise NotFound(f"there is nothing at {request.path}", code="unknown_url")
        allowed = _allowed(route)
        if request.method == "OPTIONS":
            allow = ("allow", ", ".join(allowed))
            more = self._pages.preflight(request, allowed) if self._pages else ()
            return Response(204, (allow, *more))
        if request.method not in allowed:
            raise MethodNotAllowed(
                f"{request.method} is not allowed at {request.path}; allowed: {', '.join(allowed)}",
                allowed,
            )
        if route is HEALTH:
            return self._health()
        if route is DESCRIPTION:
            return json_response(_description())
        if self._services is None:
            raise Unavailable("the model is still being loaded", code="loading")
        if route.limited:
            self._services.meter.limits.admit(call.caller)
        if request.method == "POST":
            _check_type(request)
        # Whoever may not come in has been refused by now, without being asked for a body.
        call = replace(call, request=await request.complete())
        if request.trace is not None:
            request.trace.step("admit", route=route.path, key=call.key)
        return await route.endpoint(self._services, call, *rest)

    def _health(self) -> Response:
        state: answers.State = "ok"
        if self._draining:
            state = "draining"
        elif self._services is None:
            state = "loading"
        elif not self._services.engine.ready:
            state = "restarting"
        return json_response(answers.encode(answers.Health(state)), 200 if state == "ok" else 503)


@cache
def _description() -> bytes:
    return openapi.document(ROUTES)


def _labelled(response: Response, request_id: str, headers: HeaderList) -> Response:
    """Return `response` with `headers` too, and with its id in the access log."""

    def summary() -> str:
        return " ".join(filter(None, (request_id, response.summary())))

    return replace(response, headers=(*response.headers, *headers), summary=summary)


def _find(request: Request) -> tuple[Route, tuple[str, ...]]:
    """Return the route of a request, and what stands in place of its "*".

    Where its path has none for its method it is one for another.
    """
    path = request.path
    for route in ROUTES:
        stem, star, tail = route.path.partition("*")
        if path == route.path and not star:
            return _with_method(route, request.method), ()
        rest = path.removeprefix(stem).removesuffix(tail)
        if star and rest and path == stem + rest + tail:
            return _with_method(route, request.method), (rest,)
    return NOWHERE, ()


def _with_method(found: Route, method: str) -> Route:
    same = (route for route in ROUTES if route.path == found.path and route.method == method)
    return next(same, found)


def _allowed(found: Route) -> tuple[str, ...]:
    """Return the methods of a route's path."""
    methods = [route.method for route in ROUTES if route.path == found.path]
    head = ["HEAD"] if "GET" in methods else []
    return (*methods[:1], *head, *methods[1:], "OPTIONS")


def _check_type(request: Request) -> None:
    """Refuse bodies that are declared to be something else than plain JSON."""
    coding = request.header("content-encoding") or "identity"
    if coding != "identity":
        raise Unsupported(f"content-encoding {coding!r} is not supported; send the body as it is")
    media_type = (request.header("content-type") or "").partition(";")[0].strip().lower()
    if media_type not in JSON_TYPES:
        raise Unsupported(f"content-type {media_type!r} is not supported; send application/json")
