"""Responses that clients may go on from, in the ledger: the last ones of each key."""

import logging
import time

from msgspec import Struct

from streamtok.errors import Unavailable
from streamtok.ledger import Database

log = logging.getLogger(__name__)

INSERT = (
    "INSERT INTO response (id, key, body, conversation, created_s) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (id) DO "
)
REPLACE = (
    "UPDATE SET body = excluded.body, conversation = excluded.conversation, "
    "created_s = excluded.created_s"
)
DROP = (
    "DELETE FROM response WHERE key = ? AND number <= (SELECT number FROM response "
    "WHERE key = ? ORDER BY number DESC LIMIT 1 OFFSET ?)"
)


class KeptResponse(Struct, frozen=True):
    """A response of a key: what it was, and the conversation that a next one goes on from.

    Both are JSON text.
    """

    id: str
    key: str
    body: bytes
    conversation: bytes


async def keep(
    database: Database, response: KeptResponse, most: int, *, replace: bool = True
) -> bool:
    """Keep a response, and of its key no more than the last `most`; return whether it could.

    One with the same id is replaced, or else stays.
    """
    insert = INSERT + (REPLACE if replace else "NOTHING")
    values = (response.id, response.key, response.body, response.conversation, time.time())
    try:
        await database.run((insert, values), (DROP, (response.key, response.key, most)))
    except Unavailable as error:
        log.error("a response could not be kept: %s", error)
        return False
    return True


async def kept(database: Database, response_id: str) -> KeptResponse | None:
    """Return a response, if it is still kept."""
    statement = "SELECT id, key, body, conversation FROM response WHERE id = ?"
    rows = await database.run((statement, (response_id,)))
    return KeptResponse(*rows[0]) if rows else None


async def forget(database: Database, response_id: str) -> None:
    """Keep a response no longer."""
    await database.run(("DELETE FROM response WHERE id = ?", (response_id,)))
