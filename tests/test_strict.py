"""Raw requests in `tests/wire/`: each is answered as its file says, however it is cut.

In a file every line end is written out (`\\r\\n`), as are bytes that do not print; its own line
breaks do not count. The first line names the rule, the second the expected statuses, and
whether the connection is closed behind the last.
"""

import asyncio
import logging
import re
from pathlib import Path
from random import Random

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from streamtok.api.route import refuse
from streamtok.config import ConnectionConfig
from streamtok.http.connection import Connection
from streamtok.http.request import Request
from streamtok.http.response import Response
from streamtok.http.service import Service
from streamtok.http.strict import Guard
from streamtok.testing import FakeClock, MemoryStream

FILES = sorted((Path(__file__).parent / "wire").glob("*.http"))
LIMITS = ConnectionConfig(
    max_body_bytes=1000, max_header_bytes=2000, max_header_count=30, max_target_bytes=400
)


def read(path: Path) -> tuple[str, bytes]:
    """Return what a file expects, and the bytes it holds."""
    _, answers, *lines = path.read_text("ascii").splitlines()
    data = "".join(lines).encode().decode("unicode_escape").encode("latin-1")
    return answers.removeprefix("# answers: "), data


async def outcome(*pieces: bytes) -> tuple[str, list[str]]:
    """Send `pieces`, then end; return statuses as a file has them, and the targets served."""
    targets: list[str] = []

    async def handle(request: Request) -> Response:
        await request.complete()
        targets.append(request.target)
        return Response(200, (), b"")

    stream = MemoryStream()
    connection = Connection(stream, Service(handle, refuse, FakeClock(), LIMITS))
    running = asyncio.ensure_future(connection.run())
    for piece in pieces:
        stream.feed(piece)
        await asyncio.sleep(0)
    stream.feed_eof()
    await asyncio.wait_for(running, timeout=10)
    heads = re.findall(rb"HTTP/1\.1 (\d+) [^\r]*\r\n(.*?)\r\n\r\n", stream.sent, re.DOTALL)
    finals = [(status.decode(), head) for status, head in heads if status != b"100"]
    closed = bool(finals) and b"Connection: close" in finals[-1][1]
    return " ".join([status for status, _ in finals] + ["closed"] * closed), targets


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_a_raw_request_is_answered_as_its_file_says(path: Path) -> None:
    expected, data = read(path)
    third = len(data) // 3
    single = [data[i : i + 1] for i in range(len(data))]
    for pieces in ([data], single, [data[:third], data[third : 2 * third], data[2 * third :]]):
        statuses, targets = await outcome(*pieces)
        assert statuses == expected
        assert "/smuggled" not in targets


@given(st.sampled_from(FILES), st.randoms(use_true_random=False), st.data())
@examples(200)
def test_mangled_requests_never_break_a_connection(
    path: Path,
    random: Random,
    data: st.DataObject,
) -> None:
    """Bytes lost, doubled or put in: always HTTP or nothing, and the same in one piece or many."""
    raw = bytearray(read(path)[1][:400])
    for _ in range(random.randint(1, 4)):
        place = random.randint(0, len(raw))
        change = random.choice(["drop", "double", "insert"])
        if change == "insert":
            raw[place:place] = data.draw(st.binary(min_size=1, max_size=3))
        else:
            part = raw[place : place + random.randint(1, 9)]
            raw[place : place + len(part)] = b"" if change == "drop" else part * 2
    logger = logging.getLogger("streamtok.http.connection")
    broken: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = broken.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        whole = asyncio.run(outcome(bytes(raw)))
        single = asyncio.run(outcome(*(bytes(raw[i : i + 1]) for i in range(len(raw)))))
    finally:
        logger.removeHandler(handler)
    assert not broken
    assert whole == single


@given(st.sampled_from(FILES), st.lists(st.integers(1, 40), max_size=30))
@examples(100)
def test_what_the_guard_lets_pass_is_what_came(path: Path, sizes: list[int]) -> None:
    """Of a good message every byte goes on to h11, in order, in whatever pieces it came."""
    expected, data = read(path)
    if "200" not in expected.split()[0] or data.startswith(b"\r\n"):
        return
    guard, passed, start = Guard(LIMITS), bytearray(), 0
    for size in [*sizes, len(data)]:
        guard.feed(data[start : start + size])
        passed += guard.take()
        start += size
    assert data.startswith(bytes(passed))
    assert guard.take() == b""
    assert bytes(passed).count(b"HTTP/1.") == 1
