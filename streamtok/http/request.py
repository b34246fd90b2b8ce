"""A request as the rest of the program sees it: its head, and its body once that is wanted.

A handler is given the head as soon as it has come, so that it can refuse a request before the
client is invited to send a body (`100 Continue`), and before a byte of one is kept.

Read next: `streamtok.http.response`.
"""

from collections.abc import Awaitable, Callable, Iterable
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs, unquote

from msgspec import Struct
from msgspec.structs import replace

from streamtok.http.tracer import Trace

HeaderList = tuple[tuple[str, str], ...]  # names in lower case


class Request(Struct, frozen=True, dict=True):
    """One HTTP request. `target` is as it stood in the request line; `peer` names the client.

    `body` is there once the request is `complete`: until then `read` reads it. `trace` hears of its
    steps, where there is one.
    """

    method: str
    target: str
    headers: HeaderList
    body: bytes
    http_version: str
    peer: str
    trace: Trace | None = None
    read: Callable[[], Awaitable[bytes]] | None = None

    async def complete(self) -> "Request":
        """Return the request with its body, once that has come.

        Raises:
            RequestError: it is malformed or too large, comes too slowly, or there is no room.
        """
        return replace(self, body=await self.read(), read=None) if self.read else self

    def facts(self) -> dict[str, Any]:
        """Return what a trace reports, and which trace this is a part of (W3C's headers)."""
        context = {name: self.header(name) for name in ("traceparent", "tracestate")}
        return {
            "method": self.method,
            "target": self.target,
            "version": self.http_version,
            **{name: value for name, value in context.items() if value},
        }

    @cached_property
    def path(self) -> str:
        """The decoded path of the target; absolute-form targets are reduced to it."""
        path = self.target.partition("?")[0]
        if not path.startswith("/") and "://" in path:
            path = "/" + path.partition("://")[2].partition("/")[2]
        return unquote(path)

    @cached_property
    def query(self) -> dict[str, str]:
        """The query's fields; of a repeated field the last one counts."""
        text = self.target.partition("?")[2]
        return {name: values[-1] for name, values in parse_qs(text, True).items()}

    def header(self, name: str) -> str | None:
        """Return the value of the header `name` (in lower case), repeated ones joined by commas."""
        values = [value for key, value in self.headers if key == name]
        return ", ".join(values) if values else None


def decode_headers(headers: Iterable[tuple[bytes, bytes]]) -> HeaderList:
    """Return header names and values as text: bytes of any value survive (RFC 9110 section 5.5)."""
    return tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in headers)
