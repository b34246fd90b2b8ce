"""Bytes of HTTP/1.1 to annotated lines. No IO.

Every byte is in exactly one line, in order, however wrong the bytes are; what cannot be read as
HTTP is a line without a note. Lessons annotate a conversation when it is over, the trace of a
server (`streamtok.observe.trace`) while it goes on.

Read next: `streamtok.observe.annotations`, which has the notes.
"""

import re
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from streamtok.observe import annotations as notes
from streamtok.observe.reader import MessageReader, Part

Kind = Literal["head", "framing", "data"]
ESCAPES = {0x0D: "\\r", 0x0A: "\\n", 0x09: "\\t", 0x5C: "\\\\"}
LINE_END = re.compile(rb"\r\n|\r|\n")  # in an event stream
HEAD = ("request-line", "status-line", "head-end")
PARTS = {
    "request-line": "method, target, version",
    "status-line": "version, status, reason",
    "head-end": "an empty line ends the head",
    "chunk-size": "the zero chunk: that was the body",
    "chunk-end": "ends the chunk",
    "trailer": "a trailer",
    "trailers-end": "the end",
}
FORMATS = {b"text/event-stream": notes.of_event_line, b"application/x-ndjson": notes.of_json}
CUT = " ... "  # stands for the middle of a line that is not shown


class Line(Struct, frozen=True):
    """Bytes that belong together, and what they are; `kind` tells head, chunk framing and data.

    `choice` is that whose text they carry, if they carry any.
    """

    data: bytes
    note: str
    kind: Kind
    choice: int | None = None


def annotate(raw: bytes) -> tuple[Line, ...]:
    """Return the lines of one or more requests, or of one or more answers."""
    annotator = Annotator()
    return (*annotator.feed(raw), *annotator.end())


def answer_starts(raw: bytes) -> list[int]:
    """Return where each answer in `raw` begins."""
    starts, offset = [], 0
    for line in annotate(raw):
        if line.kind == "head" and line.data.startswith(b"HTTP/"):
            starts.append(offset)
        offset += len(line.data)
    return starts


def escape(data: bytes) -> list[str]:
    """Return each byte as printable ASCII: itself, or an escape as Python writes it."""
    return [
        ESCAPES.get(byte) or (chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}")
        for byte in data
    ]


def unescape(text: str) -> bytes:
    """Return the bytes that `text` stands for, where escapes are written as Python writes them.

    Raises:
        ValueError: an escape is not complete, or is no byte.
    """
    return text.encode().decode("unicode_escape").encode("latin-1")


def wrap(units: list[str], width: int, most: int | None = None) -> list[str]:
    """Return escaped bytes in rows, no escape cut in two; beyond `most` rows, only both ends."""
    rows = [""]
    for unit in units:
        if len(rows[-1]) + len(unit) > width:
            rows.append("")
        rows[-1] += unit
    if most is None or len(rows) <= most:
        return rows
    room, first, last = width - len(CUT), "", ""
    while len(first) + len(units[0]) <= room:
        first += units.pop(0)
    while len(last) + len(units[-1]) <= room:
        last = units.pop() + last
    return [first + CUT.rstrip(), CUT.lstrip() + last]


class Annotator:
    """Turns the parts of one direction into lines, as the bytes come.

    A line is given when it is complete, bytes of a body that has no lines at once.
    """

    def __init__(self) -> None:
        self._reader = MessageReader()
        self._body = bytearray()  # of a line that is not complete
        self._media_type = b""  # of the present message

    @property
    def is_between(self) -> bool:
        """Whether nothing of a line has come yet."""
        return self._reader.is_between and not self._body

    def answers_head(self, answers_head: bool) -> None:
        """Say whether the next answer is to a HEAD request."""
        self._reader.answers_head = answers_head

    def feed(self, data: bytes) -> list[Line]:
        """Return the lines that `data` completes."""
        return [line for part in self._reader.feed(data) for line in self._lines(part)]

    def end(self) -> list[Line]:
        """Return what is left: no more will come."""
        lines = [line for part in self._reader.end() for line in self._lines(part)]
        return [*lines, *self._data(Part("data", b"", last=True))]

    def _lines(self, part: Part) -> Iterator[Line]:
        if part.kind == "data":
            yield from self._data(part)
        elif part.kind == "unknown":
            yield Line(part.data, "", "data")
        elif part.kind == "field":
            name, _, value = (text.strip().lower() for text in part.data.partition(b":"))
            if name == b"content-type":
                self._media_type = value.partition(b";")[0]
            yield Line(part.data, notes.of_field(name, value), "head")
        else:
            if part.kind in ("request-line", "status-line"):
                self._media_type = b""
            yield Line(part.data, _note(part), "head" if part.kind in HEAD else "framing")

    def _data(self, part: Part) -> Iterator[Line]:
        """Yield a body's lines where its format has lines; a line never goes beyond its chunk."""
        note_of = FORMATS.get(self._media_type)
        self._body += part.data
        while self._body and note_of and (line := self._line(part.last)):
            note = note_of(line)
            yield Line(line, note.text, "data", note.choice)
        if self._body and not note_of:
            choice = 0 if self._media_type == b"text/plain" else None
            yield Line(bytes(self._body), "", "data", choice)
            self._body.clear()

    def _line(self, last: bool) -> bytes:
        """Take a line; nothing if it is not complete, which a CR at the end may not be."""
        match = LINE_END.search(self._body)
        if match and (last or match[0] != b"\r" or match.end() < len(self._body)):
            length = match.end()
        else:
            length = len(self._body) if last else 0
        line = bytes(self._body[:length])
        del self._body[:length]
        return line


def _note(part: Part) -> str:
    """Return what a part of a head or of the chunk framing is."""
    if part.kind == "chunk-size" and part.size:
        written = part.data.partition(b";")[0].strip().decode()
        return f"0x{written} = {part.size}: so many bytes follow"
    if part.kind == "chunk-size" and part.size is None:
        return ""
    if part.kind == "chunk-end" and part.flaw:
        return "\\r\\n is missing here"
    return PARTS[part.kind]
