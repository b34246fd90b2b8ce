"""Bytes of HTTP/1.1 to lines for people, each with what it is. No IO.

Every byte is in exactly one line, in order, however wrong the bytes are; what cannot be read as
HTTP is a line without a note. Lessons annotate a conversation when it is over, the trace of a
server (`streamtok.observe.trace`) while it goes on.

Read next: `streamtok.observe.annotations`, the words; `streamtok.teach.doctor.recording` reads the
same bytes for what they say.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from streamtok.observe import annotations as notes
from streamtok.observe.annotations import Note

Kind = Literal["head", "framing", "data"]
ESCAPES = {0x0D: "\\r", 0x0A: "\\n", 0x09: "\\t", 0x5C: "\\\\"}
BODILESS = (b"1", b"204", b"304")  # answers that have no body (RFC 9112 section 6.3)
LINE_END = re.compile(rb"\r\n|\r|\n")  # in an event stream
FORMATS = {b"text/event-stream": notes.of_event_line, b"application/x-ndjson": notes.of_json}
SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}")  # of a chunk; int() would take -1, 0x1 and 1_0 too
CUT = " ... "  # stands for the middle of a line that is not shown

More = Iterator[None]  # of a step that asks for more bytes where there are too few


@dataclass(frozen=True, slots=True)
class Line:
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
    """Goes through the bytes of one direction, message by message, as they come.

    A line is given when it is complete, bytes of a body that has no lines at once. Set
    `answers_head` when the next answer is one to a HEAD request, which has no body.
    """

    def __init__(self) -> None:
        self.answers_head = False
        self._buffer = bytearray()
        self._lines: list[Line] = []
        self._fields: dict[bytes, bytes] = {}  # of the present head
        self._ended = False
        self._walk = self._messages()

    @property
    def is_between(self) -> bool:
        """Whether nothing of a line has come yet."""
        return not self._buffer

    def feed(self, data: bytes) -> list[Line]:
        """Return the lines that `data` completes."""
        self._buffer += data
        next(self._walk, None)
        lines, self._lines = self._lines, []
        return lines

    def end(self) -> list[Line]:
        """Return what is left: no more will come."""
        self._ended = True
        return self.feed(b"")

    # In the order of a message. What is asked for more bytes yields, and goes on with them.

    def _messages(self) -> More:
        while not self._ended or self._buffer:
            if not self._buffer:
                yield
                continue
            yield from self._message()

    def _message(self) -> More:
        self._fields = {}
        yield from self._await_line()
        start = self._line()
        is_answer = start.startswith(b"HTTP/")
        if not is_answer and b" HTTP/" not in start:
            self._show(start)
            return
        note = "version, status, reason" if is_answer else "method, target, version"
        self._show(start, note, "head")
        yield from self._head()
        bodiless = is_answer and start.partition(b" ")[2].startswith(BODILESS)
        if is_answer and self.answers_head and not start.partition(b" ")[2].startswith(b"1"):
            self.answers_head, bodiless = False, True
        if not bodiless:
            yield from self._body(is_answer)

    def _head(self) -> More:
        while True:
            yield from self._await_line()
            line = self._line()
            if not line.strip(b"\r\n"):
                break
            name, _, value = line.partition(b":")
            self._fields[name.lower()] = value.strip().lower()
            self._show(line, notes.of_field(name.lower(), value.strip()), "head")
        self._show(line, "an empty line ends the head", "head")

    def _body(self, is_answer: bool) -> More:
        length = self._fields.get(b"content-length", b"")
        if self._fields.get(b"transfer-encoding") == b"chunked":
            yield from self._chunks()
        elif length.isdigit():
            yield from self._data(int(length[:18]))
        elif is_answer:
            yield from self._data(None)

    def _chunks(self) -> More:
        """Read chunks, the zero chunk, and trailers (RFC 9112 section 7.1)."""
        while True:
            yield from self._await_line()
            line = self._line()
            written = line.partition(b";")[0].strip()
            if not SIZE.fullmatch(written):
                self._show(line, "", "framing")
                return
            size = int(written, 16)
            if size == 0:
                self._show(line, "the zero chunk: that was the body", "framing")
                yield from self._trailers()
                return
            note = f"0x{written.decode()} = {size}: so many bytes follow"
            self._show(line, note, "framing")
            yield from self._data(size)
            yield from self._await(2)
            end = self._take(2)
            note = "ends the chunk" if end == b"\r\n" else "\\r\\n is missing here"
            self._show(end, note, "framing")
            if end != b"\r\n":
                return

    def _trailers(self) -> More:
        while True:
            yield from self._await_line()
            line = self._line()
            if not line.strip(b"\r\n"):
                break
            self._show(line, "a trailer", "framing")
        self._show(line, "the end", "framing")

    def _data(self, size: int | None) -> More:
        """Read `size` bytes of body (None: all), line by line where the format has lines."""
        kind = self._fields.get(b"content-type", b"").partition(b";")[0]
        note_of = FORMATS.get(kind)
        while size is None or size:
            yield from self._await(1)
            if not self._buffer:
                return  # the bytes ended too soon
            if note_of:
                yield from self._await_body_line(size)
            length = len(self._buffer) if size is None else min(size, len(self._buffer))
            if note_of and (match := LINE_END.search(self._buffer, 0, length)):
                length = match.end()
            data = self._take(length)
            note = note_of(data) if note_of else Note("", 0 if kind == b"text/plain" else None)
            self._show(data, note.text, "data", note.choice)
            size = None if size is None else size - len(data)

    # Taking bytes; at the end of all, what there is

    def _await(self, count: int) -> More:
        while len(self._buffer) < count and not self._ended:
            yield

    def _await_line(self) -> More:
        while b"\n" not in self._buffer and not self._ended:
            yield

    def _await_body_line(self, size: int | None) -> More:
        """Wait for a line's end, or for the end of the `size` bytes that it may be in."""
        while not self._ended and (size is None or len(self._buffer) < size):
            match = LINE_END.search(self._buffer)
            if match and (match[0] != b"\r" or match.end() < len(self._buffer)):
                return
            yield

    def _line(self) -> bytes:
        end = self._buffer.find(b"\n")
        return self._take(len(self._buffer) if end < 0 else end + 1)

    def _take(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _show(
        self, data: bytes, note: str = "", kind: Kind = "data", choice: int | None = None
    ) -> None:
        if data:
            self._lines.append(Line(data, note, kind, choice))
