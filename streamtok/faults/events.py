"""Events that go wrong on purpose: what servers do that clients break on. Pure.

A fault takes the rendered chunks of a stream one by one, each with how many tokens were sent before
it, and returns the chunks that are sent instead. What it does "after k tokens" it does at the end
where there are fewer.

Why chunks, not answer events: nearly all of these are faults of the event stream's bytes (a byte
order mark, CR LF, a cut character, `[DONE]` twice or never), which no answer event can express; and
the proxy puts the same faults into streams of other servers, of which there are only bytes. The one
that is of the answer, `error`, acts on events (`streamtok.faults.inject`).

Read next: `streamtok.faults.catalogue`, where they are asked for by name.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from streamtok.api.openai import answers
from streamtok.http import sse

BOM = b"\xef\xbb\xbf"
HEARTBEAT = b": ping\n\n"
FOX = "\N{FOX FACE}".encode()  # four bytes
DATA = b"data: "


class EventFault:
    """What is to go wrong with one stream's chunks. By itself, nothing."""

    def feed(self, chunk: bytes, tokens: int) -> Iterator[bytes]:
        """Yield what is sent for `chunk`, before which `tokens` tokens were sent."""
        yield chunk

    def flush(self) -> Iterator[bytes]:
        """Yield what is left at the end."""
        return iter(())


class Edit(EventFault):
    """Each chunk is edited; None drops it."""

    def __init__(self, edit: Callable[[bytes], bytes | None]) -> None:
        self._edit = edit

    def feed(self, chunk: bytes, tokens: int) -> Iterator[bytes]:
        """See `EventFault.feed`."""
        if edited := self._edit(chunk):
            yield edited


class Once(EventFault):
    """What `change` makes of it stands in place of the first chunk after `at` tokens."""

    def __init__(self, at: int, change: Callable[[bytes], Iterable[bytes]]) -> None:
        self._at = at
        self._change = change
        self._over = False

    def feed(self, chunk: bytes, tokens: int) -> Iterator[bytes]:
        """See `EventFault.feed`."""
        if self._over or (tokens < self._at and chunk != sse.DONE):
            yield chunk
        else:
            self._over = True
            yield from self._change(chunk)


class Fox(EventFault):
    """After `at` tokens comes a letter of four bytes, and `send` says how."""

    def __init__(self, at: int, send: Callable[[bytes, bytes], Iterable[bytes]]) -> None:
        self._at = at
        self._send = send
        self._over = False
        self._model: bytes | None = None  # a chunk with text, to make others like it

    def feed(self, chunk: bytes, tokens: int) -> Iterator[bytes]:
        """See `EventFault.feed`."""
        if text_of(chunk):
            self._model = chunk
        is_due = tokens >= self._at or chunk == sse.DONE
        if self._model and is_due and not self._over:
            self._over = True
            before, _, after = with_text(self._model, "|").partition(b'"|"')
            yield from self._send(before + b'"', b'"' + after)
        yield chunk


class Coalesce(EventFault):
    """`count` chunks are sent as one."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._held: list[bytes] = []

    def feed(self, chunk: bytes, tokens: int) -> Iterator[bytes]:
        """See `EventFault.feed`."""
        self._held.append(chunk)
        if len(self._held) == self._count:
            yield from self.flush()

    def flush(self) -> Iterator[bytes]:
        """See `EventFault.flush`."""
        if self._held:
            yield b"".join(self._held)
            self._held.clear()


class Identified(EventFault):
    """Each event has an id, and between two of them stands a comment as a block of its own."""

    def __init__(self) -> None:
        self._number = 0

    def feed(self, chunk: bytes, tokens: int) -> Iterator[bytes]:
        """See `EventFault.feed`."""
        self._number += 1
        yield (HEARTBEAT if self._number > 1 else b"") + b"id: %d\n" % self._number + chunk


def spoil(faults: Sequence[EventFault], chunk: bytes, tokens: int) -> Iterable[bytes]:
    """Return what is sent for a chunk when one fault after the other has had it."""
    chunks: Iterable[bytes] = [chunk]
    for fault in faults:
        chunks = [made for one in chunks for made in fault.feed(one, tokens)]
    return chunks


def flush(faults: Sequence[EventFault]) -> Iterator[bytes]:
    """Yield what the faults have left at the end of a stream."""
    for number, fault in enumerate(faults):
        for chunk in fault.flush():
            yield from spoil(faults[number + 1 :], chunk, 0)


# What is done to a chunk


def cut_json(chunk: bytes) -> Iterable[bytes]:
    """End an event within its data; before the mark of the end, send one like that."""
    if chunk == sse.DONE:
        return (b'data: {"id":"\n\n', chunk)
    return (chunk[: len(chunk) // 3] + b"\n\n",)


def add_bom(chunk: bytes) -> Iterable[bytes]:
    """Begin with a byte order mark."""
    return (BOM + chunk,)


def end_lines_with_crlf(chunk: bytes) -> bytes:
    """End lines with CR LF."""
    return chunk.replace(b"\n", b"\r\n")


def repeat_role(chunk: bytes) -> bytes:
    """Say the role again with each text."""
    value = value_of(chunk)
    if not text_of(chunk):
        return chunk
    for choice in value["choices"]:
        choice["delta"] = {"role": "assistant", **choice["delta"]}
    return DATA + answers.encode(value) + b"\n\n"


def drop_done(chunk: bytes) -> bytes | None:
    """Leave out the mark of the end."""
    return None if chunk == sse.DONE else chunk


def drop_finish(chunk: bytes) -> bytes | None:
    """Leave out the chunks that say why a choice has ended."""
    ended = any(choice.get("finish_reason") for choice in choices_of(chunk))
    return None if ended else chunk


def drop_usage(chunk: bytes) -> bytes | None:
    """Leave out the chunk with the usage."""
    return None if "usage" in value_of(chunk) and not choices_of(chunk) else chunk


def in_two_chunks(before: bytes, after: bytes) -> Iterable[bytes]:
    """Send the fox in one event, with the end of a chunk within it."""
    return (before + FOX[:2], FOX[2:] + after)


def in_two_events(before: bytes, after: bytes) -> Iterable[bytes]:
    """Send each half of the fox in an event."""
    return (before + FOX[:2] + after, before + FOX[2:] + after)


# What a chunk says


def value_of(chunk: bytes) -> dict[str, Any]:
    """Return the JSON object in a chunk, an event's or a line's; nothing where there is none."""
    if chunk.startswith(b"event: "):
        chunk = chunk.partition(b"\n")[2]
    try:
        value = msgspec.json.decode(chunk.removeprefix(DATA))
    except msgspec.DecodeError:  # [DONE], a comment, white space
        return {}
    return value if isinstance(value, dict) else {}


def choices_of(chunk: bytes) -> list[dict[str, Any]]:
    """Return the choices in a chunk."""
    choices: list[dict[str, Any]] = value_of(chunk).get("choices", [])
    return choices


def text_of(chunk: bytes) -> str:
    """Return the text in a chunk, in any API's."""
    delta = value_of(chunk).get("delta")
    if isinstance(delta, dict):
        delta = delta.get("text")
    return (delta or "") + "".join(
        choice.get("text") or choice.get("delta", {}).get("content") or ""
        for choice in choices_of(chunk)
    )


def with_text(chunk: bytes, text: str) -> bytes:
    """Return an event like `chunk`, which has text, with another text, and no more choices."""
    value = value_of(chunk)
    choice = value["choices"][0]
    if "delta" in choice:
        choice["delta"]["content"] = text
    else:
        choice["text"] = text
    return DATA + answers.encode({**value, "choices": [choice]}) + b"\n\n"
