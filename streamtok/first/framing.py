"""The same bytes through h11: keep-alive, pipelining, errors, and clients that speak HTTP/1.0.

A connection is a conversation with rules: whose turn it is, how long a body is, who may close. h11
holds them as a state machine without I/O: bytes go in and events come out, events go in and bytes
come out. A connection is used again unless either side says otherwise (RFC 9112 section 9.3), and
requests that were sent ahead wait in h11's buffer, so that responses leave in the order in which
they were asked for (section 9.3.2).

Uses what makes events from `streamtok.first.events`, headers and listener from `chunks`.

What this does not do: it accepts all that h11 accepts (`streamtok.http.strict` accepts what RFC
9112 does); it has no limit of size or time, and no answer to `Expect: 100-continue`
(`streamtok.http.connection` has); all paths are alike to it (`streamtok.api.routing`). The answer
is still a recorded one. Read next: `streamtok.first.tokens`, which computes it.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from functools import partial

import h11
import msgspec

from streamtok.first.chunks import fields, serve
from streamtok.first.events import Fields, Piece, encode, events, recorded

Respond = Callable[[Fields], AsyncGenerator[Piece, None]]
Drain = Callable[[asyncio.StreamWriter], Awaitable[None]]


async def converse(
    respond: Respond,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    drain: Drain = asyncio.StreamWriter.drain,
) -> None:
    """Answer one request after the other, until either side wants to close the connection."""
    http = h11.Connection(h11.SERVER)

    async def send(*sent: h11.Event) -> None:
        writer.write(b"".join(http.send(event) or b"" for event in sent))
        await drain(writer)

    async def refuse(error: Exception) -> None:
        about = {"message": str(error), "type": "invalid_request_error"}
        body = encode({"error": {**about, "param": None, "code": None}}).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        head = h11.Response(status_code=400, headers=headers, reason="Bad Request")
        await send(head, h11.Data(data=body), h11.EndOfMessage())

    async def stream(pieces: AsyncGenerator[Piece, None]) -> None:
        # h11 adds "Transfer-Encoding: chunked"; for HTTP/1.0 the end of the connection is the end
        await send(h11.Response(status_code=200, headers=fields("text/event-stream"), reason="OK"))
        async with aclosing(pieces):  # no more are made, however this ends
            async for data in events(pieces):
                await send(h11.Data(data=data))
        await send(h11.EndOfMessage())

    while True:
        try:
            if (body := await receive(http, reader)) is None:
                return
            asked = msgspec.json.decode(body, type=Fields)
        except (h11.RemoteProtocolError, msgspec.DecodeError) as error:
            await refuse(error)  # as long as no head is out, an error can have a status
        else:
            await stream(respond(asked))
        if not (http.our_state is h11.DONE and http.their_state is h11.DONE):
            return  # "Connection: close", HTTP/1.0, or bytes that are no request
        http.start_next_cycle()


async def receive(http: h11.Connection, reader: asyncio.StreamReader) -> bytes | None:
    """Return the body of the next request; None where the client sends no more."""
    body = b""
    while not isinstance(event := http.next_event(), h11.EndOfMessage | h11.ConnectionClosed):
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(65536))  # no bytes: the client has finished
        elif isinstance(event, h11.Data):
            body += event.data
    return body if isinstance(event, h11.EndOfMessage) else None


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(partial(converse, recorded)))
