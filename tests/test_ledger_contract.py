"""What a ledger promises, whichever database it is in: SQLite's file or a real PostgreSQL.

`test_ledger` and `test_postgres` have what is particular to each.
"""

import time
from asyncio import wrap_future
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ledgers import DAY_S, RECORD, RECORDS
from msgspec.structs import astuple, replace
from postgres_server import PostgresServer

from streamtok.api.more.sums import GROUPS, UsageFilter, UsageSum, sum_usage
from streamtok.api.responses import stored
from streamtok.api.responses.stored import KeptResponse
from streamtok.errors import Unavailable
from streamtok.ledger import Ledger
from streamtok.postgres import open_ledger

Open = Callable[[int], Ledger]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Open the same ledger, again and again; what is older than so many days is deleted."""
    open_place: Callable[[str, int], Ledger]
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        open_place, place = open_ledger, server.database()
    else:
        open_place, place = Ledger, str(tmp_path / "new" / "folder" / "usage.sqlite3")
    ledgers: list[Ledger] = []

    def open_again(days: int = 0) -> Ledger:
        if ledgers:
            ledgers.pop().close()
        ledgers.append(open_place(place, days))
        return ledgers[-1]

    yield open_again
    for ledger in ledgers:
        ledger.close()


@pytest.fixture
async def ledger(opened: Open) -> Ledger:
    ledger = opened(0)
    for record in RECORDS:
        ledger.record(record)
    return ledger


async def test_a_write_of_nothing_is_no_fault(opened: Open) -> None:
    ledger = opened(0)
    assert await wrap_future(ledger.database.write()) == ()
    assert await ledger.database.run() == ()
    ledger.record(RECORD)
    assert await ledger.get(RECORD.id) == RECORD
    assert ledger.database.lost == 0


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


async def test_a_ledger_goes_on_where_it_was_closed(opened: Open) -> None:
    for record in RECORDS:
        opened(0).record(record)
    ledger = opened(0)
    assert [await ledger.get(record.id) for record in RECORDS] == list(RECORDS)


async def test_a_lost_record_is_counted_and_logged_and_the_next_is_written(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.record(replace(RECORD, id="no reason", finish_reason=None))
    ledger.record(replace(RECORD, id="too many", prompt_tokens=2**63))
    ledger.record(replace(RECORD, id="good"))
    assert await ledger.get("good") is not None
    assert await ledger.get("too many") is None
    assert ledger.database.lost == 2
    ours = [r.getMessage() for r in caplog.records if r.name.startswith("streamtok")]
    assert ["a usage record was lost" in message for message in ours] == [True, True]


async def test_records_are_lost_only_while_the_table_is_not_there(ledger: Ledger) -> None:
    await ledger.database.run(("ALTER TABLE usage RENAME TO moved", ()))
    ledger.record(replace(RECORD, id="lost"))
    with pytest.raises(Unavailable, match=r"no such table|does not exist") as caught:
        await ledger.get("lost")
    assert caught.value.code == "ledger_unavailable"
    await ledger.database.run(("ALTER TABLE moved RENAME TO usage", ()))
    ledger.record(replace(RECORD, id="kept"))
    assert await ledger.get("lost") is None
    assert await ledger.get("kept") is not None
    assert ledger.database.lost == 1


async def ids(ledger: Ledger) -> set[str]:
    rows = await ledger.database.run(("SELECT id FROM usage UNION ALL SELECT id FROM response", ()))
    return {name for (name,) in rows}


async def fill(ledger: Ledger) -> None:
    """Put in what is a day and what is nine days old."""

    age = "UPDATE response SET created_s = ? WHERE id = ?"
    for name, days in (("new", 1), ("old", 9)):
        made_s = time.time() - days * DAY_S
        ledger.record(replace(RECORD, id=name, created_s=made_s))
        await stored.keep(
            ledger.database, KeptResponse(f"response-{name}", "anna", b"{}", b"[]"), 10
        )
        await ledger.database.run((age, (made_s, f"response-{name}")))


async def test_what_is_older_than_its_days_is_deleted_at_the_start(opened: Open) -> None:
    await fill(opened(0))
    everything = {"new", "old", "response-new", "response-old"}
    for days, left in ((0, everything), (10, everything), (7, {"new", "response-new"})):
        assert await ids(opened(days)) == left


async def test_what_is_too_old_is_deleted_while_the_server_runs(opened: Open) -> None:
    ledger = opened(7)
    await fill(ledger)
    assert "old" in await ids(ledger)
    ledger.record(replace(RECORD, id="later", created_s=time.time() + 1))
    assert await ids(ledger) == {"new", "later", "response-new"}


async def test_only_the_last_responses_of_each_key_are_kept(opened: Open) -> None:
    ledger = opened(0)
    for number in range(5):
        for key in ("a", "b"):
            assert await stored.keep(
                ledger.database, KeptResponse(f"{key}{number}", key, b"{}", b"[\x00]"), 2
            )
    await stored.forget(ledger.database, "a4")
    assert await stored.keep(ledger.database, KeptResponse("a5", "a", b"{}", b"[]"), 2)
    kept = [n for n in range(6) if await stored.kept(ledger.database, f"a{n}")]
    assert kept == [3, 5]
    assert [n for n in range(6) if await stored.kept(ledger.database, f"b{n}")] == [3, 4]
    assert await stored.kept(ledger.database, "b4") == KeptResponse("b4", "b", b"{}", b"[\x00]")


async def test_a_response_that_cannot_be_kept_is_said_not_to_be(opened: Open) -> None:
    ledger = opened(0)
    await ledger.database.run(("ALTER TABLE response RENAME TO moved", ()))
    assert not await stored.keep(ledger.database, KeptResponse("a", "a", b"{}", b"[]"), 2)


async def test_of_a_transaction_all_or_nothing_is_done(ledger: Ledger) -> None:
    delete = ("DELETE FROM usage WHERE id = ?", (RECORD.id,))
    with pytest.raises(Unavailable):
        await ledger.database.run(delete, ("INSERT INTO usage (id) VALUES (?)", ("half",)))
    assert await ledger.get(RECORD.id) == RECORD


async def test_a_write_says_when_it_is_done(ledger: Ledger) -> None:
    delete = ("DELETE FROM usage WHERE id = ?", (RECORD.id,))
    await wrap_future(ledger.database.write(delete))
    assert await ledger.get(RECORD.id) is None


async def test_the_columns_are_the_fields(ledger: Ledger) -> None:
    (row,) = await ledger.database.run(("SELECT * FROM usage WHERE id = ?", (RECORD.id,)))
    assert tuple(row) == astuple(RECORD)


async def test_texts_are_any_texts(ledger: Ledger) -> None:
    record = replace(RECORD, id="x", model="'; -- ? %s \U0001f642 \u0000")
    ledger.record(record)
    found = await ledger.get("x")
    assert found is not None
    assert found.model.replace("\ufffd", "\0") == record.model
