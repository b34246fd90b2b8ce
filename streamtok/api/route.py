"""Routes: method and path, the endpoint, its OpenAPI row, and whether it needs a key.

Each endpoint's module has the routes to it, as `ROUTES`; `streamtok.api.more.routes` puts them
together into the one table of the server.

Read next: `streamtok.api.services`.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from msgspec import Struct

from streamtok.api.openai import answers
from streamtok.errors import RequestError
from streamtok.http.response import Response, json_response

Endpoint = Callable[..., Awaitable[Response]]  # (services, call[, rest of the path])


def refuse(error: RequestError) -> Response:
    """Return the answer that reports `error` in OpenAI's format."""
    return json_response(answers.error_body(error), error.status, error.headers())


class ErrorFormat(Struct, frozen=True):
    """How an API reports errors: `body` is their type; its clients read the id in `id_headers`.

    Who sends a header called `marker` reads this format at every path. `name` begins the names of
    these errors in the OpenAPI document.
    """

    name: str = ""
    body: type = answers.ErrorResponse
    refuse: Callable[[RequestError], Response] = refuse
    id_headers: tuple[str, ...] = ("x-request-id",)
    marker: str = ""


OPENAI = ErrorFormat()


class Operation(Struct, frozen=True):
    """A route's row in the OpenAPI document: types of JSON, or text of a `media_type`.

    `event` is an event of a stream, where there can be one.
    """

    answer: Any = None
    body: Any = None
    query: Any = None
    event: Any = None
    media_type: str = "application/json"
    example: Mapping[str, Any] | None = None


class Route(Struct, frozen=True, eq=False):
    """`path` may have a "*": the text there is passed to the endpoint.

    An `open` one needs no key; a `limited` one counts for the caller's limits. An `early` one is
    answered while the model is being loaded too: its endpoint is given the Api, not the Services.
    """

    method: str
    path: str
    endpoint: Endpoint
    operation: Operation = Operation()
    open: bool = False
    limited: bool = False
    early: bool = False
    errors: ErrorFormat = OPENAI


class Router:
    """Finds the route of a request in a table."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = tuple(routes)

    def find(self, method: str, path: str) -> tuple[Route | None, tuple[str, ...]]:
        """Return the route of a request, and what matches its "*".

        Where `path` has none for `method` it is one for another method; None for no such path.
        """
        for route in self._routes:
            stem, star, tail = route.path.partition("*")
            if path == route.path and not star:
                return self._with_method(route, method), ()
            rest = path.removeprefix(stem).removesuffix(tail)
            if star and rest and path == stem + rest + tail:
                return self._with_method(route, method), (rest,)
        return None, ()

    def methods(self, found: Route) -> tuple[str, ...]:
        """Return the methods of a route's path."""
        methods = [route.method for route in self._routes if route.path == found.path]
        head = ["HEAD"] if "GET" in methods else []
        return (*methods[:1], *head, *methods[1:], "OPTIONS")

    def _with_method(self, found: Route, method: str) -> Route:
        same = (r for r in self._routes if r.path == found.path and r.method == method)
        return next(same, found)
