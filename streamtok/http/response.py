"""An answer: a head, and a body that is either complete or still being made."""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from streamtok.http.request import HeaderList


def _silent() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Response:
    """What to send. Bytes go out with `Content-Length`; of a generator each item becomes one chunk.

    A generator is closed in any case, also when the client leaves. `summary` is asked for when
    the answer has ended, for the access log.
    """

    status: int
    headers: HeaderList
    body: bytes | AsyncGenerator[bytes, None] = b""
    summary: Callable[[], str] = _silent


def json_response(body: bytes, status: int = 200, headers: HeaderList = ()) -> Response:
    """Return an answer that holds the JSON text `body`."""
    return Response(status, (("content-type", "application/json"), *headers), body)
