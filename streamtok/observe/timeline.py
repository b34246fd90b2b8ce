"""Timelines: the records of many connections as lines and steps, with request number and times.

Pure: records to values. Read next: `streamtok.observe.text` and `streamtok.observe.jsonl`,
which write them down.
"""

from collections.abc import Iterable, Iterator

from msgspec import Struct, field
from msgspec.structs import replace

from streamtok.observe.annotate import Annotator, Line
from streamtok.observe.trace import Accepted, Bytes, Closed, Ended, Record, Step


class Moment(Struct, frozen=True):
    """When and where: `request` counts from 1 on each connection, `since_s` from its first byte.

    `gap_s` is the time since the write before, where this is one of the same answer.
    """

    connection: str
    request: int
    at_s: float
    since_s: float
    gap_s: float | None = None


class Passed(Struct, frozen=True):
    """A line that has crossed the wire, in so many `pieces`, with the ids of the `tokens` in it."""

    moment: Moment
    sent: bool
    line: Line
    pieces: int
    tokens: tuple[int, ...]


class Happened(Struct, frozen=True):
    """Anything else."""

    moment: Moment
    record: Accepted | Step | Ended
    is_first: bool = False  # of its name, in this request


Entry = Passed | Happened


class Timeline:
    """Follows all connections of a server."""

    def __init__(self) -> None:
        self._open: dict[str, _Connection] = {}

    def feed(self, record: Record) -> list[Entry]:
        """Return what `record` adds."""
        connection = self._open.setdefault(record.connection, _Connection())
        entries = list(connection.entries(record))
        if isinstance(record, Closed):
            del self._open[record.connection]
        return entries


class _Direction(Struct, dict=True):
    """One direction: a reader of its lines, and how much of a line that is not complete came."""

    annotator: Annotator = field(default_factory=Annotator)
    pieces: int = 0


class _Connection(Struct, dict=True):
    request: int = 1
    begun_s: float | None = None
    is_finished: bool = False  # what comes now belongs to the next request, unless it is the end
    written_s: float | None = None  # when the last write of this answer was
    seen: set[str] = field(default_factory=set)  # the steps of this request
    tokens: dict[int, list[int]] = field(default_factory=dict)  # of each choice, not sent yet
    directions: dict[bool, _Direction] = field(
        default_factory=lambda: {False: _Direction(), True: _Direction()}
    )

    def entries(self, record: Record) -> Iterator[Entry]:
        if self.is_finished and isinstance(record, Bytes | Step):
            self._next_request()
        if isinstance(record, Bytes):
            yield from self._bytes(record)
        elif isinstance(record, Step):
            yield self._step(record)
            self.is_finished = record.name == "finish"
        elif isinstance(record, Accepted):
            yield Happened(self._moment(record), record)
        elif isinstance(record, Ended):
            yield from self._rest(record, {"client": (False,), "server": (True,)}[record.side])
            yield Happened(self._moment(record), record)
        elif isinstance(record, Closed):
            yield from self._rest(record, (False, True))

    def _bytes(self, record: Bytes) -> Iterator[Entry]:
        self.begun_s = record.at_s if self.begun_s is None else self.begun_s
        direction, moment = self.directions[record.sent], self._moment(record)
        if record.sent:
            if self.written_s is not None:
                moment = replace(moment, gap_s=record.at_s - self.written_s)
            self.written_s = record.at_s
        direction.pieces += 1
        for line in direction.annotator.feed(record.data):
            yield self._passed(moment, record.sent, line, direction.pieces)
            direction.pieces, moment = 1, replace(moment, gap_s=None)
        if direction.annotator.is_between:
            direction.pieces = 0

    def _passed(self, moment: Moment, sent: bool, line: Line, pieces: int) -> Passed:
        tokens = self.tokens.pop(line.choice, []) if sent and line.choice is not None else []
        return Passed(moment, sent, line, pieces, tuple(tokens))

    def _step(self, record: Step) -> Happened:
        self.begun_s = record.at_s if self.begun_s is None else self.begun_s
        is_first = record.name not in self.seen
        self.seen.add(record.name)
        if record.name == "token":
            self.tokens.setdefault(record.facts["index"], []).append(record.facts["id"])
        elif record.name == "parse":
            self.directions[True].annotator.answers_head(record.facts["method"] == "HEAD")
        return Happened(self._moment(record), record, is_first)

    def _rest(self, record: Record, directions: Iterable[bool]) -> Iterator[Entry]:
        """Yield what there is of lines that will never be complete."""
        for sent in directions:
            for line in self.directions[sent].annotator.end():
                yield self._passed(self._moment(record), sent, line, self.directions[sent].pieces)

    def _next_request(self) -> None:
        self.request += 1
        self.is_finished = False
        self.begun_s = self.written_s = None
        self.seen.clear()
        self.tokens.clear()

    def _moment(self, record: Record) -> Moment:
        since_s = record.at_s - (record.at_s if self.begun_s is None else self.begun_s)
        return Moment(record.connection, self.request, record.at_s, since_s)
