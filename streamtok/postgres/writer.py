"""Writes rows in the order in which they were given, from a thread, as soon as that is possible.

    given -> waiting (MOST_WAITING at most) -> written
                                  |   ^
                                  v   | the connection was lost
                               one transaction

While there is no connection rows wait in memory, and are tried again after growing pauses. What
does not fit there, what the database refuses, and what waits when the writer is closed is lost:
logged and counted. A row may have been committed although the connection was lost before the
answer came; so one that is tried again and is there already was not lost.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from msgspec import Struct, field
from psycopg import InterfaceError, OperationalError
from psycopg.errors import ReadOnlySqlTransaction, UniqueViolation

from streamtok.ledger import Row, Step

log = logging.getLogger(__name__)

MOST_WAITING = 20_000  # writes; each is about a kilobyte
MOST_AT_ONCE = 200  # in one transaction
FIRST_PAUSE_S, LAST_PAUSE_S = 0.1, 5.0
AWAY = (OperationalError, InterfaceError, ReadOnlySqlTransaction)  # the last: of a standby
Transact = Callable[[Sequence[Sequence[Step]]], object]


class _Write(Struct, eq=False):
    """The steps of one write, and who waits for it."""

    steps: Sequence[Step]
    interrupted: bool = False  # it may have been committed although that was not said
    done: Future[Sequence[Row]] = field(default_factory=Future)


class Writer:
    """Gives writes to `transact`, which commits all of them or none. Safe for any thread."""

    def __init__(self, transact: Transact, most_waiting: int = MOST_WAITING) -> None:
        self.lost = 0
        self.away = False  # there is no connection
        self._transact = transact
        self._most_waiting = most_waiting
        self._waiting: deque[_Write] = deque()
        self._changed = threading.Condition()
        self._close_at_s: float | None = None
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many writes are in memory only."""
        return len(self._waiting)

    def write(self, steps: Sequence[Step]) -> Future[Sequence[Row]]:
        """Accept a write; the result is there when it is committed or lost."""
        write = _Write(steps)
        with self._changed:
            if self._close_at_s is not None or len(self._waiting) >= self._most_waiting:
                self._lose(write, OperationalError("too many rows wait for the database"))
            else:
                self._waiting.append(write)
                self._changed.notify_all()
        return write.done

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was accepted is written; return whether it is."""
        with self._changed:
            if not self._waiting:
                return True
            done = self._waiting[-1].done
            self._changed.wait_for(lambda: done.done() or self.away, timeout_s)
            return done.done()

    def close(self, timeout_s: float) -> None:
        """Write what waits, for `timeout_s` at most; the rest is lost."""
        with self._changed:
            self._close_at_s = time.monotonic() + timeout_s
            self._changed.notify_all()
        self._thread.join()

    # In the thread

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while batch := self._next():
            try:
                self._write_all(batch)
                pause_s = FIRST_PAUSE_S
            except AWAY as error:
                self._note(error)
                if not self._pause(pause_s):
                    break
                pause_s = min(2 * pause_s, LAST_PAUSE_S)
        with self._changed:
            for write in self._waiting:
                self._lose(write, OperationalError("the server ended before it was written"))
            self._waiting.clear()

    def _next(self) -> list[_Write]:
        """Return what to write next, waiting for it; nothing when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._close_at_s is not None)
            return [self._waiting[i] for i in range(min(MOST_AT_ONCE, len(self._waiting)))]

    def _write_all(self, batch: Sequence[_Write]) -> None:
        """Write a batch in one transaction; if a row in it is refused, each in its own."""
        try:
            self._try(batch)
        except AWAY:
            raise
        except Exception:
            for write in batch:
                self._write_one(write)
        else:
            self._finish(batch)

    def _try(self, batch: Sequence[_Write]) -> None:
        try:
            self._transact([write.steps for write in batch])
        except AWAY:
            for write in batch:
                write.interrupted = True
            raise

    def _write_one(self, write: _Write) -> None:
        try:
            self._try([write])
        except AWAY:
            raise
        except UniqueViolation as error:
            self._finish([write], None if write.interrupted else error)
        except Exception as error:  # also a fault here: this thread writes all that come after
            self._finish([write], error)
        else:
            self._finish([write])

    def _finish(self, writes: Sequence[_Write], error: Exception | None = None) -> None:
        """Forget the first writes, which are committed, or lost for a reason."""
        with self._changed:
            for write in writes:
                self._waiting.popleft()
                if error:
                    self._lose(write, error)
                else:
                    self._arrive(write)
            self._changed.notify_all()

    def _arrive(self, write: _Write) -> None:
        if self.away:
            self.away = False
            log.warning("the ledger's database is there again; %d rows wait", len(self._waiting))
        write.done.set_result(())

    def _lose(self, write: _Write, error: Exception) -> None:
        self.lost += 1
        if self.lost & (self.lost - 1) == 0 or not isinstance(error, OperationalError):
            log.error("a usage record was lost (%d so far): %s", self.lost, error)
        write.done.set_exception(error)

    def _note(self, error: Exception) -> None:
        """Note that there is no connection, which those who wait for a write then know."""
        with self._changed:
            if not self.away:
                self.away = True
                log.error("the ledger's database is away; rows wait in memory: %s", error)
            self._changed.notify_all()

    def _pause(self, pause_s: float) -> bool:
        """Pause; return whether to try again."""
        with self._changed:
            if self._close_at_s is None:
                self._changed.wait_for(lambda: self._close_at_s is not None, pause_s)
            left_s = None if self._close_at_s is None else self._close_at_s - time.monotonic()
        if left_s is None:
            return True
        time.sleep(max(0.0, min(FIRST_PAUSE_S, left_s)))
        return left_s > 0
