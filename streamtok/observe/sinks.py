"""Where records go, each place in a thread of its own: no disk or terminal holds up the server.

What cannot be written any more, to a full disk or a closed terminal, ends with a line in the log.
So does what lags behind: a terminal that is held, a pipe that nobody reads.
"""

import io
import logging
import os
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, Protocol, TextIO, TypeVar

from msgspec import Struct

from streamtok.clock import Clock
from streamtok.config import TraceConfig
from streamtok.errors import ConfigError
from streamtok.observe.trace import Bytes, Record, Tracer
from streamtok.settings import span_exporter

log = logging.getLogger(__name__)

STDOUT, STDERR = 1, 2
BINARY: int = getattr(os, "O_BINARY", 0)  # Windows would change line ends otherwise
RECORD_BYTES = 300  # about what a record takes beside its bytes
MOST_BEHIND_BYTES = 64 * 2**20
T = TypeVar("T")
CLOSE_S = 2.0  # how long the rest may take to be written at the end


class Encoder(Protocol):
    """One form of the trace."""

    def encode(self, record: Record) -> bytes:
        """Return what `record` adds."""


class _LogStream(io.TextIOBase):
    """The log's way to a terminal that has a trace too: behind the records that came before."""

    def __init__(self, feed: "Feed[Record | str]", direct: TextIO) -> None:
        self._feed = feed
        self._direct = direct

    def write(self, text: str) -> int:
        """Write a line of the log, or give it to the trace's thread."""
        if self._feed.is_over:
            return self._direct.write(text)
        self._feed(text)
        return len(text)


def log_through(feed: "Feed[Record | str]") -> Callable[[], None]:
    """Let the log on standard error go through `feed`; return what ends that.

    Else the line of a request would stand among the records of its response, which are written
    later, in a thread.
    """
    handlers = [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr
    ]
    for handler in handlers:
        handler.setStream(_LogStream(feed, sys.stderr))

    def restore() -> None:
        for handler in handlers:
            handler.setStream(sys.stderr)

    return restore


class Feed(Generic[T]):
    """Gives records to `take` in another thread, and at the end calls `finish` there.

    `name` is what the log calls it.
    """

    def __init__(self, name: str, take: Callable[[T], None], finish: Callable[[], None]) -> None:
        self._name = name
        self._take = take
        self._finish = finish
        self._queue: SimpleQueue[T | None] = SimpleQueue()
        self._given = self._taken = 0  # bytes; each is written by one thread alone
        self._over = False
        self._thread = threading.Thread(target=self._run, name="trace", daemon=True)
        self._thread.start()

    def __call__(self, record: T) -> None:
        """Give a record; called on the event loop."""
        if self._over:
            return
        self._given += weight(record)
        if self._given - self._taken > MOST_BEHIND_BYTES:
            self._end("it lags behind")
            return
        self._queue.put(record)

    @property
    def is_over(self) -> bool:
        """Whether nothing is written any more."""
        return self._over

    def close(self) -> None:
        """Write what is left, unless that takes too long."""
        self._queue.put(None)
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while (record := self._queue.get()) is not None:
            if self._over:
                continue
            try:
                self._take(record)
            except OSError as error:
                self._end(str(error.strerror))
            except Exception:
                log.exception("a trace failed")
                self._end("see above")
            self._taken += weight(record)
        self._finish()

    def _end(self, reason: str) -> None:
        if not self._over:
            self._over = True
            log.error("the trace to %s ends here: %s", self._name, reason)


class Tracing(Struct, frozen=True):
    """A tracer, and where its records go."""

    tracer: Tracer
    feeds: tuple[Feed[Any], ...]
    restore_log: Callable[[], None]

    def close(self) -> None:
        """Write what is left."""
        self.restore_log()
        for feed in self.feeds:
            feed.close()


def open_tracing(settings: TraceConfig, clock: Clock, worker: int | None) -> Tracing | None:
    """Return what traces as `settings` and the variables of OpenTelemetry say; None for nothing.

    Raises:
        ConfigError: a file cannot be written.
    """
    feeds: list[Feed[Any]] = []
    restore_log = _nothing
    if settings.trace_file:
        from streamtok.observe.jsonl import JsonTrace

        feeds.append(_to_file("--trace-file", settings.trace_file, JsonTrace()))
    if settings.trace_pcapng:
        from streamtok.observe.pcapng import Capture

        capture = Capture()
        feeds.append(_to_file("--trace-pcapng", settings.trace_pcapng, capture, capture.header))
    if settings.trace:
        from streamtok.observe.text import TextTrace  # with rich, a fiftieth of a second

        feed = _feed("the terminal", os.dup(STDOUT), TextTrace(_terminal_width()))
        feeds.append(feed)
        if _is_same_place(STDOUT, STDERR):
            restore_log = log_through(feed)
    if exporter := span_exporter():
        from streamtok.observe.spans import open_spans

        if spans := open_spans(exporter):
            feeds.append(Feed("OpenTelemetry", spans.take, spans.close))
    tracing = Tracing(Tracer(clock, feeds, worker), tuple(feeds), restore_log)
    return tracing if feeds else None


def _to_file(flag: str, path: str, encoder: Encoder, header: bytes = b"") -> Feed[Record | str]:
    """Append to a file: what people ask and are answered is for its owner only."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | BINARY, 0o600)
        write_all(file, header)
    except OSError as error:
        raise ConfigError(f"{flag} {path}: cannot be written: {error.strerror}") from error
    return _feed(path, file, encoder)


def _feed(name: str, file: int, encoder: Encoder) -> Feed[Record | str]:
    def take(record: Record | str) -> None:
        if isinstance(record, str):
            write_all(file, record.encode("utf-8", "backslashreplace"))
        else:
            write_all(file, encoder.encode(record))

    return Feed(name, take, lambda: os.close(file))


def write_all(file: int, data: bytes) -> None:
    """Write all of `data`: at once where possible, so that other processes can write between.

    Raises:
        OSError: it cannot be written.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def _terminal_width() -> int | None:
    return os.get_terminal_size(STDOUT).columns if os.isatty(STDOUT) else None


def _nothing() -> None:
    """Stand for what is done at the end where nothing is to be done."""


def _is_same_place(one: int, other: int) -> bool:
    """Whether two file descriptors are the same terminal, file or pipe."""
    try:
        return os.path.sameopenfile(one, other)
    except OSError:  # one of them is closed
        return False


def weight(record: object) -> int:
    """Return about how many bytes a record takes in memory."""
    return RECORD_BYTES + (len(record.data) if isinstance(record, Bytes) else 0)
