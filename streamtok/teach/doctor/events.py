"""Rules on server-sent events: their lines, their letters, and when they come.

Read next: `streamtok.teach.doctor.chunks`, the rules on what events say.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

from streamtok.teach.doctor.eventstream import BOM, Block, Stream
from streamtok.teach.doctor.recording import show
from streamtok.teach.doctor.rules import rule

FIELDS = frozenset({"", "data", "event", "id", "retry"})
LONE_HALF = re.compile(rb"\\u[dD][89a-bA-B][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@rule(
    "error",
    source="WHATWG HTML, Server-sent events",
    breaks="openai-python and openai-node, whose first event is not seen as data",
    fix="encode as utf-8, not utf-8-sig",
)
def bom(stream: Stream) -> Iterator[str]:
    """A stream does not begin with a byte order mark."""
    if stream.answer.body.startswith(BOM):
        yield show(stream.answer.body[:20])


@rule(
    "warning",
    source="WHATWG HTML, Server-sent events: allowed, but read wrongly by many",
    breaks="clients that look for two line feeds between events",
    fix="end lines with LF alone",
)
def carriage_return(stream: Stream) -> Iterator[str]:
    """Lines of events end with a line feed alone."""
    return (show(block.raw) for block in stream.blocks if b"\r" in block.raw)


@rule(
    "error",
    source="WHATWG HTML, Server-sent events",
    breaks="all clients: a line they do not know is ignored, and its text with it",
    fix="begin each line with `data: `",
)
def unknown_field(stream: Stream) -> Iterator[str]:
    """A line is a comment, or begins with data, event, id or retry."""
    for block in stream.blocks:
        if any(name not in FIELDS for name, _ in block.fields):
            yield show(block.raw)


@rule(
    "error",
    source="WHATWG HTML, Server-sent events: without an empty line an event is discarded",
    breaks="EventSource and every client that follows the standard: the event is lost",
    fix="write two line feeds after the last event too",
)
def unfinished_event(stream: Stream) -> Iterator[str]:
    """Each event ends with an empty line, the last one too."""
    return (show(block.raw) for block in stream.blocks if not block.ended)


@rule(
    "error",
    source="WHATWG HTML, Server-sent events: allowed; OpenAI sends none",
    breaks="openai-python, which parses the missing data as JSON",
    fix="send no event without data; a sign of life is a comment",
)
def event_without_data(stream: Stream) -> Iterator[str]:
    """An event has data."""
    for block in stream.blocks:
        named = {name for name, _ in block.fields}
        if named & {"event", "id"} and "data" not in named:
            yield show(block.raw)


@rule(
    "error",
    source="WHATWG HTML, Server-sent events: allowed; OpenAI sends none",
    breaks="openai-python, which parses the missing data as JSON",
    fix="leave `retry:` out, or put it into an event with data",
)
def retry_alone(stream: Stream) -> Iterator[str]:
    """A `retry:` does not stand alone."""
    for block in stream.blocks:
        named = {name for name, _ in block.fields}
        if "retry" in named and not named & {"data", "event", "id"}:
            yield show(block.raw)


@rule(
    "error",
    source="WHATWG HTML, Server-sent events: allowed; read wrongly",
    breaks="openai-python, which takes the empty line for the end of an event once it knows an id",
    fix="write one line feed after a comment, not two; or send no `id:`",
)
def heartbeat_after_id(stream: Stream) -> Iterator[str]:
    """After an `id:`, no comment stands in a block of its own."""
    known = False
    for block in stream.blocks:
        named = {name for name, _ in block.fields}
        if known and block.ended and not named - {""}:
            yield show(block.raw)
        known = known or "id" in named


def _utf8_error(block: Block) -> UnicodeDecodeError | None:
    try:
        block.raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return error
    return None


@rule(
    "error",
    source="WHATWG HTML, Server-sent events; RFC 8259 section 8.2",
    breaks="all clients: each half becomes U+FFFD, and the letter or emoji is lost",
    fix="hold bytes back until they make a whole character",
)
def utf8_split(stream: Stream) -> Iterator[str]:
    """A character is never split between two events."""
    for block, following in pairwise(stream.events):
        if (_utf8_error(block) and _utf8_error(following)) or (
            LONE_HALF.search(block.data or b"") and b"\\ud" in (following.data or b"").lower()
        ):
            yield f"{show(block.raw)} | {show(following.raw)}"


@rule(
    "error",
    source="WHATWG HTML, Server-sent events: always UTF-8",
    breaks="all clients: the letters become U+FFFD, strict ones stop",
    fix="encode events as UTF-8",
)
def utf8_invalid(stream: Stream) -> Iterator[str]:
    """A stream is valid UTF-8."""
    wrong = [block for block in stream.blocks if _utf8_error(block)]
    if len(wrong) == 1:
        yield show(wrong[0].raw)


@rule(
    "warning",
    source="Unicode section 3.9",
    breaks="readers: a token that ends within a character was decoded alone",
    fix="decode the tokens together, and hold back what is not yet a character",
)
def replacement(stream: Stream) -> Iterator[str]:
    """No text holds U+FFFD, the mark of what could not be decoded."""
    for block in stream.events:
        data = block.data or b""
        if not _utf8_error(block) and (REPLACEMENT.encode() in data or b"\\ufffd" in data.lower()):
            yield show(data)


@rule(
    "warning",
    source="not a rule of HTTP; what streaming is for",
    breaks="no client, but text comes in jerks: several tokens wait for each other",
    fix="write each event by itself, and set TCP_NODELAY",
)
def coalesced(stream: Stream) -> Iterator[str]:
    """A chunk carries one event."""
    for chunk in stream.answer.chunks:
        inside = [b for b in stream.spoken if chunk.start < b.end <= chunk.end]
        if len(inside) > 1:
            yield f"{len(inside)} events in a chunk of {chunk.end - chunk.start} bytes"


@rule(
    "warning",
    source="not a rule of HTTP: chunks may be cut anywhere",
    breaks="clients that take a chunk for an event (`for await (const chunk of body)`)",
    fix="write each event at once, in one chunk",
)
def event_split(stream: Stream) -> Iterator[str]:
    """An event lies within one chunk."""
    body = stream.answer.body
    # A heartbeat may be a chunk of its own before an event: a cut between lines is none.
    ends = [chunk.end for chunk in stream.answer.chunks if body[chunk.end - 1] != 10]
    for block in stream.events:
        if any(block.start < end < block.end for end in ends):
            yield show(block.raw)


RULES = (
    bom,
    carriage_return,
    unknown_field,
    unfinished_event,
    event_without_data,
    retry_alone,
    heartbeat_after_id,
    utf8_split,
    utf8_invalid,
    replacement,
    coalesced,
    event_split,
)
