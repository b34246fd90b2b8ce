"""The trace: every byte both ways, told while it goes, without a secret, and never in the way."""

import asyncio
import itertools
import json
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from processes import refused, serving

from streamtok.api.more.routes import ROUTES
from streamtok.api.routing import Api
from streamtok.config import ServeConfig
from streamtok.http.connection import Connection
from streamtok.observe.annotate import Annotator, annotate
from streamtok.observe.jsonl import JsonTrace
from streamtok.observe.pcapng import Capture
from streamtok.observe.redact import Mask
from streamtok.observe.sinks import Feed
from streamtok.observe.text import TextTrace
from streamtok.observe.trace import Accepted, Bytes, Closed, Ended, Record, Step, Tap, Tracer
from streamtok.testing import (
    FakeClock,
    MemoryStream,
    ScriptedEngine,
    make_service,
    make_services,
    running_server,
)

CLIENT, SERVER = ("127.0.0.1", 50_000), ("127.0.0.1", 8000)
SECRET = "sk-very-secret"
BODY = b'{"prompt": "hi", "max_tokens": 3, "stream": true}'
POST = (
    b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (SECRET.encode(), len(BODY), BODY)
)
HEAD = b"HEAD /v1/models HTTP/1.1\r\nHost: a\r\n\r\n"


def trace_of(folder: Path, *requests: bytes, tokens: bytes = b"abc") -> tuple[list[Record], bytes]:
    """Return the records of one connection that asks for `requests`, and the bytes it was sent."""

    async def converse() -> tuple[list[Record], bytes]:
        records: list[Record] = []
        clock, stream = FakeClock(), MemoryStream()
        tap = Tap(stream, Tracer(clock, [records.append]).begin(CLIENT, SERVER, encrypted=False))
        api = Api(ROUTES, None, new_request_id=lambda: "req_1")
        api.open(make_services(folder, ScriptedEngine(tokens), clock))
        running = asyncio.ensure_future(Connection(tap, make_service(api, clock), tap.trace).run())
        for request in requests:
            stream.feed(request)
        stream.feed_eof()
        await running
        return records, stream.sent

    return asyncio.run(converse())


def steps(records: list[Record]) -> list[str]:
    return [record.name for record in records if isinstance(record, Step)]


def passed(records: list[Record], *, sent: bool) -> bytes:
    return b"".join(r.data for r in records if isinstance(r, Bytes) and r.sent is sent)


# What is recorded


def test_a_request_tells_its_steps_and_its_bytes(tiny_model: Path) -> None:
    records, sent = trace_of(tiny_model, POST)
    tokens = ["token", "chunk"] * 3
    assert steps(records) == [
        *("parse", "admit", "tokenize", "queue", "start", *tokens),
        *("end", "chunk", "chunk", "finish"),
    ]
    assert passed(records, sent=True) == sent
    assert passed(records, sent=False) == POST.replace(SECRET.encode(), b"*" * len(SECRET))
    assert isinstance(records[0], Accepted)
    assert records[0].client == CLIENT
    assert [type(r) for r in records[-2:]] == [Ended, Closed]
    facts = next(r.facts for r in records if isinstance(r, Step) and r.name == "queue")
    assert facts["max_tokens"] == 3
    assert facts["model"] == "tiny"


def test_what_is_no_request_is_told_too(tiny_model: Path) -> None:
    records, sent = trace_of(tiny_model, b"nonsense\r\n\r\n")
    assert steps(records) == ["finish"]
    assert sent.startswith(b"HTTP/1.1 400 ")
    assert passed(records, sent=True) == sent


def test_a_reset_is_told_once_and_the_end_comes_last(tiny_model: Path) -> None:
    async def leave() -> list[Record]:
        records: list[Record] = []
        clock, stream = FakeClock(), MemoryStream()
        tap = Tap(stream, Tracer(clock, [records.append]).begin(None, None, encrypted=False))
        engine = ScriptedEngine(b"abc", held=True)
        api = Api(ROUTES, None)
        api.open(make_services(tiny_model, engine, clock))
        running = asyncio.ensure_future(Connection(tap, make_service(api, clock), tap.trace).run())
        stream.feed(POST)
        await engine.submitted()
        stream.lose()
        await running
        return records

    records = asyncio.run(leave())
    assert [r for r in records if isinstance(r, Ended)] == [
        Ended("1", records[0].at_s, "client", True)
    ]
    finish = next(r for r in records if isinstance(r, Step) and r.name == "finish")
    assert finish.facts["outcome"] == "client gone"
    assert isinstance(records[-1], Closed)


# Secrets

SECRETS = [
    b"Authorization: Bearer %b\r\n",
    b"authorization:%b\r\n",
    b"AUTHORIZATION : basic %b\r\n",
    b"Proxy-Authorization: Bearer %b\r\n",
    b"X-Api-Key: %b\r\n",
    b"api-key: %b\r\n",
    b"Cookie: session=%b\r\n",
    b"Authorization: Bearer\r\n %b\r\n",
    b"Authorization:\n\t%b\n",
]


@given(st.sampled_from(SECRETS), st.lists(st.integers(1, 90), max_size=9))
def test_no_secret_passes_however_it_is_cut(header: bytes, cuts: list[int]) -> None:
    data = b"GET / HTTP/1.1\r\nHost: a\r\n" + header % SECRET.encode() + b"X: shown\r\n\r\n"
    places = [0, *sorted(cuts), len(data)]
    mask = Mask()
    masked = b"".join(mask.feed(data[a:b]) for a, b in itertools.pairwise(places))
    assert len(masked) == len(data)
    assert SECRET.encode() not in masked
    assert masked.startswith(b"GET / HTTP/1.1\r\nHost: a\r\n")
    assert masked.endswith(b"X: shown\r\n\r\n")


@given(st.lists(st.binary(max_size=30)))
def test_a_mask_leaves_what_is_no_secret(parts: list[bytes]) -> None:
    data = [b"{" + part.replace(b"oo", b"") for part in parts]  # no header of that name
    mask = Mask()
    assert b"".join(map(mask.feed, data)) == b"".join(data)


# Lines


@given(st.lists(st.integers(0, 900), max_size=12))
def test_lines_are_the_same_however_the_bytes_are_cut(cuts: list[int]) -> None:
    raw = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n1a\r\n: ping\r\ndata: [DONE]\r\r\n\n\n\r\n"
        b"16\r\nevent: a\ndata: {}\n\nda\r\n2\r\nta\r\n0\r\nA: b\r\n\r\n"
        b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n"
        b"Content-Type: application/x-ndjson\r\n\r\n{}\n{HTTP/1.1 200 OK\r\n\r\nrest"
    )
    annotator, places = Annotator(), [0, *sorted(cuts), len(raw)]
    found = []
    for start, end in itertools.pairwise(places):
        found += annotator.feed(raw[start:end])
    found += annotator.end()
    joined = [line for line in found if line.data != b""]
    whole = annotate(raw)
    # the rest of a body without lines comes as it comes
    assert joined[: len(whole) - 1] == list(whole[:-1])
    assert b"".join(line.data for line in joined) == raw


def test_the_answer_to_head_has_no_body(tiny_model: Path) -> None:
    records, _ = trace_of(tiny_model, HEAD, POST)
    rows = text_of(records)
    assert sum("version, status, reason" in row for row in rows) == 2
    assert "2.1" not in "\n".join(rows)
    assert any(row.startswith("1.2 ") and "POST /v1/completions" in row for row in rows)


# Forms


def text_of(records: list[Record]) -> list[str]:
    trace = TextTrace(None)
    return b"".join(map(trace.encode, records)).decode().splitlines()


def test_text_shows_bytes_tokens_and_times(tiny_model: Path) -> None:
    records, sent = trace_of(tiny_model, POST)
    rows = text_of(records)
    assert SECRET not in "\n".join(rows)
    marks = {row[25] for row in rows if row[:6].strip()}
    assert marks == {"<", ">", "="}
    bytes_shown = "".join(re.sub(r"   .*", "", row[27:]) for row in rows if row[25] in "< ")
    assert bytes_shown.count("\\n") >= sent.count(b"\n")
    assert [row for row in rows if re.search(r'text: ".", token 98$', row)]
    assert [row for row in rows if row.endswith("the zero chunk: that was the body")]
    assert [row for row in rows if re.search(r"= first token 97$", row)]
    assert not any("\x1b" in row for row in rows)


def test_text_is_in_colour_only_where_that_is_wanted(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, _ = trace_of(tiny_model, POST)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert b"\x1b[36m" in b"".join(map(TextTrace(100).encode, records))
    monkeypatch.setenv("NO_COLOR", "1")
    assert b"\x1b[36m" not in b"".join(map(TextTrace(100).encode, records))


def test_times_are_since_the_request_and_since_the_last_write() -> None:
    trace = TextTrace(None)
    records = [
        Accepted("1", 100.0, None, None, False),
        Bytes("1", 100.010, b"GET / HTTP/1.1\r\n\r\n", False),
        Bytes("1", 100.020, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", True),
        Bytes("1", 100.0225, b"1\r\na", True),
        Bytes("1", 100.0325, b"\r\n", True),
        Step("1", 100.050, "finish", {"status": 200, "outcome": "complete"}),
        Bytes("1", 103.0, b"GET /2 HTTP/1.1\r\n\r\n", False),
    ]
    rows = b"".join(map(trace.encode, records)).decode().splitlines()
    times = [row.split()[:2] for row in rows if " GET " in row or row[27:].strip() == "a"]
    assert [row.split("<")[0].split() for row in rows if " 1\\r\\n" in row] == [
        ["1.1", "12.5", "+2.5"]
    ]
    assert times == [["1.1", "0.0"], ["1.1", "12.5"], ["1.2", "0.0"]]
    end = next(row for row in rows if row.rstrip().endswith("ends the chunk"))
    assert end.split("<")[0].split() == ["1.1", "22.5", "+10.0"]


def test_json_lines_are_the_same_story(tiny_model: Path) -> None:
    records, sent = trace_of(tiny_model, POST)
    trace = JsonTrace()
    lines = [json.loads(row) for row in b"".join(map(trace.encode, records)).splitlines()]
    assert SECRET not in json.dumps(lines)
    assert "".join(row["text"] for row in lines if row["event"] == "sent").encode() == sent
    assert [row["token_ids"] for row in lines if "token_ids" in row] == [[97], [98], [99]]
    assert {row["event"] for row in lines} >= {"accept", "parse", "queue", "finish", "end"}
    assert all(row["connection"] == "1" and row["request"] == 1 for row in lines)
    framing = [row for row in lines if row.get("kind") == "framing" and row["event"] == "sent"]
    assert len(framing) == 2 * 5 + 2  # a size and an end for each chunk, then the zero chunk


def test_bytes_that_are_no_text_are_hexadecimal() -> None:
    lines = JsonTrace().encode(Bytes("1", 1.0, b"GET /\xff HTTP/1.1\r\n", False))
    assert json.loads(lines)["hex"] == b"GET /\xff HTTP/1.1\r\n".hex()


# Packets


@dataclass
class Packet:
    at_s: float
    source: tuple[str, int]
    target: tuple[str, int]
    sequence: int
    acknowledged: int
    flags: int
    data: bytes


def checksum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total = sum(int.from_bytes(data[i : i + 2]) for i in range(0, len(data), 2))
    while total > 0xFFFF:
        total = total % 0x10000 + total // 0x10000
    return total


def blocks(capture: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and body of each block of a capture."""
    while capture:
        kind, length = struct.unpack_from("<II", capture)
        assert length % 4 == 0
        assert struct.unpack_from("<I", capture, length - 4)[0] == length
        yield kind, capture[8 : length - 4]
        capture = capture[length:]


def packets(capture: bytes) -> list[Packet]:
    """Return the packets of a capture, after checking their headers."""
    found = []
    for kind, body in blocks(capture):
        if kind == 0x0A0D0D0A:
            assert struct.unpack_from("<IHHq", body) == (0x1A2B3C4D, 1, 0, -1)
        elif kind == 1:
            assert struct.unpack_from("<HHI", body) == (101, 0, 0)
        else:
            assert kind == 6
            interface, high, low, captured, original = struct.unpack_from("<IIIII", body)
            assert (interface, captured) == (0, original)
            found.append(packet(((high << 32) + low) / 1e9, body[20 : 20 + captured]))
    return found


def packet(at_s: float, data: bytes) -> Packet:
    if data[0] >> 4 == 4:
        assert checksum(data[:20]) == 0xFFFF
        assert struct.unpack_from("!H", data, 2)[0] == len(data)
        addresses, segment = data[12:20], data[20:]
    else:
        assert struct.unpack_from("!H", data, 4)[0] == len(data) - 40
        addresses, segment = data[8:40], data[40:]
    assert checksum(addresses + struct.pack("!II", len(segment), 6) + segment) == 0xFFFF
    source, target, sequence, acknowledged, offset, flags = struct.unpack_from("!HHIIBB", segment)
    half = len(addresses) // 2
    hosts = [str(ip_address(part)) for part in (addresses[:half], addresses[half:])]
    rest = segment[offset // 16 * 4 :]
    return Packet(at_s, (hosts[0], source), (hosts[1], target), sequence, acknowledged, flags, rest)


def follow(found: list[Packet], source: tuple[str, int]) -> bytes:
    """Return what one side has sent, after checking that its numbers have no gap."""
    expected, data = None, b""
    for one in (p for p in found if p.source == source):
        assert expected in (None, one.sequence)
        data += one.data
        expected = (one.sequence + len(one.data) + bool(one.flags & 3)) % 2**32
    return data


@pytest.mark.parametrize("hosts", [("127.0.0.1", "127.0.0.1"), ("::1", "fe80::1")])
def test_a_capture_holds_the_conversation(tiny_model: Path, hosts: tuple[str, str]) -> None:
    records, sent = trace_of(tiny_model, POST)
    client, server = (hosts[0], 50_000), (hosts[1], 8000)
    capture = Capture()
    first = Accepted("1", records[0].at_s, client, server, False)
    data = capture.header + b"".join(map(capture.encode, [first, *records[1:]]))
    found = packets(data)
    assert SECRET.encode() not in data
    assert [p.flags for p in found[:3]] == [2, 18, 16]  # SYN, SYN and ACK, ACK
    assert follow(found, server) == sent
    assert follow(found, client) == POST.replace(SECRET.encode(), b"*" * len(SECRET))
    assert found[0].at_s == pytest.approx(1_700_000_000.0)
    assert sum(bool(p.flags & 1) for p in found) == 2  # both have said that they are done
    for one, other in itertools.pairwise(found[2:]):
        if one.source != other.source:  # what a side has seen, it acknowledges
            grown = len(one.data) + bool(one.flags & 1)
            assert other.acknowledged == (one.sequence + grown) % 2**32


def test_large_writes_are_cut_and_a_reset_is_the_last_packet() -> None:
    capture = Capture()
    records = [
        Accepted("1", 1.0, None, None, False),
        Bytes("1", 2.0, b"x" * 200_001, True),
        Ended("1", 3.0, "client", True),
        Ended("1", 3.0, "server", False),
        Closed("1", 3.0),
    ]
    found = packets(b"".join(map(capture.encode, records)))
    assert follow(found, ("192.0.2.2", 80)) == b"x" * 200_001
    assert found[-1].flags == 20
    assert found[-1].source[0] == "192.0.2.1"


@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")
def test_wireshark_reads_a_capture(tiny_model: Path, tmp_path: Path) -> None:
    records, _ = trace_of(tiny_model, POST, POST)
    path, parts = tmp_path / "t.pcapng", []
    again = replace(records[0], client=("127.0.0.1", 50_001))  # after a second start
    for begun in (records[0], again):
        capture = Capture()
        parts += [capture.header, *map(capture.encode, [begun, *records[1:]])]
    path.write_bytes(b"".join(parts))

    def tshark(*arguments: str) -> list[str]:
        command = ["tshark", "-n", "-r", str(path), *arguments]
        done = subprocess.run(command, capture_output=True, check=True, text=True)
        return done.stdout.splitlines()

    assert len(tshark()) == len(packets(path.read_bytes()))
    checked = ("-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE")
    wrong = (
        "_ws.malformed or tcp.analysis.flags or tcp.checksum.status == 0 or ip.checksum.status == 0"
    )
    assert tshark(*checked, "-Y", wrong) == []
    fields = ("-T", "fields", "-e", "http.response.code", "-e", "http.file_data")
    answers = [row.split("\t") for row in tshark("-Y", "http.response", *fields)]
    assert [code for code, _ in answers] == ["200", "200"] * 2
    assert all(body for _, body in answers)


# In a server


def read_all(server: Any, request: bytes) -> bytes:
    """Send `request`, whose answer closes the connection, and return the answer."""
    with socket.create_connection(server.address) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def config(folder: Path, **settings: Any) -> ServeConfig:
    return ServeConfig(model=str(folder), port=0, ledger=":memory:", **settings)


def sent_in(path: Path) -> list[str]:
    """Return the text that was sent on each connection, by the trace in a file."""
    texts: dict[str, str] = {}
    for row in map(json.loads, path.read_text().splitlines()):
        if row["event"] == "sent":
            data = row["text"] if "text" in row else bytes.fromhex(row["hex"]).decode("latin-1")
            texts[row["connection"]] = texts.get(row["connection"], "") + data
    return list(texts.values())


FAULTS = ["", "chunk-cut", "one-byte", "coalesced;count=2", "done-missing", "bad-json", "close"]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_trace_is_what_the_client_got(tiny_model: Path, tmp_path: Path, version: str) -> None:
    file, capture = tmp_path / "t.jsonl", tmp_path / "t.pcapng"
    settings = {"trace_file": str(file), "trace_pcapng": str(capture), "faults": True}
    answers = []
    body = b'{"prompt": "hi", "max_tokens": 5, "stream": true, "seed": 1}'
    with running_server(config(tiny_model, **settings)) as server:
        for fault in FAULTS:
            head = (
                f"POST /v1/completions HTTP/{version}\r\nHost: a\r\nConnection: close\r\n"
                f"Content-Length: {len(body)}\r\nAuthorization: Bearer {SECRET}\r\n"
            ) + (f"X-Fault: {fault}\r\n" if fault else "")
            answers.append(read_all(server, head.encode() + b"\r\n" + body))
    assert sent_in(file) == [answer.decode() for answer in answers]
    assert SECRET not in file.read_text()
    assert SECRET.encode() not in capture.read_bytes()
    found = packets(capture.read_bytes())
    sides = list(dict.fromkeys(p.source for p in found if p.source[1] != server.address[1]))
    by_client = [[p for p in found if side in (p.source, p.target)] for side in sides]
    assert [follow(flow, server.address) for flow in by_client] == answers
    assert file.stat().st_mode & 0o777 == 0o600


def test_over_tls_and_unix_sockets_the_plain_bytes_are_shown(
    tiny_model: Path, tmp_path: Path
) -> None:
    authority = trustme.CA()
    (tmp_path / "pem").write_bytes(
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.bytes()
    )
    file, capture = tmp_path / "t.jsonl", tmp_path / "t.pcapng"
    request = b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    pem = str(tmp_path / "pem")
    with running_server(
        config(tiny_model, trace_file=str(file), trace_pcapng=str(capture), certfile=pem)
    ) as server:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        with (
            socket.create_connection(server.address) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
        ):
            connection.sendall(request)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert sent_in(file) == [answer.decode()]
    assert follow(packets(capture.read_bytes()), ("127.0.0.1", 80)) == answer
    path = str(tmp_path / "socket")
    uds = tmp_path / "uds.jsonl"
    with (
        running_server(config(tiny_model, trace_file=str(uds), uds=path)),
        socket.socket(socket.AF_UNIX) as connection,
    ):
        connection.connect(path)
        connection.sendall(request)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert sent_in(uds) == [answer.decode()]


def test_workers_write_one_file(tiny_model: Path, tmp_path: Path) -> None:
    file, capture = tmp_path / "t.jsonl", tmp_path / "t.pcapng"
    flags = ("--port", "0", "--workers", "2", "--ledger", str(tmp_path / "ledger"))
    traces = ("--trace-file", str(file), "--trace-pcapng", str(capture))
    with serving("--model", str(tiny_model), *flags, *traces) as running:
        for _ in range(8):
            assert httpx.get(f"{running.url}/health").status_code == 200
        running.stop()
    rows = [json.loads(row) for row in file.read_text().splitlines()]
    assert sum(row["event"] == "finish" for row in rows) == 8
    assert {row["connection"].partition(":")[0] for row in rows} <= {"1", "2"}
    assert len(packets(capture.read_bytes())) >= 8 * 7


def test_serve_traces_to_its_output_and_says_when_it_is_ready(tiny_model: Path) -> None:
    with serving("--model", str(tiny_model), "--port", "0", "--trace") as running:
        assert httpx.get(f"{running.url}/health").status_code == 200
        running.process.send_signal(signal.SIGTERM)
        output, _ = running.process.communicate(timeout=60)
    assert re.search(
        r"^1\.1 +0\.0 +> GET /health HTTP/1\.1\\r\\n +method, target, version$", output, re.M
    )


# What goes wrong


@pytest.mark.parametrize("flag", ["--trace-file", "--trace-pcapng"])
def test_a_file_that_cannot_be_written_is_named(flag: str, tmp_path: Path) -> None:
    words = refused("--port", "0", flag, str(tmp_path / "no" / "file"))
    assert (
        words
        == f"streamtok: {flag} {tmp_path}/no/file: cannot be written: No such file or directory\n"
    )
    assert "Is a directory" in refused("--port", "0", flag, str(tmp_path))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk_ends_the_trace_and_not_the_server(
    tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running_server(config(tiny_model, trace_file="/dev/full")) as server:
        for _ in range(3):
            assert httpx.get(f"{server.url}/health").status_code == 200
    ended = [r.getMessage() for r in caplog.records if "trace" in r.getMessage()]
    assert ended == ["the trace to /dev/full ends here: No space left on device"]


def test_a_closed_terminal_ends_the_trace_and_not_the_server(tiny_model: Path) -> None:
    with serving("--model", str(tiny_model), "--port", "0", "--trace") as running:
        assert running.process.stdout
        running.process.stdout.close()
        for _ in range(3):
            assert httpx.get(f"{running.url}/health").status_code == 200
        running.wait_for("the trace to the terminal ends here: Broken pipe")
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(timeout=60) == 0


def test_who_lags_behind_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("streamtok.observe.sinks.MOST_BEHIND_BYTES", 5000)
    reader, writer = os.pipe()
    taken: list[Record] = []

    def take(record: Record) -> None:
        os.read(reader, 1)  # holds until somebody writes
        taken.append(record)

    feed = Feed("a slow place", take, lambda: None)
    for _ in range(9):
        feed(Bytes("1", 1.0, b"x" * 1000, True))
    os.write(writer, b"123456789")
    feed.close()
    assert [r.getMessage() for r in caplog.records] == [
        "the trace to a slow place ends here: it lags behind"
    ]
    assert len(taken) < 5
    os.close(reader)
    os.close(writer)


def test_what_fails_in_a_trace_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    def fail(record: Record) -> None:
        raise ValueError("boom")

    feed = Feed("nowhere", fail, lambda: None)
    for _ in range(3):
        feed(Closed("1", 1.0))
    feed.close()
    assert caplog.text.count("ValueError: boom") == 1
    assert caplog.text.count("ends here") == 1


def test_without_settings_nothing_is_traced(tiny_model: Path) -> None:
    with running_server(config(tiny_model)) as server:
        assert server.app._tracing is None
