"""Buffers on the way are found by when text comes, and servers without one have a clean bill."""

import gzip
import zlib
from collections.abc import Callable, Iterable

import pytest
from msgspec.structs import replace
from test_doctor import DONE, HEAD, cut_into_chunks, event, part

from streamtok import cli
from streamtok.teach.doctor import pace
from streamtok.teach.doctor.eventstream import Stream, read_stream
from streamtok.teach.doctor.pace import Pace, bursts, decompressed, timeline, verdict
from streamtok.teach.doctor.recording import Read, Recording, read_answer
from streamtok.testing import RunningServer

Send = Callable[[list[tuple[float, bytes]]], Iterable[tuple[float, bytes]]]
FIRST_S, GAP_S, TOKENS = 0.05, 0.02, 60
FILLER = "x" * 200  # so that an event has some 400 bytes, as those of real servers have


def made(tokens: int, gap_s: float = GAP_S) -> list[tuple[float, bytes]]:
    """Return when a server makes each event."""
    events = [event(part({"content": f"{n} {FILLER}"})) for n in range(tokens)]
    events += [event(part({}, "stop")), DONE]
    return [(FIRST_S + gap_s * n, data) for n, data in enumerate(events)]


def as_made(events: list[tuple[float, bytes]]) -> Iterable[tuple[float, bytes]]:
    return events


def whole(events: list[tuple[float, bytes]]) -> Iterable[tuple[float, bytes]]:
    return [(events[-1][0], data) for _, data in events]


def by_size(size: int) -> Send:
    """Let bytes go when `size` of them have come together."""

    def send(events: list[tuple[float, bytes]]) -> Iterable[tuple[float, bytes]]:
        held: list[bytes] = []
        for at_s, data in events:
            held.append(data)
            if sum(map(len, held)) >= size or data == DONE:
                yield from ((at_s, one) for one in held)
                held = []

    return send


def by_time(period_s: float) -> Send:
    """Let bytes go at fixed times."""

    def send(events: list[tuple[float, bytes]]) -> Iterable[tuple[float, bytes]]:
        return [((at_s // period_s + 1) * period_s, data) for at_s, data in events]

    return send


def merged(send: Send) -> Send:
    """Send as one chunk what goes at one time."""

    def together(events: list[tuple[float, bytes]]) -> Iterable[tuple[float, bytes]]:
        found: dict[float, bytes] = {}
        for at_s, data in send(events):
            found[at_s] = found.get(at_s, b"") + data
        return found.items()

    return together


def stream(send: Send, tokens: int, gap_s: float = GAP_S) -> Stream:
    reads = [Read(at_s, cut_into_chunks([data])) for at_s, data in send(made(tokens, gap_s))]
    recording = Recording((Read(0.0, HEAD), *reads, Read(reads[-1].at_s, b"0\r\n\r\n")), "answered")
    return read_stream(read_answer(recording))


def paced(send: Send, gap_s: float = GAP_S) -> Pace:
    return Pace(stream(send, 1, gap_s), stream(send, TOKENS, gap_s))


def names(seen: Pace) -> list[str]:
    return [rule.name for rule in pace.RULES if list(rule.check(seen))]


@pytest.mark.parametrize(
    ("send", "found", "words"),
    [
        (as_made, [], ""),
        (whole, ["buffered-whole"], "the first of 60 after 1.270 s"),
        (merged(whole), ["buffered-whole"], "the first of 60 after"),
        (by_size(4096), ["buffered-in-bursts"], "bursts of about 4."),
        (merged(by_size(4096)), ["buffered-in-bursts"], "bursts of about 4."),
        (by_size(8192), ["buffered-in-bursts"], "bursts of about 8."),
        (by_time(0.2), ["buffered-in-bursts"], "one every 200 ms"),
        (merged(by_time(0.2)), ["buffered-in-bursts"], "one every 200 ms"),
    ],
)
def test_a_buffer_is_found_by_its_times(send: Send, found: list[str], words: str) -> None:
    seen = paced(send)
    assert names(seen) == found
    assert words in " ".join(text for rule in pace.RULES for text in rule.check(seen))


def test_a_buffer_larger_than_the_answer_is_one_that_holds_the_whole() -> None:
    assert names(paced(by_size(1 << 20))) == ["buffered-whole"]


@pytest.mark.parametrize("gap_s", [0.0005, 0.002, 0.1, 2.0])
def test_the_servers_own_pace_is_no_fault(gap_s: float) -> None:
    assert names(paced(as_made, gap_s)) == []


def test_a_server_that_guesses_ahead_is_no_buffer() -> None:
    def by_fours(events: list[tuple[float, bytes]]) -> Iterable[tuple[float, bytes]]:
        return [(events[n - n % 4][0], data) for n, (_, data) in enumerate(events)]

    assert names(paced(by_fours)) == []
    assert len(bursts(stream(by_fours, 60))) == 15


@pytest.mark.parametrize(("flush", "found"), [(True, []), (False, ["buffered-whole"])])
def test_a_compressor_that_does_not_flush_is_a_buffer(flush: bool, found: list[str]) -> None:
    def zipped(tokens: int) -> Stream:
        deflate, reads, body = zlib.compressobj(wbits=31), [], b""
        for at_s, data in made(tokens):
            out = deflate.compress(data) + (deflate.flush(zlib.Z_SYNC_FLUSH) if flush else b"")
            out += deflate.flush() if data == DONE else b""
            body += out
            reads += [Read(at_s, cut_into_chunks([out]))] if out else []
        assert gzip.decompress(body).endswith(DONE)
        head = HEAD.replace(b"Date:", b"Content-Encoding: gzip\r\nDate:")
        answer = read_answer(Recording((Read(0.0, head), *reads), "answered"))
        plain = decompressed(answer)
        assert plain is not None
        return read_stream(plain)

    assert names(Pace(zipped(1), zipped(TOKENS))) == found


def test_what_is_not_gzip_is_not_decompressed() -> None:
    answer = stream(as_made, 1).answer
    assert decompressed(answer) is None
    broken = replace(answer, headers=(("content-encoding", "gzip"),))
    assert decompressed(broken) is None


def test_who_holds_bytes_back_is_named() -> None:
    assert verdict(paced(as_made), paced(as_made)) == pace.NOBODY
    assert "what stands between" in verdict(paced(as_made), paced(whole))
    assert "the server itself" in verdict(paced(whole), paced(whole))


def test_a_timeline_has_a_column_for_each_moment() -> None:
    assert timeline(stream(as_made, 4, 1.0), 5, 5.0) == ".... "
    assert timeline(stream(whole, 12), 3, 0.3) == "  #"
    assert timeline(stream(as_made, 0), 3, 0.0) == "   "


def test_both_ways_are_asked(server: RunningServer, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["doctor", "--direct", server.url, "--via", f"{server.url}/v1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"direct {server.url}: ")
    assert any(line.startswith(f"via    {server.url}/v1: ") for line in lines)
    assert sum(line.startswith("       |") and line.endswith("|") for line in lines) == 2


@pytest.mark.parametrize(
    "flags", [[], ["--via", "http://a"], ["--direct", "http://a"], ["--direct", "a", "--via", "b"]]
)
def test_wrong_use_is_named(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", *flags]) == 2
    assert capsys.readouterr().err.startswith("streamtok: ")
