"""What was read from a socket, and what it says, however wrong it is. No IO.

An HTTP library refuses what is wrong; this reader notes it as a flaw, by the name of the rule that
is broken, and reads on as long as there is any sense in it. Read next:
`streamtok.teach.doctor.eventstream`, then the rules in `streamtok.teach.doctor.framing`.
"""

import re
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

from streamtok.http.request import HeaderList
from streamtok.observe.annotate import escape

STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: .*)?")
HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")
HEAD_END = re.compile(rb"\r?\n\r?\n")
SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")
FATAL = frozenset({"chunk-size", "chunk-length", "body-cut"})  # the rest cannot be read
SHOWN = 160  # bytes of what was seen


@dataclass(frozen=True, slots=True)
class Read:
    """What one read gave, and when: `at_s` seconds after the request was sent."""

    at_s: float
    data: bytes


@dataclass(frozen=True, slots=True)
class Recording:
    """All that came, and why reading ended: "answered" means that the answer was complete."""

    reads: tuple[Read, ...]
    ended: Literal["answered", "closed", "reset", "silent"] = "closed"


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something wrong on the wire: `rule` is the name of the rule, `seen` the bytes."""

    rule: str
    seen: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk: its data are `body[start:end]`, the last of which came at `at_s`."""

    start: int
    end: int
    at_s: float


@dataclass(frozen=True, slots=True)
class Answer:
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


def show(data: bytes) -> str:
    """Return bytes for people: escapes for what is not printable ASCII, cut where it is long."""
    text = "".join(escape(data[:SHOWN]))
    return text + (f" ... ({len(data)} bytes)" if len(data) > SHOWN else "")


def read_answer(recording: Recording) -> Answer:
    """Return the answer in a recording."""
    return _Reader(recording).answer()


@dataclass
class _Reader:
    """Goes through the bytes once, from the status line to the zero chunk."""

    recording: Recording
    position: int = 0
    body: bytearray = field(default_factory=bytearray)
    chunks: list[Chunk] = field(default_factory=list)
    flaws: list[Flaw] = field(default_factory=list)
    times: list[tuple[int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.raw = b"".join(read.data for read in self.recording.reads)
        self.ends = list(accumulate(len(read.data) for read in self.recording.reads))

    def answer(self) -> Answer:
        status, headers = self._head()
        fields = dict(headers)
        complete = False
        if status in (204, 304):
            complete = True
        elif status and "chunked" in fields.get("transfer-encoding", "").lower():
            complete = self._chunks()
        elif status:
            complete = self._plain(fields.get("content-length"))
        if complete and self.raw[self.position :]:
            self._flaw("bytes-after-end", self.raw[self.position :])
        return Answer(
            status,
            headers,
            bytes(self.body),
            tuple(self.chunks),
            complete,
            tuple(self.flaws),
            self.recording.ended,
            tuple(self.times),
        )

    def _head(self) -> tuple[int, HeaderList]:
        """Read status line and headers; interim answers before them are skipped."""
        end = HEAD_END.search(self.raw, self.position)
        if end is None:
            self._flaw("head-syntax", self.raw)
            return 0, ()
        first, *lines = self.raw[self.position : end.start()].split(b"\n")
        self.position = end.end()
        if end.group() != b"\r\n\r\n" or not all(
            line.endswith(b"\r") for line in [first, *lines][:-1]
        ):
            self._flaw("head-syntax", end.group())
        status = STATUS_LINE.fullmatch(first.rstrip(b"\r"))
        if status is None:
            self._flaw("head-syntax", first)
            return 0, ()
        if status[1].startswith(b"1"):
            return self._head()
        headers = []
        for line in lines:
            if parts := HEADER.fullmatch(line.rstrip(b"\r")):
                headers.append((parts[1].decode().lower(), parts[2].decode("latin-1")))
            else:
                self._flaw("head-syntax", line)
        return int(status[1]), tuple(headers)

    def _plain(self, length: str | None) -> bool:
        """Read a body that has a length, or that ends with the connection."""
        if length is None:
            self._take(len(self.raw) - self.position)
            if self.recording.ended in ("reset", "silent"):
                self._flaw("body-cut", self.raw[-40:])
            return self.recording.ended == "closed"
        size = int(length) if length.isdecimal() and len(length) < 19 else 0
        if len(self.raw) - self.position < size:
            self._flaw("body-cut", self.raw[-40:])
        self._take(min(size, len(self.raw) - self.position))
        return len(self.body) == size

    def _chunks(self) -> bool:
        """Read chunks; return whether the zero chunk came (RFC 9112 section 7.1)."""
        while (line := self._line()) is not None:
            text = line.partition(b";")[0].rstrip(b" \t")
            if not SIZE.fullmatch(text):
                self._flaw("chunk-size", line)
                return False
            size = int(text, 16)
            if size == 0:
                return self._trailers()
            if len(self.raw) < self.position + size + 2:
                self._flaw("body-cut", self.raw[-40:])
                return False
            start = len(self.body)
            self._take(size)
            self.chunks.append(Chunk(start, len(self.body), self.times[-1][1]))
            if self.raw.startswith(b"\r\n", self.position):
                self.position += 2
            else:
                near = self.raw[self.position - 20 : self.position + 20]
                self._flaw("chunk-length", b"%x: ... %b" % (size, near))
                return False
        self._flaw("zero-chunk", self.raw[-40:])
        return False

    def _trailers(self) -> bool:
        while (line := self._line()) is not None:
            if not line:
                return True
        self._flaw("zero-chunk", self.raw[-40:])
        return False

    def _line(self) -> bytes | None:
        """Return the next line without its end; None if there is no whole one."""
        end = self.raw.find(b"\n", self.position)
        if end < 0:
            return None
        line = self.raw[self.position : end]
        self.position = end + 1
        if not line.endswith(b"\r"):
            self._flaw("chunk-line-end", line + b"\n")
        return line.removesuffix(b"\r")

    def _take(self, size: int) -> None:
        """Move bytes to the body, with the times of the reads that they came in."""
        start, end = self.position, self.position + size
        first = bisect_left(self.ends, start + 1)
        for read, read_end in zip(self.recording.reads[first:], self.ends[first:], strict=True):
            until = min(read_end, end)
            self.times.append((len(self.body) + until - start, read.at_s))
            if until == end:
                break
        self.body += self.raw[start:end]
        self.position = end

    def _flaw(self, rule: str, seen: bytes) -> None:
        self.flaws.append(Flaw(rule, show(seen)))
