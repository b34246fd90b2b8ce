"""Bytes of HTTP/1.1 to lines for people, each with what it is. No IO.

Every byte is in exactly one line, in order, however wrong the bytes are; what cannot be read as
HTTP is a line without a note. `streamtok.teach.recording` reads the same bytes for what they say.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["head", "framing", "data"]
ESCAPES = {0x0D: "\\r", 0x0A: "\\n", 0x09: "\\t", 0x5C: "\\\\"}
FIELDS = {  # field -> what it says
    b"accept": "what the client can read",
    b"cache-control": "not for caches",
    b"content-length": "so many bytes of body follow",
    b"content-type": "what the body is",
    b"date": "when the answer began",
    b"host": "required since HTTP/1.1",
    b"retry-after": "come back in so many seconds",
    b"server": "who answers",
    b"te": "trailers are welcome",
    b"trailer": "what will follow the zero chunk",
    b"transfer-encoding": "the length is not known yet",
    b"x-accel-buffering": "nginx is to pass chunks on",
    b"x-request-id": "its name in the server's log",
}
BODILESS = (b"1", b"204", b"304")  # answers that have no body (RFC 9112 section 6.3)


@dataclass(frozen=True, slots=True)
class Line:
    """Bytes that belong together, and what they are; `kind` tells head, chunk framing and data."""

    data: bytes
    note: str
    kind: Kind


def annotate(raw: bytes) -> tuple[Line, ...]:
    """Return the lines of one or more requests, or of one or more answers."""
    return tuple(_Walk(raw).lines())


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


@dataclass
class _Walk:
    """Goes through the bytes once, message by message."""

    raw: bytes
    position: int = 0
    fields: dict[bytes, bytes] = field(default_factory=dict)  # of the present head

    def lines(self) -> Iterator[Line]:
        while self.position < len(self.raw):
            yield from self._message()

    def _message(self) -> Iterator[Line]:
        self.fields = {}
        start = self._line()
        is_answer = start.startswith(b"HTTP/")
        if not is_answer and b" HTTP/" not in start:
            yield Line(start, "", "data")
            return
        yield Line(
            start, "version, status, reason" if is_answer else "method, target, version", "head"
        )
        while (line := self._line()).strip(b"\r\n"):
            name, _, value = line.partition(b":")
            self.fields[name.lower()] = value.strip().lower()
            yield Line(line, _field_note(name.lower(), value.strip()), "head")
        if line:
            yield Line(line, "an empty line ends the head", "head")
        if not is_answer or not start.partition(b" ")[2].startswith(BODILESS):
            yield from self._body(is_answer)

    def _body(self, is_answer: bool) -> Iterator[Line]:
        length = self.fields.get(b"content-length", b"")
        if self.fields.get(b"transfer-encoding") == b"chunked":
            yield from self._chunks()
        elif length.isdigit():
            yield from self._data(int(length[:18]))
        elif is_answer:
            yield from self._data(len(self.raw) - self.position)

    def _chunks(self) -> Iterator[Line]:
        """Read chunks, the zero chunk, and trailers (RFC 9112 section 7.1)."""
        while line := self._line():
            try:
                size = int(line.partition(b";")[0], 16)
            except ValueError:
                yield Line(line, "", "framing")
                return
            if size == 0:
                yield Line(line, "the zero chunk: that was the body", "framing")
                yield from self._trailers()
                return
            written = line.partition(b";")[0].strip().decode()
            yield Line(line, f"0x{written} = {size}: so many bytes follow", "framing")
            yield from self._data(size)
            if end := self._take(2):
                yield Line(
                    end, "ends the chunk" if end == b"\r\n" else "\\r\\n is missing here", "framing"
                )
            if end != b"\r\n":
                return

    def _trailers(self) -> Iterator[Line]:
        while (line := self._line()).strip(b"\r\n"):
            yield Line(line, "a trailer", "framing")
        if line:
            yield Line(line, "the end", "framing")

    def _data(self, size: int) -> Iterator[Line]:
        """Read `size` bytes of body, line by line where the format has lines."""
        data = self._take(size)
        kind = self.fields.get(b"content-type", b"").partition(b";")[0]
        if kind == b"text/event-stream":
            yield from (Line(line, _event_note(line), "data") for line in data.splitlines(True))
        elif data:
            yield Line(data, "", "data")

    def _line(self) -> bytes:
        """Take what there is up to the next line feed."""
        end = self.raw.find(b"\n", self.position)
        return self._take(len(self.raw) if end < 0 else end + 1 - self.position)

    def _take(self, size: int) -> bytes:
        data = self.raw[self.position : self.position + size]
        self.position += len(data)
        return data


def _field_note(name: bytes, value: bytes) -> str:
    if name == b"connection":
        return "the last one here" if b"close" in value.lower() else ""
    return FIELDS.get(name, "")


def _event_note(line: bytes) -> str:
    """Return what a line of an event stream is."""
    if not line.strip(b"\r\n"):
        return "an empty line ends the event"
    if line.startswith(b":"):
        return "a comment: a sign of life"
    if line.startswith(b"data: [DONE]"):
        return "OpenAI's mark for the end"
    try:
        return _chunk_note(json.loads(line.removeprefix(b"data:")))
    except (ValueError, LookupError, TypeError):
        return ""


def _chunk_note(value: Any) -> str:
    """Return what a chunk of an answer says."""
    if "error" in value:
        return "an error"
    if not value["choices"]:
        return "the usage"
    choice = value["choices"][0]
    if choice["finish_reason"]:
        return f"why it ended: {choice['finish_reason']}"
    delta = choice.get("delta", choice)
    if "role" in delta:
        return "the role, said once"
    return f"text: {json.dumps(delta.get('text', delta.get('content')), ensure_ascii=False)}"
