"""The same tokens as server-sent events: each chunk carries an event, each event carries JSON.

An event (WHATWG HTML, "Server-sent events") is a line `data: ` with a value, and an empty line that
ends it. OpenAI's API puts JSON into each, says in `finish_reason` why the answer ended, and sends
`[DONE]` in the last one:

    data: {"id":"cmpl-...",...,"choices":[{"index":0,"text":" there",...}]} LF LF  ...
    data: [DONE] LF LF

Chunks are HTTP's, events are the body's. A proxy may cut the same body into other chunks, so a
client must find the ends of both independently. OpenAI's own clients can read this stream.

Uses `streamtok.first.chunks` to read a request and to write a head and chunks.

What this does not do: a stream that fails just ends (`streamtok.api.endpoint` sends an error
event); one field of the request counts (`streamtok.api.openai.types` has all); a wrong request gets
no response, and the connection closes. Read next: `streamtok.first.framing`, which does both right.
"""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Annotated

import msgspec

from streamtok.first import FINGERPRINT, TOKENS
from streamtok.first.chunks import LAST_CHUNK, STEP_S, chunk, fields, head, read_request, serve

Piece = tuple[str, str | None]  # a text, and the finish reason: None unless it is the last piece


class Fields(msgspec.Struct):
    """What a request may ask for; fields with other names are ignored."""

    prompt: str
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=512)] = 16
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.5
    seed: int = 0


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read one request, and stream the recorded tokens as events."""
    asked = msgspec.json.decode(await read_request(reader), type=Fields)
    writer.write(head(fields("text/event-stream")))
    async for data in events(recorded(asked)):
        writer.write(chunk(data))  # one token, one event, one chunk, one write
        await writer.drain()
    writer.write(LAST_CHUNK)


async def recorded(asked: Fields) -> AsyncGenerator[Piece, None]:
    """Yield the first `max_tokens` of the recorded answer: the limit is what ends it."""
    for token in TOKENS[: asked.max_tokens]:
        await asyncio.sleep(STEP_S)
        yield token, None
    yield "", "length"


async def events(pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[bytes, None]:
    """Yield the events of one response."""
    shared = {  # the same in every event
        "id": f"cmpl-{secrets.token_hex(12)}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": "fireside",
        "system_fingerprint": FINGERPRINT,  # of the weights
    }
    async for text, reason in pieces:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
        yield event(encode({**shared, "choices": [choice]}))
    yield event("[DONE]")  # marks a complete stream; it is not JSON


def event(data: str) -> bytes:
    """Return one event. `data` must hold no line break; JSON text never does."""
    return f"data: {data}\n\n".encode()


def encode(value: object) -> str:
    """Return compact JSON. It is UTF-8, so that no letter needs an escape."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(answer))
