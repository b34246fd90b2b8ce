"""Which requests run, in the ledger's database: those that a crash ends are booked as lost.

A note is written before the client can know the request's id, and is deleted some time after the
request's own row is written. At its start a server books what is noted by processes that are gone,
unless there is a row already.
"""

from msgspec import structs

from streamtok.api.resume.owners import is_alive
from streamtok.ledger import COLUMNS, Database, Step, UsageRecord

NAMES = ", ".join(COLUMNS)
TABLE = (
    "CREATE TABLE IF NOT EXISTS running (id TEXT PRIMARY KEY, created_s DOUBLE PRECISION NOT NULL, "
    "key TEXT NOT NULL, endpoint TEXT NOT NULL, model TEXT NOT NULL, stream BOOLEAN NOT NULL, "
    "prompt_tokens BIGINT NOT NULL, generated_tokens BIGINT NOT NULL, delivered_tokens BIGINT NOT "
    "NULL, finish_reason TEXT NOT NULL, first_token_s DOUBLE PRECISION, duration_s DOUBLE "
    "PRECISION NOT NULL, cached_tokens BIGINT NOT NULL, queued_s DOUBLE PRECISION, prefill_s "
    "DOUBLE PRECISION, owner TEXT NOT NULL)"
)
NOTE = (
    f"INSERT INTO running ({NAMES}, owner) VALUES ({', '.join('?' for _ in COLUMNS)}, ?) "
    "ON CONFLICT (id) DO UPDATE SET owner = excluded.owner"
)
BOOK = (
    f"INSERT INTO usage ({NAMES}) SELECT {NAMES} FROM running WHERE owner = ? "
    "ON CONFLICT (id) DO NOTHING"
)
MOST_ENDED = 32  # notes that are deleted together, since each transaction has its price


class RunningRequests:
    """The notes of the process `owner`."""

    def __init__(self, database: Database, owner: str) -> None:
        self._database = database
        self._owner = owner
        self._ended: list[str] = []

    async def start(self) -> int:
        """Book what was lost, and return how many requests that were.

        Raises:
            Unavailable: the database cannot do it.
        """
        await self._database.run((TABLE, ()))
        owners = await self._database.run(
            ("SELECT owner, count(*) FROM running GROUP BY owner", ())
        )
        dead = {owner: count for owner, count in owners if not is_alive(owner)}
        for owner in dead:
            drop = "DELETE FROM running WHERE owner = ?"
            await self._database.run((BOOK, (owner,)), (drop, (owner,)))
        return sum(dead.values())

    def begin(self, record: UsageRecord) -> None:
        """Note a request; `record` is its row if it is lost."""
        if record.id in self._ended:
            self._ended.remove(record.id)
        self._database.write((NOTE, (*structs.astuple(record), self._owner)))

    def end(self, answer_id: str) -> None:
        """Take note that a request has its row."""
        self._ended.append(answer_id)
        if len(self._ended) >= MOST_ENDED:
            self.flush()

    def flush(self) -> None:
        """Delete the notes of what has ended."""
        ended, self._ended = self._ended, []
        steps: list[Step] = [("DELETE FROM running WHERE id = ?", (name,)) for name in ended]
        self._database.write(*steps)
