"""The ledger in a SQLite file: who may read it, which files it can be, and earlier versions' files.

`test_ledger_contract` has what it does.
"""

import gc
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from ledgers import RECORD
from msgspec.structs import replace

from streamtok.api.responses import stored
from streamtok.errors import ConfigError
from streamtok.ledger import Ledger, Sqlite


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(str(tmp_path / "usage.sqlite3"))
    yield ledger
    ledger.close()


async def test_others_may_read_while_the_server_writes(ledger: Ledger, tmp_path: Path) -> None:
    await ledger.get("")
    with closing(sqlite3.connect(tmp_path / "usage.sqlite3")) as reader:
        assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        query = "SELECT count(*) FROM usage"
        assert reader.execute(query).fetchone() == (0,)
        ledger.record(replace(RECORD, id="one more"))
        await ledger.get("")
        assert reader.execute(query).fetchone() == (1,)


async def test_a_ledger_in_memory_lives_as_long_as_it_is_open() -> None:
    for _ in range(2):
        ledger = Ledger(":memory:")
        assert await ledger.get(RECORD.id) is None
        ledger.record(RECORD)
        assert await ledger.get(RECORD.id) == RECORD
        ledger.close()


def test_a_ledger_in_memory_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ledger = Ledger(":memory:")
    ledger.record(RECORD)
    ledger.close()
    assert list(tmp_path.iterdir()) == []


def a_folder(path: Path) -> None:
    path.mkdir()


def no_database(path: Path) -> None:
    path.write_text("a text that is long enough not to be taken for an empty database " * 20)


def another_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE usage (id TEXT)")


@pytest.mark.parametrize("make", [a_folder, no_database, another_database])
def test_a_path_that_is_no_ledger_is_an_error(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "usage.sqlite3"
    make(path)
    with pytest.raises(ConfigError, match=rf"^--ledger {path}: cannot be opened: "):
        Ledger(str(path))


def test_a_path_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "usage.sqlite3"
    with pytest.raises(ConfigError, match=rf"^--ledger {path}: cannot be opened: "):
        Ledger(str(path))


async def test_a_ledger_of_an_earlier_version_gets_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "usage.sqlite3"
    with closing(sqlite3.connect(path)) as database:
        database.execute(
            "CREATE TABLE usage (id TEXT PRIMARY KEY, created_s REAL NOT NULL, key TEXT NOT NULL, "
            "endpoint TEXT NOT NULL, model TEXT NOT NULL, stream INTEGER NOT NULL, prompt_tokens "
            "INTEGER NOT NULL, generated_tokens INTEGER NOT NULL, delivered_tokens INTEGER "
            "NOT NULL, finish_reason TEXT NOT NULL, first_token_s REAL, "
            "duration_s REAL NOT NULL) STRICT"
        )
        values = ("old", 1.0, "", "/v1/completions", "tiny", 1, 2, 3, 3, "stop", 0.5, 1.0)
        database.execute(f"INSERT INTO usage VALUES ({', '.join('?' * len(values))})", values)
        database.commit()
    for _ in range(2):  # the second time, nothing is missing
        ledger = Ledger(str(path))
        if await ledger.get("new") is None:
            ledger.record(replace(RECORD, id="new"))
        found = [await ledger.get(name) for name in ("old", "new")]
        ledger.close()
        assert found[0] is not None
        assert (found[0].cached_tokens, found[0].queued_s, found[0].prefill_s) == (0, None, None)
        assert found[1] == replace(RECORD, id="new")


async def test_responses_of_earlier_ledgers_count_as_made_now(tmp_path: Path) -> None:
    path = tmp_path / "usage.sqlite3"
    with closing(sqlite3.connect(path)) as database:
        database.execute(
            "CREATE TABLE response (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, "
            "key TEXT NOT NULL, body BLOB NOT NULL, conversation BLOB NOT NULL) STRICT"
        )
        database.execute("INSERT INTO response VALUES (1, 'before', 'anna', x'7b7d', x'5b5d')")
        database.commit()
    ledger = Ledger(str(path), 1)
    assert await stored.kept(ledger.database, "before") is not None
    ledger.close()


def test_one_that_is_dropped_closes_its_file(tmp_path: Path) -> None:
    """Python 3.13 warns of a database that is not closed, and warnings are errors here."""
    path = tmp_path / "usage.sqlite3"
    ledger = Ledger(str(path))
    assert isinstance(ledger.database, Sqlite)
    connection = ledger.database._connection
    del ledger
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")
