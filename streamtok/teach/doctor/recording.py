"""What was read from a socket, and what it says, however wrong it is. No IO.

What is malformed is kept as a flaw, by the name of the rule that is broken
(`streamtok.observe.reader`). Read next: `streamtok.teach.doctor.eventstream`, then the rules in
`streamtok.teach.doctor.framing`.
"""

from bisect import bisect_left
from typing import Literal

from msgspec import Struct

from streamtok.http.request import HeaderList
from streamtok.observe.annotate import escape
from streamtok.observe.reader import FIELD, STATUS_LINE, MessageReader, Part

FATAL = frozenset({"chunk-size", "chunk-length", "body-cut"})  # the rest cannot be read
SHOWN = 160  # bytes of what was seen


class Read(Struct, frozen=True):
    """What one read gave, and when: `at_s` seconds after the request was sent."""

    at_s: float
    data: bytes


class Recording(Struct, frozen=True):
    """All that came, and why reading ended: "answered" means that the answer was complete."""

    reads: tuple[Read, ...]
    ended: Literal["answered", "closed", "reset", "silent"] = "closed"


class Flaw(Struct, frozen=True):
    """Something wrong on the wire: `rule` is the name of the rule, `seen` the bytes."""

    rule: str
    seen: str


class Chunk(Struct, frozen=True):
    """One chunk: its data are `body[start:end]`, the last of which came at `at_s`."""

    start: int
    end: int
    at_s: float


class Answer(Struct, frozen=True):
    """An answer as far as it could be read; `status` is 0 where not even that could be."""

    status: int
    headers: HeaderList
    body: bytes
    chunks: tuple[Chunk, ...]
    complete: bool
    flaws: tuple[Flaw, ...]
    ended: str
    times: tuple[tuple[int, float], ...]  # (end in body, when its last byte came)

    def header(self, name: str) -> str | None:
        """Return a header's values, joined by commas; None if there is none."""
        values = [value for other, value in self.headers if other == name]
        return ", ".join(values) if values else None

    @property
    def chunked(self) -> bool:
        """Whether the body came in chunks."""
        return "chunked" in (self.header("transfer-encoding") or "").lower()

    @property
    def readable(self) -> bool:
        """Whether the framing holds, so that the body is what was meant."""
        return not FATAL.intersection(flaw.rule for flaw in self.flaws)

    def at_s(self, end: int) -> float:
        """Return when the byte before offset `end` of the body came."""
        place = bisect_left(self.times, end, key=lambda time: time[0])
        return self.times[min(place, len(self.times) - 1)][1] if self.times else 0.0


def show(data: bytes | bytearray) -> str:
    """Return bytes for people: escapes for what is not printable ASCII, cut where it is long."""
    text = "".join(escape(bytes(data[:SHOWN])))
    return text + (f" ... ({len(data)} bytes)" if len(data) > SHOWN else "")


def read_answer(recording: Recording) -> Answer:
    """Return the answer in a recording."""
    reader = AnswerReader()
    for read in recording.reads:
        reader.feed(read)
    return reader.answer(recording.ended)


class AnswerReader:
    """Collects one answer from reads, as they come; interim answers before it are skipped."""

    def __init__(self) -> None:
        self._reader = MessageReader()
        self._raw = bytearray()
        self._offset = 0  # of the next part in `_raw`
        self._at_s = 0.0
        self._status = 0
        self._headers: list[tuple[str, str]] = []
        self._stage: Literal["head", "body", "complete", "broken"] = "head"
        self._body = bytearray()
        self._chunk: list[tuple[bytes, float]] = []  # data of a chunk whose end has not come
        self._size: int | None = None  # of that chunk
        self._chunks: list[Chunk] = []
        self._flaws: list[Flaw] = []
        self._times: list[tuple[int, float]] = []

    def feed(self, read: Read) -> None:
        """Take what one read gave."""
        self._raw += read.data
        self._at_s = read.at_s
        for part in self._reader.feed(read.data):
            self._take(part)

    def answer(self, ended: Literal["answered", "closed", "reset", "silent"]) -> Answer:
        """Return the answer as far as it came."""
        complete, flaws = self._stage == "complete", list(self._flaws)
        if complete and self._raw[self._offset :]:
            flaws.append(Flaw("bytes-after-end", show(bytes(self._raw[self._offset :]))))
        elif self._stage == "head" and not flaws:
            flaws.append(Flaw("head-syntax", show(bytes(self._raw))))
        elif self._stage == "body" and self._is_delimited_by_close:
            complete = ended == "closed"
            if ended in ("reset", "silent"):
                flaws.append(Flaw("body-cut", show(bytes(self._raw[-40:]))))
        elif self._stage == "body":
            in_chunks = self._is_chunked and not self._size
            flaws.append(Flaw("zero-chunk" if in_chunks else "body-cut", show(self._raw[-40:])))
        return Answer(
            0 if self._stage == "head" else self._status,
            tuple(self._headers),
            bytes(self._body),
            tuple(self._chunks),
            complete,
            tuple(flaws),
            ended,
            tuple(self._times),
        )

    @property
    def _fields(self) -> dict[str, str]:
        return dict(self._headers)

    @property
    def _is_chunked(self) -> bool:
        return "chunked" in self._fields.get("transfer-encoding", "").lower()

    @property
    def _is_delimited_by_close(self) -> bool:
        length = self._fields.get("content-length")
        return not self._is_chunked and (length is None or not length.isdecimal())

    def _take(self, part: Part) -> None:
        if self._stage in ("complete", "broken"):
            return
        self._offset += len(part.data)
        if part.flaw and part.kind != "chunk-end":
            self._flaws.append(Flaw(part.flaw, show(part.data)))
        if part.kind in ("status-line", "request-line", "unknown"):
            self._start(part)
        elif part.kind == "field":
            if field := FIELD.fullmatch(part.data.rstrip(b"\r\n")):
                self._headers.append((field[1].decode().lower(), field[2].decode("latin-1")))
        elif part.kind == "head-end":
            self._head_ended()
        elif part.kind == "chunk-size":
            self._size = part.size
            self._stage = "broken" if part.size is None else "body"
        elif part.kind == "data":
            self._data(part)
        elif part.kind == "chunk-end":
            self._chunk_ended(part)
        elif part.kind == "trailers-end":
            self._stage = "complete"

    def _start(self, part: Part) -> None:
        status = STATUS_LINE.fullmatch(part.data.rstrip(b"\r\n"))
        if status is None:
            self._stage = "broken"
        self._status = int(status[1]) if status else 0
        self._headers.clear()

    def _head_ended(self) -> None:
        if self._status < 200:
            return  # an interim answer: the answer is still to come
        empty = self._fields.get("content-length") == "0" and not self._is_chunked
        self._stage = "complete" if self._status in (204, 304) or empty else "body"

    def _data(self, part: Part) -> None:
        if self._is_chunked:
            self._chunk.append((part.data, self._at_s))
            return
        self._add(part.data, self._at_s)
        if part.last and not self._is_delimited_by_close:
            self._stage = "complete"

    def _chunk_ended(self, part: Part) -> None:
        start = len(self._body)
        for data, at_s in self._chunk:
            self._add(data, at_s)
        self._chunks.append(Chunk(start, len(self._body), self._times[-1][1]))
        self._chunk, size, self._size = [], self._size, None
        if part.flaw:
            near = bytes(self._raw[self._offset - 22 : self._offset + 18])
            self._flaws.append(Flaw(part.flaw, show(b"%x: ... %b" % (size or 0, near))))
            self._stage = "broken"

    def _add(self, data: bytes, at_s: float) -> None:
        self._body += data
        self._times.append((len(self._body), at_s))
