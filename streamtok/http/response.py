"""An answer: a head, and a body that is either complete or still being made."""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from streamtok.http.request import HeaderList


def _silent() -> str:
    return ""


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Response:
    """What to send. Bytes go out with `Content-Length`; of a generator each item becomes one chunk.

    However the answer ends, complete or not, begun or not, `close` is called once, and then
    `summary` for the access log.
    """

    status: int
    headers: HeaderList
    body: bytes | AsyncGenerator[bytes, None] = b""
    summary: Callable[[], str] = _silent
    close: Callable[[], None] = _nothing


def json_response(body: bytes, status: int = 200, headers: HeaderList = ()) -> Response:
    """Return an answer that holds the JSON text `body`."""
    return Response(status, (("content-type", "application/json"), *headers), body)
