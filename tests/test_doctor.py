"""The doctor: a clean bill for our own server, and each planted fault found by its name alone."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from streamtok import cli
from streamtok.config import ServeConfig
from streamtok.errors import ConfigError
from streamtok.teach.doctor import chunks, events, framing, totals
from streamtok.teach.doctor import examine as doctor
from streamtok.teach.doctor.eventstream import read_stream
from streamtok.teach.doctor.examine import Report, examine, timing
from streamtok.teach.doctor.probe import Unreachable, target
from streamtok.teach.doctor.recording import Read, Recording, read_answer, show
from streamtok.testing import RunningServer, running_server

PIECES = ["The", " fox", " lit", " a", " lantern", " in", " Z\u00fcrich", " and", " smiled", "."]
HEAD = (
    b"HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 21:00:14 GMT\r\n"
    b"Content-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
END = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 5, "completion_tokens": 10, "total_tokens": 15}
Edit = Callable[[Any], Any]


def same(value: Any) -> Any:
    return value


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def part(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1795381214,
        "model": "canned",
        "choices": [choice],
    }


def parts(text: list[str], usage: bool) -> list[dict[str, Any]]:
    """Return the chunks of a flawless stream."""
    made = [part({"role": "assistant", "content": ""})]
    made += [part({"content": piece}) for piece in text]
    made.append(part({}, "stop"))
    if usage:
        made = [chunk | {"usage": None} for chunk in made]
        made.append(made[0] | {"choices": [], "usage": USAGE})
    return made


def cut_into_chunks(body: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(data), data) for data in body)


def whole(status: str, value: Any, headers: str = "") -> bytes:
    """Return an answer with a length."""
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 {status}\r\nDate: now\r\nContent-Type: application/json\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def refusal(status: str, headers: str = "") -> bytes:
    error = {"message": "no", "type": "invalid_request_error", "param": None, "code": None}
    return whole(status, {"error": error}, headers)


@dataclass(frozen=True)
class Canned:
    """A server of canned bytes with one fault: each field edits one step on the way to them."""

    parts: Edit = same  # the chunks as JSON values
    events: Edit = same  # the events, one item a chunk
    body: Edit = same  # the chunked body
    head: Edit = same
    refusal: Edit = same  # the answer to what is wrong
    stop: bool = True  # whether stop strings are known
    closes: bool = False  # after a stream
    paths: dict[str, bytes] = field(default_factory=dict)  # "METHOD path" -> answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer what comes on one connection."""
        with closing(writer):
            while line := await reader.readline():
                method, path, _ = line.decode().split()
                length = 0
                while (header := await reader.readline()) != b"\r\n":
                    if header.lower().startswith(b"content-length:"):
                        length = int(header.partition(b":")[2])
                body = json.loads(await reader.readexactly(length) or b"{}")
                writer.write(self.answer(method, path, body))
                if method == "POST" and self.closes:
                    return
                if body.get("max_tokens") == doctor.MANY_TOKENS and self.paths:
                    await reader.read()  # the stream is not over: wait until the client leaves
                    return

    def answer(self, method: str, path: str, body: dict[str, Any]) -> bytes:
        if canned := self.paths.get(f"{method} {path}"):
            return canned
        if path == "/v1/models":
            return whole("200 OK", {"object": "list", "data": [{"id": "canned"}]})
        if method != "POST":
            return refusal("404 Not Found")
        if not isinstance(body.get("messages"), list):
            return self.refusal(refusal("400 Bad Request"))
        if body.get("model") != "canned":
            return self.refusal(refusal("404 Not Found"))
        return self.stream(body)

    def stream(self, body: dict[str, Any]) -> bytes:
        text = PIECES
        if self.stop and "stop" in body:
            text = ["".join(PIECES).partition(body["stop"][0])[0]]
        values = self.parts(parts(text, "stream_options" in body))
        sent = self.events([*map(event, values), DONE])
        if body["max_tokens"] == doctor.MANY_TOKENS and self.paths:
            return HEAD + cut_into_chunks(sent[:3])
        return bytes(self.head(HEAD)) + bytes(self.body(cut_into_chunks(sent) + END))


@asynccontextmanager
async def canned_server(canned: Canned) -> AsyncIterator[str]:
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        with suppress(OSError, asyncio.IncompleteReadError):  # the doctor leaves without a word
            await canned.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.wait(tasks)


async def found(canned: Canned) -> Report:
    async with canned_server(canned) as url:
        return await examine(url, target(url, "", 30.0))


# Edits


def replace(old: bytes, new: bytes, count: int = 1) -> Edit:
    return lambda data: data.replace(old, new, count)


def insert(place: int, *more: Any) -> Edit:
    return lambda items: [*items[:place], *more, *items[place:]]


def drop(place: int) -> Edit:
    return lambda items: [item for n, item in enumerate(items) if n != place % len(items)]


def update(place: int, **changes: Any) -> Edit:
    """Change keys of one chunk."""

    def edit(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        changed = [dict(chunk) for chunk in chunks]
        changed[place] |= changes
        return changed

    return edit


def update_choice(place: int, **changes: Any) -> Edit:
    """Change keys of the choice of one chunk; `...` removes a key."""

    def edit(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        choice = chunks[place]["choices"][0] | changes
        kept = {key: value for key, value in choice.items() if value is not ...}
        return update(place, choices=[kept])(chunks)

    return edit


def with_usage(edit: Edit) -> Edit:
    """Edit only streams with usage."""
    return lambda chunks: edit(chunks) if "usage" in chunks[0] else chunks


def without(key: str, place: int) -> Edit:
    return lambda chunks: [
        {k: v for k, v in chunk.items() if n != place or k != key} for n, chunk in enumerate(chunks)
    ]


def raw_event(text: bytes) -> bytes:
    return event(part({"content": "X"}) | {"usage": None}).replace(b"X", text)


def is_end(chunk: dict[str, Any]) -> bool:
    return any(choice["finish_reason"] for choice in chunk["choices"])


def has_text(chunk: dict[str, Any]) -> bool:
    return any(choice["delta"].get("content") for choice in chunk["choices"])


HEARTBEAT = b": ping\n\n"
FULL_ERROR = {"error": {"message": "no", "type": "server_error", "param": None, "code": None}}
FAULTS = {
    # HTTP
    "head-syntax": Canned(head=replace(b"Date:", b"Server : x\r\nDate:")),
    "status": Canned(head=replace(b"200 OK", b"503 Service Unavailable")),
    "content-type": Canned(head=replace(b"text/event-stream", b"text/plain")),
    "charset": Canned(head=replace(b"event-stream", b"event-stream; charset=latin-1")),
    "content-encoding": Canned(head=replace(b"Date:", b"Content-Encoding: gzip\r\nDate:")),
    "length-and-chunked": Canned(head=replace(b"Date:", b"Content-Length: 9\r\nDate:")),
    "cache-control": Canned(head=replace(b"no-cache", b"max-age=60")),
    "date": Canned(head=replace(b"Date:", b"X-Date:")),
    "not-chunked": Canned(
        head=replace(b"Transfer-Encoding: chunked", b"Connection: close"),
        body=lambda body: read_answer(Recording((Read(0.0, HEAD + body),))).body,
        closes=True,
    ),
    "chunk-size": Canned(body=replace(b"e\r\ndata: [DONE]", b"0xe\r\ndata: [DONE]"), closes=True),
    "chunk-length": Canned(body=replace(b"e\r\ndata: [DONE]", b"c\r\ndata: [DONE]"), closes=True),
    "chunk-line-end": Canned(body=replace(b"e\r\ndata: [DONE]", b"e\ndata: [DONE]")),
    "body-cut": Canned(body=lambda body: body[: len(body) // 2], closes=True),
    "zero-chunk": Canned(body=lambda body: body.removesuffix(END), closes=True),
    "bytes-after-end": Canned(body=lambda body: body + b"\r\n"),
    # Server-sent events
    "bom": Canned(events=lambda items: [b"\xef\xbb\xbf" + items[0], *items[1:]]),
    "carriage-return": Canned(events=lambda items: [i.replace(b"\n", b"\r\n") for i in items]),
    "unknown-field": Canned(events=insert(1, b"hello\n\n")),
    "unfinished-event": Canned(events=lambda items: [*items[:-1], DONE[:-1]]),
    "event-without-data": Canned(events=insert(2, b"event: ping\n\n")),
    "retry-alone": Canned(events=insert(0, b"retry: 3000\n\n")),
    "heartbeat-after-id": Canned(
        events=lambda items: [b"id: 1\n" + items[0], HEARTBEAT, *items[1:]]
    ),
    "utf8-split": Canned(events=insert(1, raw_event(b"\xf0\x9f"), raw_event(b"\xa6\x8a"))),
    "utf8-invalid": Canned(events=insert(1, raw_event(b"Z\xfcrich"))),
    "replacement": Canned(events=insert(1, raw_event("\ufffd".encode()))),
    "coalesced": Canned(events=lambda items: [items[0], items[1] + items[2], *items[3:]]),
    "event-split": Canned(events=lambda items: [items[0][:30], items[0][30:], *items[1:]]),
    # OpenAI's events
    "bad-json": Canned(events=insert(1, b"data: {'id': 1}\n\n")),
    "done-missing": Canned(events=drop(-1)),
    "done-repeated": Canned(events=lambda items: [*items, DONE]),
    "done-not-last": Canned(events=lambda items: [*items[:-2], DONE, items[-2]]),
    "chunk-schema": Canned(parts=update(2, object="chat.completion")),
    "chunk-keys": Canned(parts=without("object", 2)),
    "id-changes": Canned(parts=update(2, id="chatcmpl-2")),
    "created-changes": Canned(parts=update(2, created=1795381215)),
    "model-changes": Canned(parts=update(2, model="other")),
    "role-missing": Canned(parts=drop(0)),
    "role-late": Canned(parts=lambda items: [items[1], items[0], *items[2:]]),
    "role-repeated": Canned(parts=insert(1, part({"role": "assistant"}) | {"usage": None})),
    "finish-key": Canned(parts=update_choice(1, finish_reason=...)),
    "finish-value": Canned(
        parts=lambda items: [
            part({}, "eos") | {"usage": None} if is_end(item) else item for item in items
        ]
    ),
    "finish-missing": Canned(parts=lambda items: [item for item in items if not is_end(item)]),
    "finish-repeated": Canned(
        parts=lambda items: [copy for item in items for copy in [item] * (1 + is_end(item))]
    ),
    "text-after-finish": Canned(
        parts=with_usage(lambda items: [*items[:-3], items[-2], items[-3], items[-1]])
    ),
    "no-text": Canned(parts=lambda items: [item for item in items if not has_text(item)]),
    "usage-missing": Canned(parts=with_usage(drop(-1))),
    "usage-unasked": Canned(
        parts=lambda items: items if "usage" in items[0] else update(-1, usage=USAGE)(items)
    ),
    "usage-sum": Canned(parts=with_usage(update(-1, usage=USAGE | {"total_tokens": 16}))),
    "usage-early": Canned(parts=with_usage(update(3, usage=USAGE))),
    "usage-null": Canned(parts=without("usage", 3)),
    "usage-choices": Canned(parts=with_usage(update(-1, choices=part({})["choices"]))),
    "error-event": Canned(parts=lambda items: [*items[:4], {"error": "out of memory"}]),
    "error-null": Canned(parts=update(1, error=None)),
    "stream-failed": Canned(parts=lambda items: [*items[:4], FULL_ERROR]),
    # More than one answer
    "keep-alive": Canned(closes=True),
    "stop-leak": Canned(stop=False),
    "error-status": Canned(refusal=replace(b"HTTP/1.1 400 Bad Request", b"HTTP/1.1 500 Error")),
    "error-under-200": Canned(refusal=lambda _: whole("200 OK", FULL_ERROR)),
    "error-shape": Canned(refusal=lambda _: whole("400 Bad Request", {"detail": "no"})),
    "error-keys": Canned(refusal=lambda _: whole("400 Bad Request", {"error": {"message": "no"}})),
    "error-type": Canned(refusal=replace(b"application/json", b"text/html")),
    "cors-on-answer": Canned(
        paths={
            "OPTIONS /v1/chat/completions": whole(
                "200 OK", {}, "Access-Control-Allow-Origin: *\r\n"
            )
        }
    ),
}


async def test_a_flawless_server_has_a_clean_bill() -> None:
    report = await found(Canned())
    assert report.findings == []
    assert report.model == "canned"
    assert report.timing is not None
    assert report.timing.events == len(PIECES)
    assert set(report.unchecked) == {"cancellation", "CORS", "resumption"}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_is_found_by_its_name_alone(name: str) -> None:
    report = await found(FAULTS[name])
    assert [(finding.rule, finding.seen) for finding in report.findings][1:] == []
    assert report.findings[0].rule == name
    finding = report.findings[0]
    assert all((finding.seen, finding.says, finding.source, finding.breaks, finding.fix))


async def test_a_missing_key_that_some_clients_tolerate_is_a_warning() -> None:
    for name in ("chunk-keys", "finish-key", "usage-null", "error-keys"):
        report = await found(FAULTS[name])
        assert report.findings[0].severity == "warning", name
        assert not report.failed
    for key in ("choices", "delta"):
        canned = Canned(parts=without(key, 2) if key == "choices" else update_choice(2, delta=...))
        report = await found(canned)
        assert "chunk-schema" in [finding.rule for finding in report.findings]
        assert report.failed


async def test_an_error_event_without_all_keys_has_a_warning_more() -> None:
    short = {"error": {"message": "out of memory"}}
    report = await found(Canned(parts=lambda items: [*items[:4], short]))
    assert [f.rule for f in report.findings] == ["error-event-keys", "stream-failed"]


async def test_an_unknown_model_that_answers_is_a_warning() -> None:
    canned = Canned(refusal=lambda data: HEAD + END if b"404" in data else data)
    report = await found(canned)
    assert [finding.rule for finding in report.findings] == ["unknown-model"]
    assert not report.failed


async def test_an_answer_that_is_no_stream_is_known_by_its_type() -> None:
    completion = {"object": "chat.completion", "choices": []}
    canned = Canned(
        head=lambda _: b"",
        body=lambda _: whole("200 OK", completion, "Cache-Control: no-store\r\n"),
    )
    names = [finding.rule for finding in (await found(canned)).findings]
    assert names == ["content-type", "known-length"]


@pytest.mark.parametrize(("reason", "rules"), [("length", ["cancelled"]), ("cancelled", [])])
async def test_the_ledger_says_whether_a_request_was_given_up(
    reason: str, rules: list[str]
) -> None:
    record = whole("200 OK", {"finish_reason": reason})
    report = await found(Canned(paths={"GET /v1/usage/chatcmpl-1": record}))
    assert [finding.rule for finding in report.findings] == rules
    assert "cancelled" in report.checked


class Gauges(dict[str, bytes]):
    """Paths of which `/metrics` shows one number of running requests after the other."""

    def __init__(self, *running: int) -> None:
        self._running = iter(running)

    def __bool__(self) -> bool:
        return True

    def get(self, path: str, default: Any = None) -> Any:
        if path != "GET /metrics":
            return default
        body = b'vllm:num_requests_running{model="canned"} %d\n' % next(self._running)
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize(
    ("running", "grace_s", "rules"),
    [((0, 1, 1, 0), 30.0, []), ((0, 1), 0.0, ["cancelled"]), ((2, 2), 0.0, [])],
)
async def test_metrics_show_whether_a_request_was_given_up(
    running: tuple[int, ...], grace_s: float, rules: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "GRACE_S", grace_s)
    monkeypatch.setattr(doctor, "LOOK_AGAIN_S", 0.0)
    report = await found(Canned(paths=Gauges(*running)))
    assert [finding.rule for finding in report.findings] == rules
    assert ("cancelled" in report.checked) == (running[0] < running[1])


# Recordings with times


def recording(times: list[float]) -> Recording:
    """Return a flawless stream of which the head comes at once and each event at its time."""
    items = [*map(event, parts(PIECES, usage=True)), DONE]
    pairs = zip(times, items, strict=True)
    reads = [Read(at_s, cut_into_chunks([item])) for at_s, item in pairs]
    return Recording((Read(0.0, HEAD), *reads, Read(times[-1], END)), "answered")


def breaches(one: Recording) -> list[str]:
    answer = read_answer(one)
    stream = read_stream(answer)
    names = [rule.name for rule in framing.RULES if list(rule.check(answer))]
    names += [rule.name for rule in events.RULES if list(rule.check(stream))]
    names += [rule.name for rule in chunks.RULES if list(rule.check(stream))]
    return names + [rule.name for rule in totals.RULES if list(rule.check(stream))]


def test_times_are_those_of_the_reads() -> None:
    seen = timing(read_stream(read_answer(recording([1.0 + n for n in range(14)]))))
    assert seen is not None
    assert (seen.first_token_s, seen.events) == (2.0, len(PIECES))
    assert seen.gaps_s == {"p50": 1.0, "p90": 1.0, "p99": 1.0, "max": 1.0}


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_reads_may_be_cut_anywhere(size: int) -> None:
    one = recording([0.0] * 14)
    raw = b"".join(read.data for read in one.reads)
    cut = [Read(0.0, raw[n : n + size]) for n in range(0, len(raw), size)]
    answer, other = read_answer(one), read_answer(Recording(tuple(cut), "answered"))
    assert (other.body, other.chunks, other.complete) == (answer.body, answer.chunks, True)
    assert read_stream(other).text == "".join(PIECES)


@pytest.mark.parametrize("data", [b"", b"\0", b"HTTP/1.1", b"SSH-2.0-x\r\n\r\n", b"\r\n\r\n"])
def test_what_is_not_http_is_named(data: bytes) -> None:
    answer = read_answer(Recording((Read(0.0, data),)))
    assert answer.status == 0
    assert [flaw.rule for flaw in answer.flaws] == ["head-syntax"]


def test_a_body_without_framing_that_ends_by_a_reset_is_cut() -> None:
    raw = HEAD.replace(b"Transfer-Encoding: chunked", b"Connection: close") + DONE
    answer = read_answer(Recording((Read(0.0, raw),), "reset"))
    assert [flaw.rule for flaw in answer.flaws] == ["body-cut"]


@pytest.mark.parametrize("value", [1, "x", None, [], [1], {"index": [], "delta": 1}])
def test_odd_values_in_a_chunk_are_breaches_and_no_crash(value: Any) -> None:
    odd = {"choices": value if isinstance(value, list) else [value], "id": value, "usage": value}
    raw = HEAD + cut_into_chunks([event(odd), DONE]) + END
    assert "chunk-schema" in breaches(Recording((Read(0.0, raw),), "answered"))


# Our own server, and the command


def test_our_own_server_has_a_clean_bill(
    server: RunningServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["doctor", server.url, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["findings"], report["failed"], report["model"]) == ([], False, "fireside")
    assert list(report["unchecked"]) == ["CORS"]
    assert {"cancelled", "stop-leak", "keep-alive", "resume-loses"} <= set(report["checked"])
    assert report["timing"]["events"] > 10


def test_our_own_server_with_heartbeats_and_cors_has_one_too() -> None:
    config = ServeConfig(port=0, ledger=":memory:", cors_origins="*", heartbeat_s=0.001)
    with running_server(config) as running:
        url = f"{running.url}/v1"
        report = asyncio.run(examine(url, target(url, "", 30.0)))
    assert (report.findings, report.unchecked) == ([], {})


async def test_a_report_for_people_names_what_was_seen(capsys: pytest.CaptureFixture[str]) -> None:
    async with canned_server(FAULTS["id-changes"]) as url:
        assert await asyncio.to_thread(cli.main, ["doctor", url]) == 1
    shown = capsys.readouterr().out
    assert "error id-changes" in shown
    assert '"chatcmpl-1", then "chatcmpl-2"' in shown
    assert "1 error, 0 warnings" in shown


def test_quotes_in_bytes_are_shown_as_they_are() -> None:
    assert show(b'it\'s "a\\"\xff\n') == r"""it's "a\\"\xff\n"""
    assert show(b"x" * 999).endswith("x ... (999 bytes)")


async def test_a_server_that_names_no_model_has_none_in_the_report(
    capsys: pytest.CaptureFixture[str],
) -> None:
    nameless = Canned(paths={"GET /v1/models": refusal("401 Unauthorized")})
    async with canned_server(nameless) as url:
        assert await asyncio.to_thread(cli.main, ["doctor", url]) == 1
    assert capsys.readouterr().out.startswith(f"{url}\n")


async def test_warnings_do_not_fail(capsys: pytest.CaptureFixture[str]) -> None:
    async with canned_server(FAULTS["date"]) as url:
        assert await asyncio.to_thread(cli.main, ["doctor", url, "--model", "canned"]) == 0
    assert "warning date" in capsys.readouterr().out


async def test_the_key_comes_from_the_variable_that_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-1")
    seen = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(refusal("401 Unauthorized"))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    assert await asyncio.to_thread(cli.main, ["doctor", url, "--key-env", "SOME_KEY"]) == 1
    server.close()
    assert all(b"\r\nAuthorization: Bearer sk-1\r\n" in head for head in seen)


def test_nobody_there(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert cli.main(["doctor", f"http://127.0.0.1:{port}"]) == 2
    assert "cannot be reached" in capsys.readouterr().err
    with pytest.raises(Unreachable):
        asyncio.run(examine("", target(f"http://127.0.0.1:{port}", "", 1.0)))


@pytest.mark.parametrize("url", ["localhost", "ftp://x", "http://", "http://x:y", "http://x:99999"])
def test_a_wrong_url_is_wrong_use(url: str) -> None:
    with pytest.raises(ConfigError):
        target(url, "", 1.0)
    assert cli.main(["doctor", url]) == 2


def test_a_variable_that_is_not_set_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "http://127.0.0.1:1", "--key-env", "NO_SUCH_KEY"]) == 2
    assert "NO_SUCH_KEY" in capsys.readouterr().err
