"""The rows of resumable answers, in the ledger's database.

An answer's row is written before its client gets a byte: from then on neither a crash of the
process nor of the machine loses it. The request's body is in it, so it is dropped as soon as nobody
may come back. A row belongs to the process that computes its answer, its owner.

Read next: `streamtok.api.resume.streams`.
"""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from streamtok.api.resume.recording import Recording
from streamtok.errors import Unavailable
from streamtok.http.request import HeaderList
from streamtok.ledger import Database

TABLE = (
    "CREATE TABLE IF NOT EXISTS stream (id TEXT NOT NULL PRIMARY KEY, key TEXT NOT NULL, owner "
    "TEXT NOT NULL, request TEXT NOT NULL, recording TEXT NOT NULL, fingerprint TEXT NOT NULL, "
    "digest TEXT NOT NULL, kind TEXT NOT NULL, ended INTEGER NOT NULL, "
    "created_s DOUBLE PRECISION NOT NULL)"
)
COLUMNS = "id, key, owner, request, recording, fingerprint, digest, kind, ended, created_s"
encode, decode = msgspec.json.encode, msgspec.json.decode


class StoredRequest(Struct):
    """A request, as far as its answer depends on it."""

    method: str
    target: str
    headers: HeaderList
    body: str


class StreamRow(Struct, kw_only=True):
    """What a resumable answer is made from, in the process `owner` at the moment.

    `fingerprint` is the model's, empty for an answer that could not go on; `digest` what
    `streamtok.api.resume.recording` makes of the sequences. `kind` is "background" where the answer
    does not need a client, else empty.
    """

    id: str
    key: str
    owner: str
    request: StoredRequest
    recording: Recording
    fingerprint: str
    digest: str
    kind: str = ""
    ended: bool = False
    created_s: float = 0.0


class Rows:
    """The rows in a `database`; `place` is its file, if it is one."""

    def __init__(self, database: Database, place: Path | None) -> None:
        self._database = database
        self._log = place and place.with_name(place.name + "-wal")

    async def start(self) -> None:
        """Make the table, if there is none yet.

        Raises:
            Unavailable: it cannot be made.
        """
        await self._database.run((TABLE, ()))

    async def insert(self, row: StreamRow, most: int) -> None:
        """Write a row, safe when this returns; of those that have ended keep the last `most`.

        Raises:
            Unavailable: it cannot be written.
        """
        values = (
            *(row.id, row.key, row.owner, encode(row.request).decode()),
            *(encode(row.recording).decode(), row.fingerprint, row.digest, row.kind),
            *(int(row.ended), row.created_s),
        )
        marks = ", ".join("?" for _ in values)
        trim = (
            "DELETE FROM stream WHERE ended = 1 AND created_s < "
            "(SELECT created_s FROM stream ORDER BY created_s DESC LIMIT 1 OFFSET ?)"
        )
        insert = f"INSERT INTO stream ({COLUMNS}) VALUES ({marks})"
        await self._database.run((insert, values), (trim, (most - 1,)))
        if self._log is not None:
            await asyncio.to_thread(_sync, self._log)

    async def update(self, answer_id: str, recording: Recording, *, ended: bool) -> None:
        """Write what has become known of an answer."""
        await self._database.run(
            (
                "UPDATE stream SET recording = ?, ended = ? WHERE id = ?",
                (encode(recording).decode(), int(ended), answer_id),
            )
        )

    async def fail(self, answer_id: str) -> None:
        """Write that an answer cannot be made again: no model has its fingerprint any more."""
        await self._database.run(
            ("UPDATE stream SET fingerprint = '', ended = 1 WHERE id = ?", (answer_id,))
        )

    async def get(self, answer_id: str) -> StreamRow | None:
        """Return a row, if there is one."""
        found = await self._select("id = ?", answer_id)
        return found[0] if found else None

    async def of(self, owners: Sequence[str]) -> list[StreamRow]:
        """Return the rows of some owners."""
        return await self._select(f"owner IN ({', '.join('?' for _ in owners)})", *owners)

    async def owners(self) -> list[str]:
        """Return who has rows."""
        rows = await self._database.run(("SELECT DISTINCT owner FROM stream", ()))
        return [owner for (owner,) in rows]

    async def claim(self, row: StreamRow, owner: str) -> bool:
        """Make a row that of another owner; return False if somebody else was faster."""
        claim = "UPDATE stream SET owner = ? WHERE id = ? AND owner = ?"
        rows = await self._database.run(
            (claim, (owner, row.id, row.owner)),
            ("SELECT owner FROM stream WHERE id = ?", (row.id,)),
        )
        row.owner = rows[0][0] if rows else ""
        return row.owner == owner

    def drop(self, answer_id: str, owner: str) -> None:
        """Delete a row, unless it has another owner now; this is not waited for."""
        self._database.write(("DELETE FROM stream WHERE id = ? AND owner = ?", (answer_id, owner)))

    async def _select(self, condition: str, *values: str) -> list[StreamRow]:
        rows = await self._database.run(
            (f"SELECT {COLUMNS} FROM stream WHERE {condition} ORDER BY created_s", values)
        )
        return [_row(*row) for row in rows]


def _row(*values: object) -> StreamRow:
    given = dict(zip(COLUMNS.split(", "), values, strict=True))
    given["request"] = decode(str(given["request"]), type=StoredRequest)
    given["recording"] = decode(str(given["recording"]), type=Recording)
    given["ended"] = bool(given["ended"])
    return msgspec.convert(given, StreamRow)


def _sync(path: Path) -> None:
    """Have the system write a file's bytes to the disk.

    Raises:
        Unavailable: it cannot.
    """
    try:
        file = os.open(path, os.O_RDWR)
        try:
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        raise Unavailable(f"the ledger's file: {error}", code="ledger_unavailable") from error
