"""A ledger's rows in PostgreSQL, by psycopg 3 and a pool of connections.

Rows are written by a thread of their own (`streamtok.postgres.writer`), which tries again for as
long as the connection is lost. Reads, and what the caller waits for, go over the pool, behind what
was recorded before; while the connection is lost they are refused with a 503.

`streamtok.ledger` has the statements.
"""

import logging
import re
from asyncio import get_running_loop, wrap_future
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any

from psycopg import Error, ProgrammingError, connect
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import ConnectionPool

from streamtok.errors import ConfigError, Unavailable
from streamtok.ledger import Row, Step
from streamtok.postgres.schema import migrate
from streamtok.postgres.writer import Writer

MOST_CONNECTIONS = 4  # of one server's process
READ_S = 5.0  # how long a read waits for rows that are being written
CONNECTION_S = 1.0  # how long it waits for a connection
CLOSE_S = 5.0  # how long the last rows have at the end
DEFAULTS = {  # of the connection's parameters
    "application_name": "streamtok",
    "connect_timeout": "5",
    # A machine that is gone without a word is noticed.
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
UTC = "to_timestamp(created_s) AT TIME ZONE 'UTC'"
DATES = {
    "day": f"to_char({UTC}, 'YYYY-MM-DD')",
    "hour": f"""to_char({UTC}, 'YYYY-MM-DD"T"HH24:00:00"Z"')""",
}


class Postgres:
    """A `streamtok.ledger.Database` at the URL `url`.

    Raises:
        ConfigError: it cannot be reached, or holds something else.
    """

    dates: Mapping[str, str] = DATES

    def __init__(self, url: str) -> None:
        try:
            place = _conninfo(url)
            with connect(place, autocommit=True) as connection:
                migrate(connection)
        except (Error, ConfigError) as error:
            raise ConfigError(without_password(f"--ledger {url}: {_reason(error)}")) from None
        logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # the writer says it once
        self._pool = ConnectionPool(
            place,
            # The statements may come through a pooler that knows no prepared ones.
            kwargs={"autocommit": True, "prepare_threshold": None},
            min_size=1,
            max_size=MOST_CONNECTIONS,
            open=True,
            check=ConnectionPool.check_connection,
            num_workers=1,
            # The writer tries again for ever; with this it need not wait for the pool's own pauses.
            reconnect_timeout=CONNECTION_S,
        )
        self._readers = ThreadPoolExecutor(MOST_CONNECTIONS, thread_name_prefix="ledger")
        self._writer = Writer(self._transact)

    @property
    def lost(self) -> int:
        """See `Database.lost`."""
        return self._writer.lost

    @property
    def waiting(self) -> int:
        """How many rows are in memory only."""
        return self._writer.waiting

    def write(self, *steps: Step) -> Future[Sequence[Row]]:
        """See `Database.write`."""
        return self._writer.write(steps)

    async def run(self, *steps: Step) -> Sequence[Row]:
        """See `Database.run`."""
        return await wrap_future(self._readers.submit(self._run, steps), loop=get_running_loop())

    def close(self) -> None:
        """See `Database.close`."""
        self._writer.close(CLOSE_S)
        self._readers.shutdown()
        self._pool.close()

    def _run(self, steps: Sequence[Step]) -> Sequence[Row]:
        if not self._writer.flush(READ_S):
            raise _unavailable("it is away")
        try:
            return self._transact([steps])
        except Error as error:
            raise _unavailable(_reason(error)) from error

    def _transact(self, batches: Sequence[Sequence[Step]]) -> Sequence[Row]:
        """Execute steps in one transaction; return the rows of the last one."""
        with self._pool.connection(CONNECTION_S) as connection, connection.transaction():
            with connection.pipeline():
                cursors = [
                    connection.execute(_translated(statement), list(map(_storable, values)))
                    for steps in batches
                    for statement, values in steps
                ]
            return cursors[-1].fetchall() if cursors and cursors[-1].description else ()


def without_password(text: str) -> str:
    """Return a text with URLs in it that can be shown."""
    hidden = re.sub(r"(://[^/@:\s]*:)\S*(?=@)", r"\1***", text)
    return re.sub(r"(password=)[^&\s]*", r"\1***", hidden)


def _conninfo(url: str) -> str:
    """Return what to connect with: our defaults, and what the URL says.

    Raises:
        ConfigError: it is none.
        ProgrammingError: it is none, and has no password that libpq's reason could have parts of.
    """
    host, _, path = url.partition("://")[2].partition("?")[0].partition("/")
    try:
        if host.count("@") > 1 or "@" in path:  # libpq takes part of the password for the host
            raise ProgrammingError
        parameters: dict[str, Any] = {**DEFAULTS, **conninfo_to_dict(url)}
        return str(make_conninfo(**parameters))
    except ProgrammingError:
        if "@" not in url and "password" not in url:
            raise
        raise ConfigError(
            "this is no URL of PostgreSQL; in names and passwords @ is written as %40, / as %2F, "
            "% as %25"
        ) from None


@lru_cache
def _translated(statement: str) -> bytes:
    return statement.replace("?", "%s").encode()


def _storable(value: Any) -> Any:
    """Return a value as PostgreSQL takes it, whose text has no NUL."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


def _reason(error: Exception) -> str:
    """Return what an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _unavailable(reason: str) -> Unavailable:
    return Unavailable(f"the ledger's database: {reason}", code="ledger_unavailable")
