"""Exercise 5: many clients, and one that leaves."""

import asyncio
from collections.abc import AsyncGenerator

from streamtok.teach.build.clients_kit import serve_clients
from streamtok.teach.build.kit import LAST_CHUNK, chunk

HEAD = (
    b"HTTP/1.1 200 OK\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n"
    b"Connection: close\r\n"
    b"\r\n"
)


async def respond(writer: asyncio.StreamWriter, tokens: AsyncGenerator[str, None]) -> None:
    """Send the head, each of `tokens` as a chunk, and the end."""
    writer.write(HEAD)
    async for token in tokens:
        writer.write(chunk(token.encode()))
        await writer.drain()  # waits for a slow client, and raises for one that has left
    writer.write(LAST_CHUNK)


if __name__ == "__main__":
    serve_clients(respond)
