"""The ledger in PostgreSQL: a connection that is lost, migrations, several servers at once."""

import asyncio
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from ledgers import RECORD, RECORDS
from msgspec.structs import replace
from postgres_server import PostgresServer

from streamtok.errors import ConfigError, Unavailable
from streamtok.ledger import Ledger, Step
from streamtok.postgres import open_ledger

psycopg = pytest.importorskip("psycopg")
pytest.importorskip("psycopg_pool")

from streamtok.postgres import database, schema  # noqa: E402
from streamtok.postgres.writer import Writer  # noqa: E402


def step(name: str) -> Step:
    return ("INSERT", (name,))


class Table:
    """What a Writer writes to: a set of names, which can be away."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.failures: list[Exception] = []  # of the next transactions
        self.after = False  # whether they fail once they have committed
        self.calls: list[int] = []

    def transact(self, batch: Sequence[Sequence[Step]]) -> None:
        self.calls.append(len(batch))
        names = [values[0] for steps in batch for _, values in steps]
        error = self.failures.pop(0) if self.failures else None
        if error and not self.after:
            raise error
        if len({*self.names, *names}) < len(self.names) + len(names):
            raise psycopg.errors.UniqueViolation
        self.names += names
        if error:
            raise error


@pytest.fixture
def table() -> Table:
    return Table()


def write(writer: Writer, *names: str) -> None:
    for name in names:
        writer.write([step(name)])


def test_rows_are_written_in_order_and_many_at_once(table: Table) -> None:
    held = threading.Event()

    def transact(batch: Sequence[Sequence[Step]]) -> None:
        held.wait()
        table.transact(batch)

    writer = Writer(transact)
    names = [f"row {n}" for n in range(450)]
    write(writer, *names)
    held.set()
    assert writer.flush(5.0)
    writer.close(5.0)
    assert table.names == names
    assert len(table.calls) <= 5
    assert writer.lost == writer.waiting == 0


@pytest.mark.parametrize("after", [False, True])
def test_what_the_connections_loss_interrupted_is_written_later_and_once(
    table: Table, after: bool
) -> None:
    table.after = after
    table.failures = [psycopg.OperationalError("gone")]
    writer = Writer(table.transact)
    write(writer, "one")
    write(writer, "two", "three")
    writer.close(5.0)
    assert table.names == ["one", "two", "three"]
    assert writer.lost == 0


def test_what_is_refused_is_lost_and_nothing_else(table: Table) -> None:
    held = threading.Event()

    def transact(batch: Sequence[Sequence[Step]]) -> None:
        held.wait()
        table.transact(batch)

    writer = Writer(transact)
    lost = [writer.write([step(name)]) for name in ("one", "one", "two")]
    held.set()
    writer.close(5.0)
    assert table.names == ["one", "two"]
    assert writer.lost == 1
    assert isinstance(lost[1].exception(), psycopg.errors.UniqueViolation)
    assert lost[2].result() == ()


def test_no_more_rows_wait_than_there_is_room_for(table: Table) -> None:
    table.failures = [psycopg.OperationalError("gone")] * 3
    writer = Writer(table.transact, most_waiting=2)
    one = writer.write([step("one")])
    assert not writer.flush(5.0)
    write(writer, "two", "three", "four")
    assert (writer.waiting, writer.lost) == (2, 2)
    assert one.exception(5.0) is None
    writer.close(5.0)
    assert table.names == ["one", "two"]


def test_a_writer_that_is_closed_does_not_wait_for_ever(table: Table) -> None:
    table.failures = [psycopg.OperationalError("gone")] * 100
    writer = Writer(table.transact)
    write(writer, "one", "two")
    writer.close(0.0)
    write(writer, "three")
    assert (table.names, writer.lost) == ([], 3)


def test_a_password_is_not_shown() -> None:
    shown = database.without_password("postgresql://me:s3:cr/et@host/db?password=s3cret&x=y")
    assert shown == "postgresql://me:***@host/db?password=***&x=y"
    for wrong in ("me:s3cret@[", "me:s3cret@x@[", "me:x/s3cret@h", "me:%zzs3cret@h"):
        with pytest.raises(ConfigError, match="no URL of PostgreSQL") as caught:
            open_ledger(f"postgresql://{wrong}/db", 0)
        assert "s3cret" not in str(caught.value)


def test_a_ledger_of_another_kind_is_refused_by_its_scheme() -> None:
    with pytest.raises(ConfigError, match=r"postgresql://, found one with mysql://$"):
        open_ledger("mysql://me:s3cret@host/db", 0)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://127.0.0.1:1/none", "onnection refused"),
        ("postgresql://127.0.0.1/x?nonsense=1", "nonsense"),
        ("postgres://127.0.0.1:port/x", "port"),
    ],
)
def test_a_database_that_cannot_be_reached_is_an_error(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=r"^--ledger postgres") as caught:
        open_ledger(url, 0)
    assert words in str(caught.value)


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "streamtok.postgres.database")
    with pytest.raises(ConfigError, match=r"^--ledger: .*streamtok\[postgres\]"):
        open_ledger("postgresql://localhost/x", 0)


@pytest.mark.postgres
async def test_serving_goes_on_while_the_database_is_away(
    postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = open_ledger(postgres_server.database(), 0)
    ledger.record(RECORDS[0])
    assert await ledger.get(RECORDS[0].id) == RECORDS[0]
    postgres_server.stop()
    try:
        ledger.record(RECORDS[1])
        with pytest.raises(Unavailable):
            await ledger.get(RECORDS[0].id)
        ledger.record(RECORDS[2])
    finally:
        postgres_server.start()
    assert await wait_for(ledger, RECORDS[2].id) == RECORDS[2]
    assert await ledger.get(RECORDS[1].id) == RECORDS[1]
    assert ledger.database.lost == 0
    ledger.close()
    assert "rows wait in memory" in caplog.text


async def wait_for(ledger: Ledger, name: str) -> object:
    """Return a row as soon as the database is there."""
    while True:
        try:
            return await ledger.get(name)
        except Unavailable:
            await asyncio.sleep(0.05)


@pytest.mark.postgres
def test_several_servers_that_start_at_once_make_the_tables_once(
    postgres_server: PostgresServer,
) -> None:
    url = postgres_server.database()
    with ThreadPoolExecutor(4) as threads:
        ledgers = list(threads.map(lambda _: open_ledger(url, 1), range(4)))
    for ledger in ledgers:
        ledger.close()
    with psycopg.connect(url) as connection:
        versions = connection.execute("SELECT version FROM streamtok_schema").fetchall()
    assert versions == [(n,) for n in range(1, len(schema.MIGRATIONS) + 1)]


@pytest.mark.postgres
async def test_a_database_of_an_earlier_version_is_brought_to_the_present_one(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres_server.database()
    ledger = open_ledger(url, 0)
    ledger.record(RECORD)
    ledger.close()
    later = (*schema.MIGRATIONS, ("ALTER TABLE usage ADD COLUMN colour TEXT NOT NULL DEFAULT 'x'",))
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", later)
        ledger = open_ledger(url, 0)
        assert await ledger.database.run(("SELECT colour FROM usage", ())) == [("x",)]
        ledger.record(replace(RECORD, id="new"))
        assert await ledger.get("new") == replace(RECORD, id="new")
        ledger.close()
    with pytest.raises(ConfigError, match=f"have version {len(later)}"):
        open_ledger(url, 0)


@pytest.mark.postgres
def test_other_tables_of_these_names_are_left_alone(postgres_server: PostgresServer) -> None:
    url = postgres_server.database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE usage (other INT)")
        with pytest.raises(ConfigError, match='relation "usage" already exists'):
            open_ledger(url, 0)
        assert connection.execute("SELECT to_regclass('streamtok_schema')").fetchone() == (None,)


@pytest.mark.postgres
async def test_two_servers_share_a_ledger(postgres_server: PostgresServer) -> None:
    url = postgres_server.database()
    one, other = open_ledger(url, 0), open_ledger(url, 0)
    one.record(RECORD)
    await one.get("")
    assert await other.get(RECORD.id) == RECORD
    one.close()
    other.close()
