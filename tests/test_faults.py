"""Faults on demand: how they are asked for, what each does to the bytes, and who is told."""

import json
import math
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import pytest
from documents import help_page
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from processes import serving
from test_wire import CHAT, CHUNKED, DONE, HEAD, ROLE, Peer, chat_event, chunk, post, said

from streamtok.api.more.routes import ROUTES
from streamtok.api.route import refuse
from streamtok.api.routing import Api
from streamtok.clock import Clock, SystemClock
from streamtok.config import ServeConfig
from streamtok.errors import InvalidRequest, NotFound
from streamtok.faults import events as event_faults
from streamtok.faults.catalogue import KINDS, parse
from streamtok.faults.inject import Faults
from streamtok.faults.wire import (
    BreakOff,
    Cut,
    Drip,
    OneByte,
    Pause,
    Place,
    SlowHead,
    Stall,
    WireFault,
    WrongType,
    spoil,
)
from streamtok.http.request import Request
from streamtok.http.response import Response
from streamtok.teach.doctor.examine import Report, examine
from streamtok.teach.doctor.probe import target
from streamtok.testing import (
    FakeLater,
    RunningServer,
    ScriptedEngine,
    make_services,
    running_server,
    write_model,
)
from streamtok.testing.fixture import Models, fresh_server
from streamtok.text.tokenizer import Tokenizer

# How they are asked for


@pytest.mark.parametrize("name", KINDS)
def test_every_fault_can_be_asked_for_by_its_name_alone(name: str) -> None:
    (wanted,) = parse(name)
    assert wanted.name == name
    assert wanted.make() is not wanted.make()  # nothing of one answer is left for the next


def test_parameters_are_numbers() -> None:
    (stall,) = parse(" stall ; at = 5 ; seconds = 0.5 ; times=2 ")
    assert dict(stall.values) == {"at": 5, "seconds": 0.5}
    assert stall.times == 2


def test_several_act_in_the_order_of_the_table() -> None:
    names = [one.name for one in parse("drip, coalesced, bom,error")]
    assert names == ["error", "bom", "coalesced", "drip"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", "there is no fault 'nonsense'; known are status, error, engine-death,"),
        ("", "there is no fault ''"),
        ("bom,", "there is no fault ''"),
        ("stall;to=4", "stall: there is no 'to'; known are at, seconds, times"),
        ("bom;at=4", "bom: there is no 'at'; known are times"),
        ("stall;at", "stall;at: expected a whole number from 0 to 1000000, found ''"),
        ("stall;at=x", "stall;at: expected a whole number from 0 to 1000000, found 'x'"),
        ("stall;at=1.5", "found '1.5'"),
        ("stall;at=-1", "found '-1'"),
        ("stall;seconds=nan", "stall;seconds: expected a number from 0 to 86400, found 'nan'"),
        ("drip;bytes_per_s=0", "drip;bytes_per_s: expected a number from 1 to 1000000"),
        ("coalesced;count=1", "coalesced;count: expected a whole number from 2 to"),
        ("bom;times=0", "bom;times: expected a whole number from 1 to"),
        ("status;code=404", "status;code: expected one of 429, 500, 503, found '404'"),
    ],
)
def test_what_cannot_be_had_is_told_with_what_can(text: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(words)) as refused:
        parse(text)
    assert refused.value.param == "fault"


# Bytes: what becomes of writes

HEAD_OF = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
BODY = Place("body", 3)


def steps(fault: WireFault, data: bytes, place: Place) -> list[Any]:
    return list(spoil([fault], data, place))


@examples(30)
@given(
    faults=st.lists(
        st.sampled_from(["one-byte", "drip", "drip;bytes_per_s=999", "stall", "slow-headers"]),
        max_size=3,
    ),
    writes=st.lists(st.binary(min_size=1, max_size=40), max_size=5),
)
def test_what_is_legal_changes_no_byte(faults: list[str], writes: list[bytes]) -> None:
    made: Any = [one.make() for name in faults for one in parse(name)]
    sent = b""
    for number, data in enumerate(writes):
        place = Place("body" if number else "head", number)
        sent += b"".join(step for step in spoil(made, data, place) if isinstance(step, bytes))
    assert sent == b"".join(writes)


def test_a_stall_comes_once_after_its_tokens() -> None:
    stall = Stall(3, 9.0)
    assert steps(stall, b"x", Place("head", 0)) == [b"x"]
    assert steps(stall, b"x", Place("body", 2)) == [b"x"]
    assert steps(stall, b"x", BODY) == [Pause(9.0), b"x"]
    assert steps(stall, b"x", BODY) == [b"x"]


def test_an_answer_that_is_too_short_stalls_at_its_end() -> None:
    assert steps(Stall(100, 9.0), b"0\r\n\r\n", Place("end", 3)) == [Pause(9.0), b"0\r\n\r\n"]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (BreakOff(3), [Cut(reset=False)]),
        (BreakOff(3, reset=True), [Cut(reset=True)]),
        (BreakOff(3, within=True), [b"5\r\na", Cut(reset=False)]),
        (BreakOff(4), [b"5\r\nabcde"]),
        (BreakOff(math.inf), [b"5\r\nabcde"]),
    ],
)
def test_a_connection_breaks_off_after_its_tokens(fault: WireFault, expected: list[Any]) -> None:
    data = b"5\r\nabcde"
    assert steps(fault, data, BODY) == expected


def test_a_drip_has_its_rate() -> None:
    assert steps(Drip(40), b"abc", BODY) == [
        step for letter in (b"a", b"b", b"c") for step in (Pause(1 / 40), letter)
    ]
    fast = steps(Drip(1000), bytes(50), BODY)
    assert fast == [Pause(0.02), bytes(20), Pause(0.02), bytes(20), Pause(0.02), bytes(10)]


def test_bytes_may_leave_one_by_one() -> None:
    assert steps(OneByte(), b"abc", BODY) == [b"a", b"b", b"c"]


def test_a_head_may_be_late_and_wrong() -> None:
    late = steps(SlowHead(2), HEAD_OF, Place("head", 0))
    assert late == [Pause(2), HEAD_OF]
    assert steps(SlowHead(2), HEAD_OF, BODY) == [HEAD_OF]
    wrong = HEAD_OF.replace(b"text/event-stream", b"text/plain")
    assert steps(WrongType(), HEAD_OF, Place("head", 0)) == [wrong]


# Events: what becomes of chunks


def event(text: str, finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text} if text else {}}
    choice["finish_reason"] = finish_reason  # type: ignore[assignment]
    return b"data: " + json.dumps({"id": "a", "choices": [choice]}).encode() + b"\n\n"


STREAM = [event("one"), event("two"), event("three"), event("", "stop"), b"data: [DONE]\n\n"]
FOX = "\N{FOX FACE}".encode()


def spoiled(name: str, chunks: list[bytes]) -> list[bytes]:
    made: Any = [one.make() for one in parse(name)]
    sent: list[bytes] = []
    tokens = 0
    for one in chunks:
        sent += event_faults.spoil(made, one, tokens)
        tokens += bool(event_faults.text_of(one))
    return sent + list(event_faults.flush(made))


def test_an_event_breaks_off_after_its_tokens() -> None:
    sent = spoiled("bad-json;at=1", STREAM)
    assert sent[0] == STREAM[0]
    assert sent[1] == STREAM[1][: len(STREAM[1]) // 3] + b"\n\n"
    assert sent[2:] == STREAM[2:]


def test_a_short_answer_has_its_bad_event_before_the_end() -> None:
    sent = spoiled("bad-json;at=9", STREAM)
    assert [*sent[:4], sent[5]] == STREAM
    with pytest.raises(json.JSONDecodeError):
        json.loads(sent[4].removeprefix(b"data: "))


@pytest.mark.parametrize("at", [0, 1, 3, 9])
def test_a_letter_is_cut_by_chunks_and_whole_in_the_stream(at: int) -> None:
    sent = spoiled(f"character-cut;at={at}", STREAM)
    assert len(sent) == len(STREAM) + 2
    place = next(n for n, one in enumerate(sent) if one.endswith(FOX[:2]))
    assert b"".join(sent).count(FOX) == 1
    assert event_faults.text_of(sent[place] + sent[place + 1]) == FOX.decode()


def test_a_letter_is_broken_by_two_events() -> None:
    sent = spoiled("character-broken;at=2", STREAM)
    halves = [one for one in sent if one not in STREAM]
    assert [one.count(half) for one, half in zip(halves, (FOX[:2], FOX[2:]), strict=True)] == [1, 1]
    assert all(one.startswith(b"data: {") and one.endswith(b"\n\n") for one in halves)


def test_without_any_text_there_is_no_letter_to_cut() -> None:
    assert spoiled("character-cut", STREAM[3:]) == STREAM[3:]


@pytest.mark.parametrize(("count", "sizes"), [(2, [2, 2, 1]), (5, [5]), (9, [5])])
def test_events_are_collected(count: int, sizes: list[int]) -> None:
    sent = spoiled(f"coalesced;count={count}", STREAM)
    assert [one.count(b"data: ") for one in sent] == sizes
    assert b"".join(sent) == b"".join(STREAM)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("finish-missing", [*STREAM[:3], STREAM[4]]),
        ("done-missing", STREAM[:4]),
        ("bom", [b"\xef\xbb\xbf" + STREAM[0], *STREAM[1:]]),
        ("crlf", [one.replace(b"\n", b"\r\n") for one in STREAM]),
        (
            "heartbeat",
            [
                (b": ping\n\n" if number > 1 else b"") + b"id: %d\n" % number + one
                for number, one in enumerate(STREAM, 1)
            ],
        ),
        ("usage-missing", STREAM),
    ],
)
def test_what_servers_do_wrong(name: str, expected: list[bytes]) -> None:
    assert spoiled(name, STREAM) == expected


def test_the_role_is_repeated_with_each_text() -> None:
    sent = spoiled("role-repeated", STREAM)
    assert [one.count(b'"role":"assistant"') for one in sent] == [1, 1, 1, 0, 0]
    assert [event_faults.text_of(one) for one in sent[:3]] == ["one", "two", "three"]


def test_usage_is_dropped() -> None:
    usage = b'data: {"choices":[],"usage":{}}\n\n'
    assert spoiled("usage-missing", [usage, *STREAM]) == STREAM


@examples(30)
@given(st.binary())
def test_chunks_that_are_no_json_have_no_text(data: bytes) -> None:
    assert isinstance(event_faults.text_of(data), str)


# On a connection


def ask(spec: str, **fields: Any) -> bytes:
    return with_header(post("/v1/chat/completions", CHAT | {"max_tokens": 3} | fields), spec)


def with_header(request: bytes, fault: str) -> bytes:
    request = request.replace(b"Host: a\r\n", b"Host: localhost\r\n", 1)
    return request.replace(b"\r\n\r\n", f"\r\nX-Fault: {fault}\r\n\r\n".encode(), 1)


@pytest.fixture
def later() -> FakeLater:
    return FakeLater()


@pytest.fixture
def faults(later: FakeLater) -> Faults:
    return Faults(later)


@pytest.fixture
async def peer(tiny_model: Path, faults: Faults) -> Peer:
    return Peer(tiny_model, "abcdef", faults=faults)


BEGUN = [HEAD + CHUNKED, chat_event(1, ROLE), chat_event(1, said("a"))]


async def booked(peer: Peer) -> tuple[str, int]:
    """Return how the first request ended for the ledger, and how many tokens it delivered."""
    await peer.services.meter.settled()
    record = await peer.services.meter.ledger.get("chatcmpl-1")
    assert record is not None
    return record.finish_reason, record.delivered_tokens


async def test_a_stall_holds_the_next_token_back_until_its_time_is_over(
    peer: Peer, later: FakeLater
) -> None:
    peer.stream.feed(ask("stall;at=1;seconds=20"))
    await later.wait()
    assert (peer.stream.writes, later.pauses) == (BEGUN, [20])
    await later.ring()
    await peer.stream.wait_for(lambda stream: stream.sent.endswith(DONE))
    peer.stream.feed_eof()
    await peer.running
    assert await booked(peer) == ("length", 3)


async def stalled(peer: Peer, later: FakeLater) -> None:
    peer.stream.feed(ask("stall"))
    await later.wait()
    assert peer.stream.writes == BEGUN


async def test_a_stall_ends_when_the_client_closes_its_side(peer: Peer, later: FakeLater) -> None:
    await stalled(peer, later)
    peer.stream.feed_eof()
    await peer.running
    assert peer.stream.sent.endswith(DONE)  # a real client would be gone, and answer by a reset
    assert not later.is_set


async def test_a_stall_ends_when_the_connection_is_lost(peer: Peer, later: FakeLater) -> None:
    await stalled(peer, later)
    peer.stream.lose()
    await peer.running
    assert not later.is_set
    assert await booked(peer) == ("cancelled", 1)


async def test_a_stopping_server_holds_nothing_back(
    peer: Peer, faults: Faults, later: FakeLater
) -> None:
    await stalled(peer, later)
    faults.end()
    await peer.stream.wait_for(lambda stream: stream.sent.endswith(DONE))
    peer.stream.feed(ask("stall"))
    await peer.stream.wait_for(lambda stream: stream.sent.count(DONE) == 2)
    assert later.pauses == [3600]
    peer.stream.feed_eof()
    await peer.running


@pytest.mark.parametrize(
    ("fault", "last", "reset"),
    [
        ("reset;at=1", b"", True),
        ("close;at=1", b"", False),
        ("chunk-cut;at=1", None, False),
    ],
)
async def test_a_stream_that_breaks_off_is_booked_as_what_it_was(
    peer: Peer, fault: str, last: bytes | None, reset: bool
) -> None:
    peer.stream.feed(ask(fault))
    await peer.running
    following = chat_event(1, said("b"))
    cut = following[: len(following) // 2] if last is None else last
    assert peer.stream.sent == b"".join(BEGUN) + cut
    assert peer.stream.was_reset == reset
    assert await booked(peer) == ("cancelled", 1)


async def test_without_its_zero_chunk_a_stream_is_booked_as_complete(peer: Peer) -> None:
    peer.stream.feed(ask("close"))
    await peer.running
    assert peer.stream.sent.endswith(DONE.removesuffix(b"0\r\n\r\n"))
    assert await booked(peer) == ("length", 3)


@pytest.mark.parametrize(("at", "delivered"), [(0, 0), (1, 1), (2, 2)])
async def test_a_stream_fails_where_it_is_to(peer: Peer, at: int, delivered: int) -> None:
    peer.stream.feed(ask(f"error;at={at}"))
    peer.stream.feed_eof()
    await peer.running
    *texts, last, done = re.findall(rb"data: (.*)\n\n", peer.stream.sent)
    assert len(texts) == (1 + delivered if at else 0)
    assert (json.loads(last)["error"]["code"], done) == ("fault", b"[DONE]")
    assert peer.stream.sent.endswith(DONE)
    assert await booked(peer) == ("error", delivered)


async def test_a_stream_that_is_too_short_fails_at_its_end(peer: Peer) -> None:
    answer = await peer.converse(ask("error;at=9"))
    *_, end, last, done = re.findall(rb"data: (.*)\n\n", answer)
    assert b'"finish_reason":"length"' in end
    assert (json.loads(last)["error"]["code"], done) == ("fault", b"[DONE]")


@pytest.mark.parametrize(("at", "sent"), [(0, 0), (2, 2), (9, 3)])
async def test_the_engine_is_killed_once_after_its_tokens(
    tiny_model: Path, at: int, sent: int
) -> None:
    deaths: list[int] = []
    peer = Peer(
        tiny_model,
        "abcdef",
        faults=Faults(kill=lambda: deaths.append(peer.stream.sent.count(b'"content"') - 1)),
    )
    answer = await peer.converse(ask(f"engine-death;at={at}"))
    assert answer == await Peer(tiny_model, "abcdef").converse(ask(""))
    assert deaths == [sent]


async def test_an_engine_that_cannot_die_says_so(peer: Peer) -> None:
    answer = await peer.converse(ask("engine-death"))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"fault: engine-death needs --engine process" in answer


async def test_a_status_comes_instead_of_an_answer(peer: Peer) -> None:
    answer = await peer.converse(ask("status;code=429;retry_after=7"))
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b"\r\nRetry-After: 7\r\n" in answer
    assert peer.engine.requests == {}


async def test_a_fault_may_be_for_the_first_requests_only(peer: Peer) -> None:
    request = ask("status;times=2")
    other = ask("status;times=2", user="else")
    answer = await peer.converse(request + request + request + other)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"503", b"503", b"200", b"503"]


async def test_the_body_may_ask_too_and_its_field_is_not_ignored(peer: Peer) -> None:
    answer = await peer.converse(ask("close;at=2", fault="role-repeated", nonsense=1))
    assert answer.count(b'"role":"assistant"') == 3
    assert b"\r\nX-Ignored-Fields: nonsense\r\n" in answer
    assert not answer.endswith(DONE)


@pytest.mark.parametrize(
    ("fields", "fault", "words"),
    [
        ({"fault": 1}, "", "expected a string such as stall;at=5"),
        ({}, "stahl", "there is no fault 'stahl'; known are status, "),
        ({"fault": "stahl"}, "bom", "there is no fault 'stahl'; known are status, "),
        ({"stream": False}, "coalesced", "coalesced needs stream: true"),
        ({"stream": False}, "done-missing", "done-missing needs stream: true and text/event-st"),
    ],
)
async def test_what_would_do_nothing_is_refused(
    peer: Peer, fields: dict[str, Any], fault: str, words: str
) -> None:
    request = ask(fault, **fields) if fault else post("/v1/chat/completions", CHAT | fields)
    answer = await peer.converse(request)
    assert answer.startswith(b"HTTP/1.1 400 ")
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert words in error["message"]
    assert error["param"] == "fault"
    assert peer.engine.requests == {}


async def test_a_completion_has_no_role_to_repeat(peer: Peer) -> None:
    request = post("/v1/completions", {"prompt": "a", "stream": True})
    answer = await peer.converse(with_header(request, "role-repeated"))
    assert b"role-repeated needs a chat with stream: true" in answer


async def test_an_answer_as_a_whole_breaks_off_too(peer: Peer) -> None:
    peer.stream.feed(ask("chunk-cut;at=50", stream=False))
    await peer.running
    head, _, body = peer.stream.sent.partition(b"\r\n\r\n")
    length = int(re.findall(rb"Content-Length: (\d+)", head)[0])
    assert len(body) == length // 2


async def test_bare_text_counts_its_tokens(peer: Peer) -> None:
    request = ask("close;at=2").replace(b"\r\n\r\n", b"\r\nAccept: text/plain\r\n\r\n", 1)
    peer.stream.feed(request)
    await peer.running
    assert peer.stream.sent.endswith(chunk(b"a") + chunk(b"b"))


async def test_every_byte_may_leave_alone(tiny_model: Path, faults: Faults) -> None:
    plain = await Peer(tiny_model, "abcdef", faults=faults).converse(ask("bom;times=1"))
    single = Peer(tiny_model, "abcdef", faults=faults)
    answer = await single.converse(ask("one-byte,bom"))
    assert answer == plain
    assert {len(data) for data in single.stream.writes} == {1}


async def test_without_the_flag_nobody_listens(tiny_model: Path) -> None:
    fields = {"fault": "reset"}
    asked = await Peer(tiny_model, "abcdef").converse(ask("stahl", **fields))
    other = post("/v1/chat/completions", CHAT | {"max_tokens": 3} | {"fauxt": "reset"})
    assert asked == (await Peer(tiny_model, "abcdef").converse(other)).replace(b"fauxt", b"fault")
    assert b"\r\nX-Ignored-Fields: fault\r\n" in asked


# The doctor finds what is planted

RULES = {  # fault -> the rules of which the doctor says that they are broken; legal ones break none
    "status": ["status"],
    "error": ["stream-failed"],
    "role-repeated": ["role-repeated"],
    "finish-missing": ["finish-missing"],
    "usage-missing": ["usage-missing"],
    "bad-json": ["bad-json"],
    "done-missing": ["done-missing"],
    "character-broken": ["utf8-split"],
    "character-cut": ["event-split"],
    "heartbeat": ["heartbeat-after-id"],
    "bom": ["bom"],
    "crlf": ["carriage-return"],
    "coalesced": ["coalesced"],
    "content-type": ["content-type"],
    "chunk-cut": ["body-cut"],
    "close": ["zero-chunk"],
    "reset": ["zero-chunk", "done-missing", "finish-missing", "usage-missing"],
    "one-byte": [],
}
TIMED = {"slow-headers", "stall", "drip", "engine-death"}  # a pause is all there is to see


def test_the_doctor_is_asked_about_every_fault() -> None:
    assert RULES.keys() | TIMED == KINDS.keys()


def test_the_help_has_a_row_for_every_fault_with_its_parameters() -> None:
    text = help_page("faults")
    rows = re.findall(r"^\| `([a-z-]+)((?:;\w+=\d+)*)`.*\| (?:`([a-z0-9-]+)` )?\|$", text, re.M)
    assert [name for name, _, _ in rows] == list(KINDS)
    for name, numbers, rule in rows:
        defaults = {key: one.default for key, one in KINDS[name].parameters.items()}
        shown = {key: float(value) for key, value in re.findall(r"(\w+)=(\d+)", numbers)}
        assert shown == {key: value for key, value in defaults.items() if value != math.inf}
        assert [rule] == (RULES.get(name) or [""])[:1]


async def examined(fault: str, api: Api, listen: Callable[[Any, Clock], str]) -> Report:
    """Return what the doctor says where each request asks for `fault`."""

    async def handle(request: Request) -> Response:
        # the engine is done at once, and nothing is planted in what can be resumed
        if request.path.startswith(("/metrics", "/v1/usage", "/v1/generate", "/v1/responses")):
            return refuse(NotFound("not here"))
        return await api.handle(replace(request, headers=(*request.headers, ("x-fault", fault))))

    url = listen(SimpleNamespace(handle=handle), SystemClock())
    return await examine(url, target(url, "", 30.0))


@pytest.mark.parametrize("fault", RULES)
async def test_the_doctor_finds_a_fault(
    fault: str, tiny_model: Path, faults: Faults, listen: Callable[[Any, Clock], str]
) -> None:
    ids = Tokenizer(tiny_model).encode("The fox lit a lantern in Zurich.", special=False)
    api = Api(ROUTES)
    services = make_services(tiny_model, ScriptedEngine(ids), SystemClock(), faults=faults)
    api.open(services)
    report = await examined(fault, api, listen)
    assert [finding.rule for finding in report.findings] == RULES[fault]
    await services.meter.close()


# On a real server


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of which faults can be asked."""
    folder = write_model(tmp_path_factory.mktemp("model") / "tiny")
    config = ServeConfig(model=str(folder), port=0, ledger=":memory:", faults=True)
    with running_server(config) as running:
        yield running


def receive_all(connection: socket.socket) -> tuple[bytes, bool]:
    """Return what came, and whether a reset ended it."""
    data = b""
    try:
        while part := connection.recv(65536):
            data += part
    except ConnectionResetError:
        return data, True
    return data, False


@pytest.mark.parametrize("fault", ["reset;at=2", "close;at=2"])
def test_a_reset_is_one_on_the_wire(broken: RunningServer, fault: str) -> None:
    request = with_header(post("/v1/completions", STORY), fault)
    with socket.create_connection(broken.address) as connection:
        connection.sendall(request)
        data, was_reset = receive_all(connection)
    assert data.count(b"data: ") == 2
    assert was_reset == fault.startswith("reset")


STORY = {"prompt": "a", "stream": True, "max_tokens": 8, "ignore_eos": True, "seed": 1}


def test_openai_hears_of_a_cut(broken: RunningServer) -> None:
    client = openai.OpenAI(base_url=f"{broken.url}/v1", api_key="none", max_retries=0)
    stream = client.completions.create(
        model="tiny", prompt="a", stream=True, extra_headers={"X-Fault": "chunk-cut;at=1"}
    )
    # Older versions let the transport's own error through.
    with pytest.raises((openai.APIConnectionError, httpx.RemoteProtocolError)), stream:
        list(stream)


def test_openai_tries_again_when_it_is_to(broken: RunningServer) -> None:
    with openai.OpenAI(base_url=f"{broken.url}/v1", api_key="none", max_retries=1) as client:
        answer = client.completions.create(
            model="tiny",
            prompt="a",
            extra_headers={"X-Fault": "status;code=429;retry_after=0;times=1"},
        )
    assert answer.usage is not None


def test_a_stall_does_not_delay_the_end_of_the_server() -> None:
    with serving("--faults", "--drain-timeout", "50") as running:
        running.wait_for("--faults: whoever reaches this server may ask it for broken answers")
        body = {**STORY, "prompt": "Once upon", "temperature": 0}
        with socket.create_connection(("127.0.0.1", running.port)) as connection:
            connection.sendall(with_header(post("/v1/completions", body), "stall;at=3"))
            data = b""
            while data.count(b"data: ") < 3:
                more = connection.recv(65536)
                assert more, data
                data += more
            running.process.terminate()
            rest, _ = receive_all(connection)
        assert rest.endswith(DONE)
        assert running.process.wait(timeout=20) == 0


def test_streams_go_on_when_the_engine_is_killed_on_demand(tiny_model: Path) -> None:
    flags = ["--engine", "process", "--model", str(tiny_model)]
    body = STORY | {"max_tokens": 30, "n": 2, "stream_options": {"include_usage": True}}
    with fresh_server(flags, Models()) as running:

        def ask(**headers: str) -> list[bytes]:
            answer = running.raw(body, "/v1/completions", headers)
            return sorted(re.sub(rb"0{16,}[0-9]+", b"", answer).splitlines())  # choices interleave

        whole, death = ask(), running.fault("engine-death", at=9)
        assert ask(**death) == whole
        assert ask(**death) == whole  # without the pause before a second restart
        lines = httpx.get(f"{running.url}/metrics").text.splitlines()
    assert "streamtok_engine_restarts_total 2.0" in lines


def test_props_tell_that_faults_are_on(broken: RunningServer, server: RunningServer) -> None:
    assert httpx.get(f"{broken.url}/props").json()["faults"] is True
    assert httpx.get(f"{server.url}/props").json()["faults"] is False


def test_what_is_not_generated_does_not_go_wrong(broken: RunningServer) -> None:
    for path in ("/", "/health", "/v1/models"):
        assert httpx.get(broken.url + path, headers={"X-Fault": "reset;at=0"}).status_code == 200
