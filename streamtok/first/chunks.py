"""A streaming server in its smallest form: a response head, then one chunk for each token.

When an answer starts, nobody knows how long it will be, so that there is no `Content-Length`. For
this, HTTP/1.1 has the chunked transfer coding (RFC 9112 section 7.1): a chunk is its size in
hexadecimal, CR LF, that many bytes, CR LF. A chunk of size zero and an empty line end the body:
    1 CR LF "," CR LF  6 CR LF " there" CR LF  4 CR LF " was" CR LF  ...  0 CR LF CR LF

What this does not do: the tokens are recorded (`streamtok.first.tokens` runs the model); any bytes
are taken for a request (`streamtok.http.strict` checks each); the connection closes after one
response; and bare text does not say why it ended. Read next: `streamtok.first.events`, which does.
"""

import asyncio
import re
import secrets
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from email.utils import formatdate

from streamtok import __version__
from streamtok.first import REQUEST, TOKENS

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
STEP_S = 0.05  # in place of the model's computation, so that one can watch the chunks arrive
LAST_CHUNK = b"0\r\n\r\n"


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read one request, and stream the recorded tokens as plain text."""
    await read_request(reader)
    # Without "nosniff" a browser collects the first kilobyte, to guess the type from it.
    writer.write(head(fields("text/plain", ("X-Content-Type-Options", "nosniff"))))
    for token in TOKENS:
        await asyncio.sleep(STEP_S)
        writer.write(chunk(token.encode()))
        await writer.drain()  # waits while the client reads more slowly than we write
    writer.write(LAST_CHUNK)


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """Return a request's body: an empty line ends the head, `Content-Length` bytes follow."""
    request = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"\ncontent-length: *(\d+)", request.lower())  # names ignore case
    return await reader.readexactly(int(length[1]) if length else 0)


def chunk(data: bytes) -> bytes:
    """Return `data` as one chunk. Empty data would be the last chunk, and end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def head(headers: list[tuple[str, str]]) -> bytes:
    """Return the status line, the headers, and the empty line that ends them."""
    headers = [*headers, ("Transfer-Encoding", "chunked"), ("Connection", "close")]
    return "\r\n".join(["HTTP/1.1 200 OK", *map(": ".join, headers), "", ""]).encode()


def fields(media_type: str, *others: tuple[str, str]) -> list[tuple[str, str]]:
    """Return the headers of a streamed response."""
    return [
        ("Date", formatdate(usegmt=True)),  # RFC 9110 section 6.6.1
        ("Server", f"streamtok/{__version__}"),
        *(("Content-Type", f"{media_type}; charset=utf-8"), *others, ("Cache-Control", "no-cache")),
        ("X-Accel-Buffering", "no"),  # asks nginx to pass on each chunk at once
        ("X-Request-Id", f"req_{secrets.token_hex(12)}"),
    ]


async def serve(answer: Handler, *options: str) -> None:
    """Call `answer` for each connection; print the address, and how to ask with curl `options`."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except Exception as error:  # the client has left, or what it sent is no request
            print(f"closed a connection: {error!r}", file=sys.stderr)
        writer.close()

    port = int(sys.argv[1]) if sys.argv[1:] else 8001  # 0: any that is free
    server = await asyncio.start_server(handle, "127.0.0.1", port)
    url = "http://{}:{}".format(*server.sockets[0].getsockname())
    ask = " ".join(["curl -N --raw -H 'Connection: close'", *options, f"{url}/v1/completions"])
    print(f"listening at {url}; ask it with\n{ask} -d '{REQUEST}'", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(answer, "-H 'Accept: text/plain'"))
