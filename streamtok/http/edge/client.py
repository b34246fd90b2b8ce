"""A small HTTP/1.1 client for streams: one request, its head, then its body piece by piece.

It is what `streamtok chat` talks through, and an example of a client that renders a stream.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import h11
from msgspec import Struct

from streamtok.http.request import HeaderList, decode_headers


class ClientError(Exception):
    """The server cannot be reached, or what it says is not HTTP."""


class Answer(Struct, frozen=True):
    """An answer's head, and its body as it comes: each item is what one read gave."""

    status: int
    headers: HeaderList
    body: AsyncGenerator[bytes, None]

    async def read(self) -> bytes:
        """Return the whole body."""
        return b"".join([data async for data in self.body])


@asynccontextmanager
async def exchange(
    url: str, method: str, path: str, body: bytes = b"", headers: HeaderList = ()
) -> AsyncIterator[Answer]:
    """Send a request with JSON text, or none, to `path` below `url`, for the length of the block.

    Raises:
        ClientError: there is no such server, or it breaks off.
    """
    parts = urlsplit(url)
    secure = ssl.create_default_context() if parts.scheme == "https" else None
    port = parts.port or (443 if secure else 80)
    try:
        reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=secure)
    except OSError as error:
        raise ClientError(f"{url} cannot be reached: {error.strerror or error}") from error
    connection = h11.Connection(h11.CLIENT)
    headers = (
        *headers,
        ("host", parts.netloc),
        ("content-type", "application/json"),
        ("content-length", str(len(body))),
        ("connection", "close"),
    )
    target = parts.path.rstrip("/") + path
    events = _events(connection, reader)
    try:
        for event in (
            h11.Request(method=method, target=target, headers=list(headers)),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            writer.write(connection.send(event) or b"")
        head = await anext(events)
        while isinstance(head, h11.InformationalResponse):
            head = await anext(events)
        if not isinstance(head, h11.Response):
            raise ClientError(f"{url} closed the connection without an answer")
        yield Answer(head.status_code, decode_headers(head.headers), _body(events))
    except (OSError, h11.RemoteProtocolError) as error:
        raise ClientError(f"{url} broke off: {error}") from error
    finally:
        await events.aclose()
        writer.close()


async def _events(
    connection: h11.Connection, reader: asyncio.StreamReader
) -> AsyncGenerator[h11.Event, None]:
    """Yield what the server sends, up to the end of its answer."""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Event):
            yield event
            if isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                return


async def _body(events: AsyncGenerator[h11.Event, None]) -> AsyncGenerator[bytes, None]:
    async for event in events:
        if isinstance(event, h11.Data):
            yield bytes(event.data)
