"""The side towards another server, as a gateway has it: one connection for each request.

The answer is given as it comes. `streamtok.proxy` plugs it in. Source: RFC 9110 section 7.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Protocol
from urllib.parse import urlsplit

import h11
from msgspec import Struct

from streamtok.errors import ConfigError, RequestError
from streamtok.http.request import HeaderList, Request, decode_headers
from streamtok.http.response import BrokenOff
from streamtok.http.transport import Address

HOP_BY_HOP = frozenset(  # concern one connection only (RFC 9110 section 7.6.1)
    (
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
VIA = "1.1 streamtok"
READ_BYTES = 64 * 1024
MAX_HEAD_BYTES = 256 * 1024


class Watch(Protocol):
    """Sees what passes on one connection, in this order; `closed` is called once."""

    def opened(self, here: Address, there: Address, *, encrypted: bool) -> None:
        """The connection is there."""

    def sent(self, data: bytes) -> None:
        """Bytes of the request."""

    def received(self, data: bytes) -> None:
        """What one read gave."""

    def closed(self) -> None:
        """The connection is over."""


class BadGateway(RequestError):
    """502: the upstream server cannot be reached, or does not answer in HTTP."""

    status = 502
    default_code = "bad_gateway"


class GatewayTimeout(RequestError):
    """504: the upstream server does not answer in time."""

    status = 504
    default_code = "gateway_timeout"


class UpstreamAnswer(Struct, frozen=True):
    """An answer: its head, and its body as it comes. Every item of the body is what one read gave
    of one chunk. `close` must be called in the end.
    """

    status: int
    headers: HeaderList
    body: AsyncGenerator[bytes, None]
    close: Callable[[], None]

    def header(self, name: str) -> str:
        """Return the value of a header; empty if there is none."""
        return ", ".join(value for key, value in self.headers if key == name)


class Upstream:
    """The server behind the proxy, at an http or https URL; certificates are verified.

    Raises:
        ConfigError: `url` is no such URL.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
            raise ConfigError(
                f"upstream {url}: expected a URL such as https://api.example.com or "
                "http://127.0.0.1:8000"
            )
        self.url = url.rstrip("/")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host = parts.hostname
        self._port = port or (443 if self._tls else 80)
        self._authority = parts.netloc.rpartition("@")[2]
        self._prefix = parts.path.rstrip("/")
        self._timeout_s = timeout_s

    async def ask(self, request: Request, watch: Watch) -> UpstreamAnswer:
        """Send `request` on, and return when the answer's head is there.

        Raises:
            BadGateway: there is no connection, or what comes is not HTTP.
            GatewayTimeout: nothing comes in time.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                reader, writer = await asyncio.open_connection(
                    self._host, self._port, ssl=self._tls, limit=READ_BYTES
                )
        except TimeoutError:
            raise GatewayTimeout(f"{self.url} took no connection in time") from None
        except OSError as error:  # ssl.SSLError among them
            reason = getattr(error, "verify_message", "") or error.strerror or str(error)
            raise BadGateway(f"{self.url} cannot be reached: {reason}") from error
        here, there = (writer.get_extra_info(name) for name in ("sockname", "peername"))
        watch.opened(here[:2], there[:2], encrypted=self._tls is not None)
        exchange = _Exchange(self, reader, writer, watch)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await exchange.begin(self._head(request), request.body)
        except BaseException as error:
            exchange.close()
            if isinstance(error, TimeoutError):
                raise GatewayTimeout(f"{self.url} sent no answer in time") from None
            if isinstance(error, OSError | h11.RemoteProtocolError):
                raise BadGateway(f"{self.url} broke off: {error}") from error
            raise

    def _head(self, request: Request) -> h11.Request:
        path = request.target
        if "://" in path.partition("?")[0]:  # absolute form, as a client sends it to a proxy
            path = "/" + path.partition("://")[2].partition("/")[2]
        dropped = {"host", "expect", "content-length", "via"} | named_in_connection(request.headers)
        kept = [(name, value) for name, value in end_to_end(request.headers) if name not in dropped]
        via = ", ".join(filter(None, (request.header("via"), VIA)))
        fields = [("host", self._authority), *kept, ("via", via), ("connection", "close")]
        if request.body or request.method in ("POST", "PUT", "PATCH"):
            fields.append(("content-length", str(len(request.body))))
        return h11.Request(
            method=request.method,
            target=(self._prefix + path).encode("latin-1"),
            headers=[(name.encode(), value.encode("latin-1")) for name, value in fields],
        )


class _Exchange:
    """One request and its answer, on a connection of their own."""

    def __init__(
        self,
        upstream: Upstream,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        watch: Watch,
    ) -> None:
        self._upstream = upstream
        self._reader = reader
        self._writer = writer
        self._watch = watch
        self._h11 = h11.Connection(h11.CLIENT, MAX_HEAD_BYTES)
        self._closed = False

    async def begin(self, head: h11.Request, body: bytes) -> UpstreamAnswer:
        """Send the request, and return the answer; interim answers before it are dropped."""
        sent = self._h11.send(head) or b""
        if body:
            sent += self._h11.send(h11.Data(data=body)) or b""
        sent += self._h11.send(h11.EndOfMessage()) or b""
        self._watch.sent(sent)
        self._writer.write(sent)
        event = await self._next()
        while isinstance(event, h11.InformationalResponse):
            event = await self._next()
        if not isinstance(event, h11.Response):
            raise BadGateway(f"{self._upstream.url} closed the connection without an answer")
        headers = decode_headers(event.headers)
        return UpstreamAnswer(event.status_code, headers, self._body(), self.close)

    async def _body(self) -> AsyncGenerator[bytes, None]:
        """Yield the body.

        Raises:
            BrokenOff: it ends too soon, or is not framed as HTTP demands.
        """
        try:
            while isinstance(event := await self._next(), h11.Data):
                yield bytes(event.data)
        except (OSError, h11.RemoteProtocolError) as error:
            raise BrokenOff(f"{self._upstream.url}: {error}") from error
        finally:
            self.close()

    async def _next(self) -> h11.Event:
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            data = await self._reader.read(READ_BYTES)
            if data:
                self._watch.received(data)
            self._h11.receive_data(data)
        assert isinstance(event, h11.Event)
        return event

    def close(self) -> None:
        """Close the connection, whatever is under way: the server sees that nobody listens."""
        if self._closed:
            return
        self._closed = True
        self._watch.closed()
        with suppress(OSError):
            self._writer.transport.abort()


def named_in_connection(headers: HeaderList) -> frozenset[str]:
    """Return the names of fields that `Connection` says are for this connection only."""
    values = (value for name, value in headers if name == "connection")
    return frozenset(part.strip().lower() for value in values for part in value.split(","))


def end_to_end(headers: HeaderList) -> HeaderList:
    """Return the fields that are passed on (RFC 9110 section 7.6.1)."""
    dropped = HOP_BY_HOP | named_in_connection(headers)
    return tuple((name, value) for name, value in headers if name not in dropped)
