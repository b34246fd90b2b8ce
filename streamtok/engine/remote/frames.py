"""Messages between two processes that trust each other, over a byte stream.

A message is its length in four bytes, big-endian, followed by a pickle. The most frequent event, a
token without log-probabilities, is sent as three plain values, which cost a fraction of an object.
No I/O: bytes in, messages out.
"""

import pickle
from collections.abc import Iterator, Sequence
from typing import Any

from streamtok.engine.commands import Addressed
from streamtok.messages import Event, TokenEvent

HEAD_BYTES = 4


def frame(message: Any) -> bytes:
    """Return `message` as bytes."""
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return len(body).to_bytes(HEAD_BYTES, "big") + body


class Frames:
    """Puts messages together again, however their bytes were cut."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """Return the messages that are complete with `data`."""
        self._buffer += data
        messages = []
        start = 0
        while len(self._buffer) >= start + HEAD_BYTES:
            body = start + HEAD_BYTES
            end = body + int.from_bytes(self._buffer[start:body], "big")
            if len(self._buffer) < end:
                break
            with memoryview(self._buffer) as view:
                messages.append(pickle.loads(view[body:end]))
            start = end
        del self._buffer[:start]
        return messages


def pack(events: Sequence[Addressed]) -> list[tuple[str, int, int] | Addressed]:
    """Return `events` in a form that is cheap to send."""
    return [
        (request_id, event.index, event.token_id)
        if isinstance(event, TokenEvent) and event.logprobs is None
        else (request_id, event)
        for request_id, event in events
    ]


def unpack(packed: Sequence[Sequence[Any]]) -> Iterator[tuple[str, Event]]:
    """Yield the events that were given to `pack`."""
    for request_id, *rest in packed:
        yield request_id, TokenEvent(*rest) if len(rest) == 2 else rest[0]
