"""The corpus: its files, and that two readers of this package get the events in them."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import h11
import pytest

from streamtok import cli
from streamtok.corpus.answers import LEGAL, TEXT, split
from streamtok.corpus.cases import BY_HAND
from streamtok.faults.catalogue import KINDS
from streamtok.http.sse import EventDecoder, ServerEvent

PIECES = 2000  # bytes of a body that is fed byte by byte


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "new"
    assert cli.main(["corpus", str(path), "--seed", "7"]) == 0
    return path


@pytest.fixture(scope="module")
def cases(folder: Path) -> dict[str, dict[str, Any]]:
    index = json.loads((folder / "index.json").read_text("utf-8"))
    assert index["seed"] == 7
    read = {
        name: json.loads((folder / f"{name}.json").read_text("utf-8")) for name in index["cases"]
    }
    expected = {"index.json", "README.md"} | {f"{name}.json" for name in read}
    for case in read.values():
        expected |= {case["body"], *filter(None, [case["http"]])}
    assert {path.name for path in folder.iterdir()} == expected
    return read


def decoded(body: bytes, cuts: list[int]) -> list[ServerEvent]:
    decoder, places = EventDecoder(), [0, *cuts, len(body)]
    return [event for a, b in pairwise(places) for event in decoder.feed(body[a:b])]


def test_a_right_parser_gets_the_events_however_the_body_is_cut(
    folder: Path, cases: dict[str, dict[str, Any]]
) -> None:
    for case in cases.values():
        body = (folder / case["body"]).read_bytes()
        events = [ServerEvent(e["data"], e["event"], e["id"]) for e in case["events"]]
        bytewise = [[*range(len(body))]] if len(body) <= PIECES else []
        for cuts in ([], *case["splits"], *bytewise):
            assert cuts == sorted(cuts)
            assert decoded(body, cuts) == events, case["name"]


def http_body(raw: bytes) -> tuple[bytes, bool]:
    """Return the body of a response as h11 reads it, and whether it is complete."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="POST", target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(raw)
    body = b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Data):
            body += event.data
        elif event is h11.NEED_DATA or isinstance(event, h11.EndOfMessage):
            return body, isinstance(event, h11.EndOfMessage)


def test_responses_hold_the_bodies(folder: Path, cases: dict[str, dict[str, Any]]) -> None:
    for case in (case for case in cases.values() if case["http"]):
        raw = (folder / case["http"]).read_bytes()
        body, complete = http_body(raw)
        assert complete == (case["ends"] == "complete"), case["name"]
        assert all(0 <= pause["at"] <= len(raw) for pause in case["pauses"])
        if case["name"] == "fault-status":
            assert raw.startswith(b"HTTP/1.1 503 ")
        else:
            assert body.startswith((folder / case["body"]).read_bytes()), case["name"]


def test_every_fault_and_every_api_is_there(cases: dict[str, dict[str, Any]]) -> None:
    assert {f"fault-{name}" for name in KINDS} <= cases.keys()
    for name in ("chat", "completion", "responses", "messages"):
        assert cases[name]["text"] == TEXT, name
        assert cases[name]["legal"]
    for name in KINDS:
        case = cases[f"fault-{name}"]
        assert case["legal"] == (name in LEGAL), name
        if name in LEGAL and name != "character-cut":
            assert case["text"] == TEXT, name
    assert {case["ends"] for case in cases.values()} == {"complete", "cut", "reset"}
    assert cases["fault-stall"]["pauses"][0]["seconds"] == 3600
    assert "🦊" in cases["fault-character-cut"]["text"]
    assert cases["fault-error"]["events"][-2]["data"].startswith('{"error"')
    assert len(cases["fault-close-at-3"]["events"]) < len(cases["chat"]["events"])


def test_the_same_seed_draws_the_same_splits(cases: dict[str, dict[str, Any]]) -> None:
    from streamtok.corpus.write import described

    for case in BY_HAND:
        assert described(case, 7) == cases[case.name] | {"http": None}
    assert described(BY_HAND[1], 8) != cases[BY_HAND[1].name]


def test_names_are_of_one_case_each(cases: dict[str, dict[str, Any]]) -> None:
    assert len({case.name for case in BY_HAND}) == len(BY_HAND)
    assert len(cases) > 60


def test_nothing_is_overwritten(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, words in (
        (folder, "expected a new or an empty folder"),
        (tmp_path / "file" / "new", "cannot be written to: Not a directory"),
    ):
        (tmp_path / "file").write_text("x")
        assert cli.main(["corpus", str(place)]) == 2
        assert words in capsys.readouterr().err


def test_a_chunk_is_read_by_its_size() -> None:
    assert split(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n3\r\n\r\na\r\n1\r\nb\r\n0\r\n\r\n") == (
        b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n",
        [b"\r\na", b"b"],
    )
