"""What a route is: a path and a method, where they lead, and what holds for them.

Read next: `streamtok.api.auth`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from streamtok.api.openai import answers
from streamtok.errors import RequestError
from streamtok.http.response import Response, json_response

Endpoint = Callable[..., Awaitable[Response]]  # (services, call[, rest of the path])


def refuse(error: RequestError) -> Response:
    """Return the answer that tells the client of `error`."""
    return json_response(answers.error_body(error), error.status, error.headers())


@dataclass(frozen=True, slots=True)
class Route:
    """`path` may have a "*": what stands there is given to the endpoint.

    An `open` one needs no key; a `limited` one counts for the caller's limits. `refuse` tells of
    errors as its clients expect it, who find the request's id in `id_headers`.
    """

    method: str
    path: str
    endpoint: Endpoint
    open: bool = False
    limited: bool = False
    refuse: Callable[[RequestError], Response] = refuse
    id_headers: tuple[str, ...] = ("x-request-id",)
