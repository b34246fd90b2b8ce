"""An answer: a head, and a body that is either complete or still being made.

Read next: `streamtok.http.body`.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol

from msgspec import Struct

from streamtok.http.request import HeaderList
from streamtok.http.transport import ByteStream

Body = AsyncGenerator[bytes | Sequence[bytes], None]


def chunks_of(item: bytes | Sequence[bytes]) -> Sequence[bytes]:
    """Return the chunks that an item of a body becomes."""
    return (item,) if isinstance(item, bytes) else item


class BrokenOff(Exception):
    """A body cannot go on: raised by its generator, it ends the connection without a zero chunk."""


class Output(Protocol):
    """What an answer's bytes go through, instead of straight to the socket."""

    async def send(self, data: bytes) -> None:
        """Write `data`, in some way. Raises ConnectionLost, BrokenOff."""

    def hurry(self) -> None:
        """Hold nothing back any more: the client sends no more, and may be gone."""


class Response(Struct, frozen=True):
    """What to send. Bytes go out with `Content-Length`; of a generator each item becomes one chunk,
    or several that leave in one write.

    However the answer ends, complete or not, begun or not, `close` is called once, and then
    `summary` for the access log. `trailers` is asked for the fields after the zero chunk, and only
    for whom they can be sent: in a chunked body, to a client that said `TE: trailers`. With
    `output`, the bytes go through what it makes of the connection's stream
    (`streamtok.faults.wire`).
    """

    status: int
    headers: HeaderList
    body: bytes | Body = b""
    summary: Callable[[], str] = lambda: ""
    close: Callable[[], None] = lambda: None
    trailers: Callable[[], HeaderList] = lambda: ()
    output: Callable[[ByteStream], Output] | None = None


def json_response(body: bytes, status: int = 200, headers: HeaderList = ()) -> Response:
    """Return an answer that holds the JSON text `body`."""
    return Response(status, (("content-type", "application/json"), *headers), body)
