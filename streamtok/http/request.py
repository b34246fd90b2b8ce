"""A request as the rest of the program sees it: complete, with its body read."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import parse_qs, unquote

from streamtok.http.tracer import Trace

HeaderList = tuple[tuple[str, str], ...]  # names in lower case


@dataclass(frozen=True)
class Request:
    """One HTTP request. `target` is as it stood in the request line; `peer` names the client.

    `trace` hears of its steps, where there is one.
    """

    method: str
    target: str
    headers: HeaderList
    body: bytes
    http_version: str
    peer: str
    trace: Trace | None = field(default=None, compare=False, repr=False)

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
