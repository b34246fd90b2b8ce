"""The doctor on HTTP/1.1 itself: clean for this server, and planted faults are found by name."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from streamtok.teach.doctor import http as doctor
from streamtok.teach.doctor.desync import CASES, Case, filled
from streamtok.teach.doctor.examine import Report
from streamtok.teach.doctor.http import Outcome, examine_http, judge
from streamtok.teach.doctor.probe import target
from streamtok.testing import RunningServer

NAMES = {case.name: case for case in CASES}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers here answer at once, or not at all."""
    monkeypatch.setattr(doctor, "BETWEEN_S", 0.0)
    monkeypatch.setattr(doctor, "PATIENCE_S", 0.2)
    monkeypatch.setattr(doctor, "QUIET_S", 0.05)


async def examine(url: str) -> Report:
    return await examine_http(url, target(url, "", 10.0))


def names(report: Report) -> set[str]:
    return {finding.rule for finding in report.findings}


def test_this_server_has_a_clean_bill(server: RunningServer) -> None:
    report = asyncio.run(examine(f"{server.url}/health"))
    assert [f"{finding.rule}: {finding.seen}" for finding in report.findings] == []
    assert len(report.checked) >= 55


@asynccontextmanager
async def naive(take: Callable[[bytes], int]) -> AsyncIterator[str]:
    """Run a server for which `take` says how many bytes a request has; 0 asks for more."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = b""
        while more := await reader.read(65536):
            data += more
            while size := take(data):
                data = data[size:]
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    running = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with running:
        yield "http://{}:{}".format(*running.sockets[0].getsockname())


def by_length_alone(data: bytes) -> int:
    """Take a request by its Content-Length, however it is written, and know no chunks."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return 0
    length = re.search(rb"(?i)content-length:\D*(\d+)", data[:end])
    size = end + 4 + (int(length[1]) if length else 0)
    return size if len(data) >= size else 0


def one_read_is_one_request(data: bytes) -> int:
    return len(data)


async def test_a_server_that_knows_no_chunks_carries_out_hidden_requests() -> None:
    async with naive(by_length_alone) as url:
        found = names(await examine(url))
    assert {"length-and-coding", "chunked-get", "transfer-encoding-unknown"} <= found
    assert {"content-length-plus", "content-length-twice", "host-missing"} <= found
    assert "plain" not in found


async def test_a_server_that_takes_a_read_for_a_request_is_found_out() -> None:
    async with naive(one_read_is_one_request) as url:
        report = await examine(url)
    assert "split-invariance" in names(report)
    assert report.failed


@pytest.mark.parametrize(
    ("name", "statuses", "severity"),
    [
        ("plain", (200,), None),
        ("plain", (404,), None),
        ("plain", (), "error"),
        ("absolute-form", (200,), None),
        ("absolute-form", (400,), "warning"),
        ("chunk-size-prefix", (400,), None),
        ("chunk-size-prefix", (), None),
        ("chunk-size-prefix", (200,), "warning"),
        ("chunk-size-prefix", (200, 200), "error"),
        ("chunk-size-prefix", (400, 200), "error"),
        ("length-and-coding", (200,), None),
        ("length-and-coding", (200, 200), "error"),
    ],
)
def test_what_is_right(name: str, statuses: tuple[int, ...], severity: str | None) -> None:
    assert judge(NAMES[name], Outcome(statuses, False), Outcome((200,), False)) == severity


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_names_the_server_and_holds_its_hidden_request(case: Case) -> None:
    data = filled(case, "a:1", "/x")
    assert b"@" not in data
    assert b"#" not in data
    assert b"/x HTTP/1." in data or case.name == "absolute-form"
