"""Usage accounting: one row for every request that reached the engine, however it ended.

Beside them are the responses that clients may go on from later, the last ones of each key.

SQLite in WAL mode, in a thread of its own, so that the event loop never waits for a disk. A reader
sees every row that was recorded before it asked. Serving goes on when the disk does not: what could
not be written is logged and counted in `lost`.

Read next: `streamtok.metrics`.
"""

import logging
import sqlite3
from asyncio import get_running_loop, wrap_future
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar
from weakref import finalize

from msgspec import Struct, structs
from msgspec.structs import FieldInfo

from streamtok.errors import ConfigError

log = logging.getLogger(__name__)

Result = TypeVar("Result")


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
NOW_S = "CAST(strftime('%s', 'now') AS REAL)"
EXPIRE_EVERY_S = 3600.0
RESPONSE_COLUMNS = "PRAGMA table_info(response)"
GROUPS: Mapping[str, str] = {
    "key": "key",
    "model": "model",
    "endpoint": "endpoint",
    "finish_reason": "finish_reason",
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


@dataclass(frozen=True, slots=True)
class KeptResponse:
    """A response of a key: what it was, and the conversation that a next one goes on from.

    Both are JSON text.
    """

    id: str
    key: str
    body: bytes
    conversation: bytes


@dataclass(frozen=True, slots=True)
class UsageSum:
    """Sums over the requests of one group; `group` is empty where nothing was grouped."""

    group: str
    requests: int
    prompt_tokens: int
    generated_tokens: int
    delivered_tokens: int


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Which requests to sum: created from `since_s` until before `until_s`, by `key`."""

    since_s: float | None = None
    until_s: float | None = None
    key: str | None = None


class Ledger:
    """The ledger in the file `path`; ":memory:" keeps it for as long as the process lives.

    What is older than `days` is deleted, at the start and every hour that something is recorded; 0
    keeps everything.

    Raises:
        ConfigError: the file cannot be opened or is no ledger.
    """

    def __init__(self, path: str, days: int = 0) -> None:
        self.lost = 0
        self._days = days
        self._expire_at_s = 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        try:
            self._database = self._thread.submit(_open, path).result()
            self._thread.submit(self._expire).result()
        except (sqlite3.Error, OSError) as error:
            self._thread.shutdown()
            raise ConfigError(f"--ledger {path}: cannot be opened: {error}") from error
        # One that is dropped unclosed closes its file; at exit its thread may still be writing.
        finalize(self, self._database.close).atexit = False

    def record(self, record: UsageRecord) -> None:
        """Write a row, without waiting for it."""
        self._thread.submit(self._write, record).add_done_callback(self._count_loss)

    async def get(self, request_id: str) -> UsageRecord | None:
        """Return the row of one request, if there is one."""
        query = f"SELECT {', '.join(COLUMNS)} FROM usage WHERE id = ?"
        rows = await self._read(query, (request_id,))
        if not rows:
            return None
        values = dict(zip(COLUMNS, rows[0], strict=True))
        return UsageRecord(**values | {"stream": bool(values["stream"])})

    async def sums(self, where: UsageFilter, group_by: str | None) -> list[UsageSum]:
        """Return sums over the rows that match; one per value of `group_by`, a key of GROUPS."""
        conditions = [
            (clause, value)
            for clause, value in (
                ("created_s >= ?", where.since_s),
                ("created_s < ?", where.until_s),
                ("key = ?", where.key),
            )
            if value is not None
        ]
        clause = " AND ".join(text for text, _ in conditions) or "TRUE"
        group = "''" if group_by is None else GROUPS[group_by]
        rows = await self._read(
            f"SELECT {group} AS name, count(*), total(prompt_tokens), total(generated_tokens), "
            f"total(delivered_tokens) FROM usage WHERE {clause} GROUP BY name ORDER BY name",
            tuple(value for _, value in conditions),
        )
        return [UsageSum(str(name), *(int(n) for n in counts)) for name, *counts in rows]

    async def keep(self, response: KeptResponse, most: int) -> bool:
        """Keep a response, and of its key no more than the last `most`; return whether it could."""
        try:
            await self._run(lambda: self._insert(response, most))
        except sqlite3.Error as error:
            log.error("a response could not be kept: %s", error)
            return False
        return True

    async def kept(self, response_id: str) -> KeptResponse | None:
        """Return a response, if it is still kept."""
        statement = "SELECT id, key, body, conversation FROM response WHERE id = ?"
        rows = await self._read(statement, (response_id,))
        return KeptResponse(*rows[0]) if rows else None

    async def forget(self, response_id: str) -> None:
        """Keep a response no longer."""
        await self._run(lambda: self._delete(response_id))

    def close(self) -> None:
        """Write what is left and close the file."""
        self._thread.submit(self._database.close)
        self._thread.shutdown()

    async def _read(self, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        return await self._run(lambda: self._database.execute(statement, values).fetchall())

    async def _run(self, work: Callable[[], Result]) -> Result:
        """Return the result of `work`, done in the ledger's thread behind what was asked before."""
        return await wrap_future(self._thread.submit(work), loop=get_running_loop())

    def _insert(self, response: KeptResponse, most: int) -> None:
        with self._database:
            self._database.execute(
                "INSERT INTO response (id, key, body, conversation, created_s) "
                f"VALUES (:id, :key, :body, :conversation, {NOW_S})",
                asdict(response),
            )
            self._database.execute(
                "DELETE FROM response WHERE key = ? AND number <= (SELECT number FROM response "
                "WHERE key = ? ORDER BY number DESC LIMIT 1 OFFSET ?)",
                (response.key, response.key, most),
            )

    def _delete(self, response_id: str) -> None:
        with self._database:
            self._database.execute("DELETE FROM response WHERE id = ?", (response_id,))

    def _write(self, record: UsageRecord) -> None:
        marks = ", ".join(f":{name}" for name in COLUMNS)
        with self._database:
            self._database.execute(
                f"INSERT INTO usage ({', '.join(COLUMNS)}) VALUES ({marks})",
                structs.asdict(record),
            )
        if record.created_s >= self._expire_at_s:
            self._expire()
            self._expire_at_s = record.created_s + EXPIRE_EVERY_S

    def _expire(self) -> None:
        """Delete what is too old."""
        if not self._days:
            return
        with self._database:
            for table in ("usage", "response"):
                self._database.execute(
                    f"DELETE FROM {table} WHERE created_s < {NOW_S} - ?", (self._days * 86400,)
                )

    def _count_loss(self, written: Future[None]) -> None:
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
        there = {row[1] for row in database.execute("PRAGMA table_info(usage)")}
        for column in set(LATER) - there:
            database.execute(f"ALTER TABLE usage ADD COLUMN {column} {COLUMNS[column]}")
        if not any(row[1] == "created_s" for row in database.execute(RESPONSE_COLUMNS)):
            database.execute("ALTER TABLE response ADD COLUMN created_s REAL NOT NULL DEFAULT 0")
            database.execute(f"UPDATE response SET created_s = {NOW_S}")
        database.commit()
    except sqlite3.Error:
        database.close()
        raise
    return database
