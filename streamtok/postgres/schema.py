"""The ledger's tables in PostgreSQL, and how a database of an earlier version gets them.

The table `streamtok_schema` has the version: how many of MIGRATIONS were applied. They are applied
in one transaction under a lock, so that several servers can start at once. What is in MIGRATIONS is
never changed, only added to. Read next: `streamtok.postgres.database`.
"""

from typing import Any

from psycopg import Connection

from streamtok.errors import ConfigError

LOCK = 0x73747265616D  # any number that others do not lock: "stream"
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE usage (
            id TEXT PRIMARY KEY,
            created_s DOUBLE PRECISION NOT NULL,
            key TEXT NOT NULL,
            endpoint TEXT NOT NULL,
            model TEXT NOT NULL,
            stream BOOLEAN NOT NULL,
            prompt_tokens BIGINT NOT NULL,
            generated_tokens BIGINT NOT NULL,
            delivered_tokens BIGINT NOT NULL,
            finish_reason TEXT NOT NULL,
            first_token_s DOUBLE PRECISION,
            duration_s DOUBLE PRECISION NOT NULL,
            cached_tokens BIGINT NOT NULL DEFAULT 0,
            queued_s DOUBLE PRECISION,
            prefill_s DOUBLE PRECISION
        )
        """,
        "CREATE INDEX usage_created ON usage (created_s)",
        """
        CREATE TABLE response (
            number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            key TEXT NOT NULL,
            body BYTEA NOT NULL,
            conversation BYTEA NOT NULL,
            created_s DOUBLE PRECISION NOT NULL
        )
        """,
        "CREATE INDEX response_key ON response (key, number)",
        "CREATE INDEX response_created ON response (created_s)",
    ),
)


def migrate(connection: "Connection[Any]") -> None:
    """Bring a database to the present version.

    Raises:
        ConfigError: its version is a later one than this program knows.
        psycopg.Error: it cannot be changed.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        connection.execute("CREATE TABLE IF NOT EXISTS streamtok_schema (version INT NOT NULL)")
        row = connection.execute(
            "SELECT coalesce(max(version), 0) FROM streamtok_schema"
        ).fetchone()
        version: int = row[0] if row else 0
        if version > len(MIGRATIONS):
            raise ConfigError(
                f"the ledger's tables have version {version}; this program knows {len(MIGRATIONS)}"
            )
        for number, statements in enumerate(MIGRATIONS[version:], version + 1):
            for statement in statements:
                connection.execute(statement.encode())
            connection.execute("INSERT INTO streamtok_schema VALUES (%s)", (number,))
