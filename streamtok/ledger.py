"""Usage accounting: one row for every request that reached the engine, however it ended.

The rows are in a `Database`: SQLite's, in a thread of its own, unless another one is handed in. The
event loop never waits for it, and a reader sees every row that was recorded before it asked.
Serving goes on when the disk does not: what could not be written is logged and counted in `lost`.

Read next: `streamtok.metrics`.
"""

import logging
import sqlite3
import time
from asyncio import get_running_loop, wrap_future
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol
from weakref import finalize

from msgspec import Struct, structs
from msgspec.structs import FieldInfo

from streamtok.errors import ConfigError, Unavailable

log = logging.getLogger(__name__)

Row = Sequence[Any]
Step = tuple[str, Row]  # an SQL statement, and the values for its question marks


class UsageRecord(Struct, frozen=True):
    """One request: `generated` tokens were sampled for it, `delivered` of them reached the socket.

    Times are seconds: `created_s` since 1970, `first_token_s` (None if there was none) and
    `duration_s` since the request was accepted. Of these, `queued_s` were spent in the queue, until
    the first sequence left it, and `prefill_s` on computing its prompt; None if it did not come to
    that. `cached_tokens` of the prompts did not have to be computed. `finish_reason` is that of the
    first choice, or "cancelled" where the client left, or "error".

    These fields are the table's columns and the JSON of `GET /v1/usage/{id}`.
    """

    id: str
    created_s: float
    key: str
    endpoint: str
    model: str
    stream: bool
    prompt_tokens: int
    generated_tokens: int
    delivered_tokens: int
    finish_reason: str
    first_token_s: float | None
    duration_s: float
    cached_tokens: int = 0
    queued_s: float | None = None
    prefill_s: float | None = None


def _declared(field: FieldInfo) -> str:
    """Return what SQL says of a field's column; what may be None needs no value."""
    kinds = {str: "TEXT", int: "INTEGER", bool: "INTEGER", float: "REAL"}
    kind = f"{kinds[field.type]} NOT NULL" if field.type in kinds else "REAL"
    return kind if field.required or field.default is None else f"{kind} DEFAULT {field.default}"


FIELDS = structs.fields(UsageRecord)
COLUMNS = {field.name: _declared(field) for field in FIELDS}
LATER = [field.name for field in FIELDS if not field.required]  # earlier ledgers lack these
INSERT_USAGE = (
    f"INSERT INTO usage ({', '.join(COLUMNS)}) VALUES (?{', ?' * (len(FIELDS) - 1)}) "
    f"ON CONFLICT (id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in COLUMNS)}"
)
EXPIRE_EVERY_S = 3600.0
DATES = {  # what the moment of a row is grouped by -> its SQL
    "day": "date(created_s, 'unixepoch')",
    "hour": "strftime('%Y-%m-%dT%H:00:00Z', created_s, 'unixepoch')",
}
SCHEMA = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",  # in WAL mode safe against a crash of ours
    (
        "CREATE TABLE IF NOT EXISTS usage ("
        + ", ".join(f"{name} {declared}" for name, declared in COLUMNS.items())
        + ", PRIMARY KEY (id)) STRICT"
    ),
    "CREATE INDEX IF NOT EXISTS usage_created ON usage (created_s)",
    (
        "CREATE TABLE IF NOT EXISTS response (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, "
        "key TEXT NOT NULL, body BLOB NOT NULL, conversation BLOB NOT NULL, "
        "created_s REAL NOT NULL DEFAULT 0) STRICT"
    ),
    "CREATE INDEX IF NOT EXISTS response_key ON response (key, number)",
)


class Database(Protocol):
    """Where a ledger's rows are; its SQL is what SQLite and PostgreSQL have in common."""

    dates: Mapping[str, str]  # as DATES

    @property
    def lost(self) -> int:
        """How many writes were lost."""

    def write(self, *steps: Step) -> Future[Sequence[Row]]:
        """Execute steps in one transaction, without waiting for it; the future has its end."""

    async def run(self, *steps: Step) -> Sequence[Row]:
        """Execute steps in one transaction, behind what was written; return the last one's rows.

        Raises:
            Unavailable: the database cannot do it now.
        """

    def close(self) -> None:
        """Write what is left and close; returns when that is done."""


class Ledger:
    """The ledger in the file `place`, or in a database; ":memory:" is gone when it is closed.

    What is older than `days` is deleted, at the start and every hour that something is recorded; 0
    keeps everything.

    Raises:
        ConfigError: the file cannot be opened or is no ledger.
    """

    def __init__(self, place: str | Database, days: int = 0) -> None:
        self.database: Database = Sqlite(place) if isinstance(place, str) else place
        self._days = days
        self._expire_at_s = 0.0
        self._expire()

    def record(self, record: UsageRecord) -> None:
        """Write a row, in place of one of the same id, without waiting for it."""
        self.database.write((INSERT_USAGE, structs.astuple(record)))
        if record.created_s >= self._expire_at_s:
            self._expire()
            self._expire_at_s = record.created_s + EXPIRE_EVERY_S

    async def get(self, request_id: str) -> UsageRecord | None:
        """Return the row of one request, if there is one."""
        query = f"SELECT {', '.join(COLUMNS)} FROM usage WHERE id = ?"
        rows = await self.database.run((query, (request_id,)))
        values = dict(zip(COLUMNS, rows[0], strict=True)) if rows else {}
        return UsageRecord(**values | {"stream": bool(values["stream"])}) if values else None

    def close(self) -> None:
        """Write what is left and close the database."""
        self.database.close()

    def _expire(self) -> None:
        """Delete what is too old."""
        before_s = time.time() - self._days * 86400
        for table in ("usage", "response") if self._days else ():
            self.database.write((f"DELETE FROM {table} WHERE created_s < ?", (before_s,)))


class Sqlite:
    """A `Database` in a file, in WAL mode; all statements are executed in one thread.

    Raises:
        ConfigError: the file cannot be opened or is no ledger.
    """

    dates: Mapping[str, str] = DATES

    def __init__(self, path: str) -> None:
        self.lost = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        try:
            self._connection = self._thread.submit(_open, path).result()
        except (sqlite3.Error, OSError) as error:
            self._thread.shutdown()
            raise ConfigError(f"--ledger {path}: cannot be opened: {error}") from error
        # One that is dropped unclosed closes its file; at exit its thread may still be writing.
        finalize(self, self._connection.close).atexit = False

    def write(self, *steps: Step) -> Future[Sequence[Row]]:
        """See `Database.write`."""
        written = self._thread.submit(self._execute, *steps)
        written.add_done_callback(self._count_loss)
        return written

    async def run(self, *steps: Step) -> Sequence[Row]:
        """See `Database.run`."""
        try:
            return await wrap_future(
                self._thread.submit(self._execute, *steps), loop=get_running_loop()
            )
        except sqlite3.Error as error:
            raise Unavailable(f"the ledger's file: {error}", code="ledger_unavailable") from error

    def close(self) -> None:
        """See `Database.close`."""
        self._thread.submit(self._connection.close)
        self._thread.shutdown()

    def _execute(self, *steps: Step) -> Sequence[Row]:
        rows: Sequence[Row] = ()
        with self._connection:
            for statement, values in steps:
                rows = self._connection.execute(statement, values).fetchall()
        return rows

    def _count_loss(self, written: Future[Sequence[Row]]) -> None:
        if error := written.exception():
            self.lost += 1
            log.error("a usage record was lost (%d so far): %s", self.lost, error)


def _open(path: str) -> sqlite3.Connection:
    if path != ":memory:":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path, timeout=5.0, check_same_thread=False)
    try:
        for statement in SCHEMA:
            database.execute(statement)
        tables = "SELECT t.name, c.name FROM sqlite_master AS t, pragma_table_info(t.name) AS c"
        there = set(database.execute(tables))
        for column in [name for name in LATER if ("usage", name) not in there]:
            database.execute(f"ALTER TABLE usage ADD COLUMN {column} {COLUMNS[column]}")
        if ("response", "created_s") not in there:
            database.execute("ALTER TABLE response ADD COLUMN created_s REAL NOT NULL DEFAULT 0")
            database.execute("UPDATE response SET created_s = ?", (time.time(),))
        database.commit()
    except sqlite3.Error:
        database.close()
        raise
    return database
