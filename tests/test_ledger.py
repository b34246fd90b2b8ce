"""The usage ledger: real SQLite files, every sum, and what happens when the disk fails."""

import gc
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from streamtok.api.more.sums import GROUPS, UsageFilter, UsageSum, sum_usage
from streamtok.errors import ConfigError, Unavailable
from streamtok.ledger import KeptResponse, Ledger, Sqlite, UsageRecord

DAY_S = 86400.0
RECORD = UsageRecord(
    id="chatcmpl-1",
    created_s=0.0,
    key="alice",
    endpoint="/v1/chat/completions",
    model="tiny",
    stream=True,
    prompt_tokens=10,
    generated_tokens=4,
    delivered_tokens=3,
    finish_reason="stop",
    first_token_s=0.25,
    duration_s=1.5,
    cached_tokens=7,
    queued_s=0.05,
    prefill_s=0.15,
)
RECORDS = (
    RECORD,
    replace(RECORD, id="chatcmpl-2", created_s=3600.0, key="bob", finish_reason="length"),
    replace(RECORD, id="cmpl-3", created_s=DAY_S, endpoint="/v1/completions", prompt_tokens=1),
    replace(RECORD, id="chatcmpl-4", created_s=DAY_S + 1, model="other", delivered_tokens=0),
)


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    ledger = Ledger(str(tmp_path / "usage.sqlite3"))
    for record in RECORDS:
        ledger.record(record)
    yield ledger
    ledger.close()


async def test_a_reader_sees_what_was_recorded_before(ledger: Ledger) -> None:
    for record in RECORDS:
        assert await ledger.get(record.id) == record
    assert await ledger.get("no-such-id") is None


async def test_a_request_without_a_token_has_no_first_token(ledger: Ledger) -> None:
    none = {"first_token_s": None, "queued_s": None, "prefill_s": None}
    record = replace(RECORD, id="x", **none, finish_reason="error", stream=False)
    ledger.record(record)
    found = await ledger.get("x")
    assert found == record
    assert found.stream is False


@pytest.mark.parametrize(
    ("where", "requests", "prompt_tokens"),
    [
        (UsageFilter(), 4, 31),
        (UsageFilter(since_s=3600.0), 3, 21),
        (UsageFilter(until_s=3600.0), 1, 10),
        (UsageFilter(since_s=0.5, until_s=DAY_S + 0.5), 2, 11),
        (UsageFilter(key="bob"), 1, 10),
        (UsageFilter(since_s=3600.5, key="alice"), 2, 11),
    ],
)
async def test_sums_are_from_since_until_before_until(
    ledger: Ledger, where: UsageFilter, requests: int, prompt_tokens: int
) -> None:
    (total,) = await sum_usage(ledger, where, None)
    assert (total.group, total.requests, total.prompt_tokens) == ("", requests, prompt_tokens)


@pytest.mark.parametrize(
    ("group_by", "sums"),
    [
        ("key", [UsageSum("alice", 3, 21, 12, 6), UsageSum("bob", 1, 10, 4, 3)]),
        ("model", [UsageSum("other", 1, 10, 4, 0), UsageSum("tiny", 3, 21, 12, 9)]),
        (
            "endpoint",
            [
                UsageSum("/v1/chat/completions", 3, 30, 12, 6),
                UsageSum("/v1/completions", 1, 1, 4, 3),
            ],
        ),
        ("finish_reason", [UsageSum("length", 1, 10, 4, 3), UsageSum("stop", 3, 21, 12, 6)]),
        ("day", [UsageSum("1970-01-01", 2, 20, 8, 6), UsageSum("1970-01-02", 2, 11, 8, 3)]),
        (
            "hour",
            [
                UsageSum("1970-01-01T00:00:00Z", 1, 10, 4, 3),
                UsageSum("1970-01-01T01:00:00Z", 1, 10, 4, 3),
                UsageSum("1970-01-02T00:00:00Z", 2, 11, 8, 3),
            ],
        ),
    ],
)
async def test_sums_by_group(ledger: Ledger, group_by: str, sums: list[UsageSum]) -> None:
    assert await sum_usage(ledger, UsageFilter(), group_by) == sums


@pytest.mark.parametrize("group_by", [None, *GROUPS])
async def test_where_nothing_matches_there_are_no_sums(
    ledger: Ledger, group_by: str | None
) -> None:
    assert await sum_usage(ledger, UsageFilter(key="nobody' OR 1=1 --"), group_by) == []


async def test_a_ledger_goes_on_where_it_was_closed(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "usage.sqlite3"
    for record in RECORDS:
        ledger = Ledger(str(path))
        ledger.record(record)
        ledger.close()
    ledger = Ledger(str(path))
    assert [await ledger.get(record.id) for record in RECORDS] == list(RECORDS)
    ledger.close()


async def test_others_may_read_while_the_server_writes(ledger: Ledger, tmp_path: Path) -> None:
    await ledger.get("")
    with closing(sqlite3.connect(tmp_path / "usage.sqlite3")) as reader:
        assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        query = "SELECT count(*) FROM usage"
        assert reader.execute(query).fetchone() == (4,)
        ledger.record(replace(RECORD, id="one more"))
        await ledger.get("")
        assert reader.execute(query).fetchone() == (5,)


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


async def test_a_lost_record_is_counted_and_logged_and_the_next_is_written(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.record(RECORD)  # its id is there already
    ledger.record(replace(RECORD, id="too many", prompt_tokens=2**63))
    ledger.record(replace(RECORD, id="good"))
    assert await ledger.get("good") is not None
    assert await ledger.get("too many") is None
    assert ledger.database.lost == 2
    assert ["a usage record was lost" in message for message in caplog.messages] == [True, True]


async def test_records_are_lost_only_while_the_file_fails(ledger: Ledger, tmp_path: Path) -> None:
    await ledger.get("")
    with closing(sqlite3.connect(tmp_path / "usage.sqlite3")) as other:
        other.execute("ALTER TABLE usage RENAME TO moved")
        ledger.record(replace(RECORD, id="lost"))
        with pytest.raises(Unavailable, match="no such table"):
            await ledger.get("lost")
        other.execute("ALTER TABLE moved RENAME TO usage")
    ledger.record(replace(RECORD, id="kept"))
    assert await ledger.get("lost") is None
    assert await ledger.get("kept") is not None
    assert ledger.database.lost == 1


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


async def ids(ledger: Ledger) -> set[str]:
    rows = await ledger.database.run(("SELECT id FROM usage UNION ALL SELECT id FROM response", ()))
    return {name for (name,) in rows}


async def fill(ledger: Ledger) -> None:
    """Put in what is a day and what is nine days old."""

    age = "UPDATE response SET created_s = ? WHERE id = ?"
    for name, days in (("new", 1), ("old", 9)):
        made_s = time.time() - days * DAY_S
        ledger.record(replace(RECORD, id=name, created_s=made_s))
        await ledger.keep(KeptResponse(f"response-{name}", "anna", b"{}", b"[]"), 10)
        await ledger.database.run((age, (made_s, f"response-{name}")))


async def test_what_is_older_than_its_days_is_deleted_at_the_start(tmp_path: Path) -> None:
    path = str(tmp_path / "usage.sqlite3")
    ledger = Ledger(path)
    await fill(ledger)
    ledger.close()
    everything = {"new", "old", "response-new", "response-old"}
    for days, left in ((0, everything), (10, everything), (7, {"new", "response-new"})):
        ledger = Ledger(path, days)
        assert await ids(ledger) == left
        ledger.close()


async def test_what_is_too_old_is_deleted_while_the_server_runs(tmp_path: Path) -> None:
    ledger = Ledger(":memory:", 7)
    await fill(ledger)
    assert "old" in await ids(ledger)
    ledger.record(replace(RECORD, id="later", created_s=time.time() + 1))
    assert await ids(ledger) == {"new", "later", "response-new"}
    ledger.close()


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
    assert await ids(ledger) == {"before"}
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
