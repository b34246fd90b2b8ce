"""A tolerant reader of HTTP/1.1: every byte is in exactly one part, however wrong it is. No IO.

An HTTP library rejects what is malformed. This reader names the rule that was broken and goes on
as long as the bytes make sense, because it serves people who look at a conversation: the trace
(`streamtok.observe.annotate`), the lessons and the doctor (`streamtok.teach.doctor.recording`).
The server itself never uses it; `streamtok.http.strict` and h11 guard what it accepts.

A part is given when it is complete; only the data of a body are given as they come. The format of
messages is that of RFC 9112. Read next: `streamtok.observe.annotate`.
"""

import re
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: .*)?")
FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")
SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")  # of a chunk; int() would take -1, 0x1 and 1_0 too

Kind = Literal[
    "request-line",
    "status-line",
    "field",
    "head-end",
    "chunk-size",
    "data",
    "chunk-end",
    "trailer",
    "trailers-end",
    "unknown",  # a line that is not HTTP
]
More = Iterator[None]  # of a step that waits for more bytes


class Part(Struct, frozen=True):
    """Consecutive bytes with one meaning. Where a rule is broken, `flaw` is its name.

    `size` is that of the chunk which a "chunk-size" announces; None if it cannot be read. Data are
    `last` where a chunk, a body of known length, or the conversation ends with them.
    """

    kind: Kind
    data: bytes
    flaw: str | None = None
    size: int | None = None
    last: bool = False


class MessageReader:
    """Reads one direction of a connection, message after message.

    Set `answers_head` before an answer to a HEAD request, which has no body whatever its header
    says (RFC 9110 section 9.3.2).
    """

    def __init__(self) -> None:
        self.answers_head = False
        self._fields: dict[bytes, bytes] = {}
        self._buffer = bytearray()
        self._parts: list[Part] = []
        self._ended = False
        self._walk = self._messages()

    @property
    def is_between(self) -> bool:
        """Whether every byte that came is in a part."""
        return not self._buffer

    def feed(self, data: bytes) -> list[Part]:
        """Return the parts that `data` completes."""
        self._buffer += data
        next(self._walk, None)
        parts, self._parts = self._parts, []
        return parts

    def end(self) -> list[Part]:
        """Return what is left: no more bytes will come."""
        self._ended = True
        return self.feed(b"")

    # In the order of a message. A step that lacks bytes yields, and goes on when there are more.

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
            self._add("unknown", start, "head-syntax")
            return
        well_formed = not is_answer or STATUS_LINE.fullmatch(start.rstrip(b"\r\n"))
        flaw = None if well_formed and start.endswith(b"\r\n") else "head-syntax"
        self._add("status-line" if is_answer else "request-line", start, flaw)
        yield from self._head()
        status = start.partition(b" ")[2][:3] if is_answer else b""
        if not self._is_bodiless(status):
            yield from self._body(is_answer)

    def _is_bodiless(self, status: bytes) -> bool:
        """Whether an answer has no body by its status or its request (RFC 9112 section 6.3)."""
        if status.startswith(b"1") or status in (b"204", b"304"):
            return True
        if status and self.answers_head:
            self.answers_head = False
            return True
        return False

    def _head(self) -> More:
        while True:
            yield from self._await_line()
            line = self._line()
            flaw = None if line.endswith(b"\r\n") else "head-syntax"
            text = line.rstrip(b"\r\n")
            if not text:
                self._add("head-end", line, flaw)
                return
            name, _, value = text.partition(b":")
            self._fields[name.lower()] = value.strip()
            self._add("field", line, flaw if FIELD.fullmatch(text) else "head-syntax")

    def _body(self, is_answer: bool) -> More:
        """Read a body; its length is known as RFC 9112 section 6.3 has it."""
        length = self._fields.get(b"content-length", b"")
        if b"chunked" in self._fields.get(b"transfer-encoding", b"").lower():
            yield from self._chunks()
        elif length.isdigit():
            yield from self._data(int(length[:18]))
        elif is_answer:
            yield from self._data(None)

    def _chunks(self) -> More:
        """Read chunks, the zero chunk and trailers (RFC 9112 section 7.1)."""
        while True:
            yield from self._await_line()
            line = self._line()
            written = line.partition(b";")[0].rstrip(b" \t\r\n")
            size = int(written, 16) if SIZE.fullmatch(written) else None
            self._add("chunk-size", line, "chunk-size" if size is None else _line_flaw(line), size)
            if size is None:
                return
            if size == 0:
                yield from self._trailers()
                return
            yield from self._data(size)
            yield from self._await(2)
            end = self._take(2)
            self._add("chunk-end", end, None if end == b"\r\n" else "chunk-length")
            if end != b"\r\n":
                return

    def _trailers(self) -> More:
        while True:
            yield from self._await_line()
            line = self._line()
            if not line.strip(b"\r\n"):
                self._add("trailers-end", line, _line_flaw(line))
                return
            self._add("trailer", line, _line_flaw(line))

    def _data(self, size: int | None) -> More:
        """Read `size` bytes of a body, or all there are if it is None."""
        while size is None or size:
            yield from self._await(1)
            if not self._buffer:
                return  # the bytes ended too soon
            data = self._take(len(self._buffer) if size is None else min(size, len(self._buffer)))
            size = None if size is None else size - len(data)
            self._add("data", data, last=size == 0 or (self._ended and not self._buffer))

    # Taking bytes: at the end of the conversation, those there are

    def _await(self, count: int) -> More:
        while len(self._buffer) < count and not self._ended:
            yield

    def _await_line(self) -> More:
        while b"\n" not in self._buffer and not self._ended:
            yield

    def _line(self) -> bytes:
        end = self._buffer.find(b"\n")
        return self._take(len(self._buffer) if end < 0 else end + 1)

    def _take(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _add(
        self,
        kind: Kind,
        data: bytes,
        flaw: str | None = None,
        size: int | None = None,
        *,
        last: bool = False,
    ) -> None:
        if data:
            self._parts.append(Part(kind, data, flaw, size, last))


def _line_flaw(line: bytes) -> str | None:
    return None if line.endswith(b"\r\n") else "chunk-line-end"
