"""The doctor comes back to streams: each planted fault of a server is found by its name alone."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from test_doctor import DONE, HEAD, PIECES, cut_into_chunks, event, part, refusal, whole

from streamtok.teach.doctor import resume
from streamtok.teach.doctor.examine import Report
from streamtok.teach.doctor.probe import target

NAMES = ("X-Resumable", "EventSource on GET /v1/generate", "background responses")
Events = list[bytes]


def chat_events() -> Events:
    said = [event(part({"content": piece})) for piece in PIECES]
    return [event(part({"role": "assistant", "content": ""})), *said, event(part({}, "stop")), DONE]


def response_events() -> Events:
    values: list[dict[str, Any]] = [
        {"type": "response.created", "response": {"id": "resp_1", "background": True}},
        *({"type": "response.output_text.delta", "delta": piece} for piece in PIECES),
        {"type": "response.completed", "response": {"id": "resp_1", "background": True}},
    ]
    return [event(value | {"sequence_number": n}) for n, value in enumerate(values)]


@dataclass
class Resuming:
    """A server whose streams can be resumed in one `way`; `come_back` sends what is wrong.

    It is given all events, and how many of them the client has. A second stream waits after some
    events, until its client leaves.
    """

    way: str
    come_back: Callable[[Events, int], Events] = lambda events, position: events[position:]
    begin: Callable[[Events], Events] = lambda events: events
    unknown: bytes = refusal("404 Not Found")
    refuses: bool = False
    asks: int = 0
    begun: int = 0  # streams

    def answer(self, method: str, target: str, headers: dict[str, str], body: Any) -> bytes:
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        self.asks += 1
        last = headers.get("last-event-id", "")
        if resume.NO_ID in path:
            return self.unknown
        if self.way == NAMES[2]:
            if "background" in body:
                self.begun += 1
                return self.stream(self.begin(response_events()))
            if path == "/v1/responses/resp_1" and method == "GET":
                after = int(query["starting_after"][0])
                return self.rest(response_events(), after + 1)
            return refusal("404 Not Found")
        events = self.begin([b"id: s/%d\n" % n + one for n, one in enumerate(chat_events(), 1)])
        offered = headers.get("x-resumable") == "1", path == "/v1/generate"
        if last and path == ("/v1/streams/s", "/v1/generate")[NAMES.index(self.way)]:
            return self.rest(events, int(last.removeprefix("s/")))
        if offered[NAMES.index(self.way)]:
            self.begun += 1
            return self.stream(events, b"X-Resumable: 1\r\nX-Stream-Id: s\r\n")
        return refusal("404 Not Found")

    def rest(self, events: Events, position: int) -> bytes:
        if self.refuses:
            return refusal("410 Gone")
        return self.stream(self.come_back(events, position))

    def stream(self, events: Sequence[bytes], more: bytes = b"") -> bytes:
        head = HEAD.removesuffix(b"\r\n") + more + b"\r\n"
        return head + cut_into_chunks(list(events)) + b"0\r\n\r\n"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = [line.partition(": ") for line in head[1:]]
        headers = {name.lower(): value for name, _, value in fields}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        method, target, _ = head[0].split()
        before = self.begun
        answer = self.answer(method, target, headers, json.loads(body or b"{}"))
        if before < self.begun == 2:
            events = answer.split(b"\n\n\r\n")
            answer = b"\n\n\r\n".join([*events[: resume.FEW], b""])
            writer.write(answer)
            await reader.read()
        else:
            writer.write(answer)
        writer.close()


async def found(server: Resuming) -> Report:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    async with listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        report = Report(url)
        await resume.examine(target(url, "", 30.0), report, "canned")
    return report


def others(way: str) -> str:
    return f"not offered: {', '.join(name for name in NAMES if name != way)}"


@pytest.mark.parametrize("way", NAMES)
async def test_streams_that_go_on_where_they_were_are_right(way: str) -> None:
    server = Resuming(way)
    report = await found(server)
    assert report.findings == []
    assert report.unchecked == {"resumption": others(way)}
    assert (server.begun, server.asks > 8) == (2, True)


async def test_a_server_without_ids_is_not_blamed() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Stream a chat whatever is asked, as a server does that knows no such header or field."""
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + cut_into_chunks(chat_events()) + b"0\r\n\r\n")
        writer.close()

    server = Resuming("")
    server.serve = serve  # type: ignore[method-assign]
    report = await found(server)
    assert report.findings == []
    assert report.checked == []
    assert report.unchecked == {"resumption": f"not offered: {', '.join(NAMES)}"}


def said_twice(events: Events, position: int) -> Events:
    return events[max(position - 1, 0) :]


def one_lost(events: Events, position: int) -> Events:
    return events[position + 1 :]


def one_lost_further_on(events: Events, position: int) -> Events:
    return [*events[position : position + 2], *events[position + 3 :]]


def from_the_start(events: Events, position: int) -> Events:
    return events


def other_words(events: Events, position: int) -> Events:
    return [one.replace(b" lantern", b" candle") for one in events[position:]]


WRONG = {
    "resume-repeats": said_twice,
    "resume-loses": one_lost,
    "resume-loses further on": one_lost_further_on,
    "resume-ignored": from_the_start,
    "resume-differs": other_words,
}


@pytest.mark.parametrize("way", NAMES)
@pytest.mark.parametrize("name", WRONG)
async def test_a_fault_is_found_by_its_name_alone(name: str, way: str) -> None:
    report = await found(Resuming(way, WRONG[name]))
    assert [finding.rule for finding in report.findings] == [name.split()[0]]
    assert report.findings[0].probe == way
    assert " events expected, " in report.findings[0].seen


@pytest.mark.parametrize("way", NAMES)
async def test_a_stream_that_cannot_be_resumed_at_all(way: str) -> None:
    report = await found(Resuming(way, refuses=True))
    assert [finding.rule for finding in report.findings] == ["resume-refused"]


@pytest.mark.parametrize("way", NAMES[:2])
async def test_ids_are_those_of_the_answer_and_not_of_the_connection(way: str) -> None:
    def renumbered(events: Events, position: int) -> Events:
        rest = [one.partition(b"\n")[2] for one in events[position:]]
        return [b"id: s/%d\n" % number + one for number, one in enumerate(rest, 1)]

    assert [f.rule for f in (await found(Resuming(way, renumbered))).findings] == ["resume-id"]


async def test_each_event_has_an_id_of_its_own() -> None:
    def again(events: Events) -> Events:
        return [*events[:4], b"id: s/4\n" + events[4].partition(b"\n")[2], *events[5:]]

    report = await found(Resuming(NAMES[0], begin=again))
    assert "resume-ids" in [finding.rule for finding in report.findings]

    def none(events: Events) -> Events:
        return [*events[:4], events[4].partition(b"\n")[2], *events[5:]]

    report = await found(Resuming(NAMES[0], begin=none))
    assert [finding.rule for finding in report.findings] == ["resume-ids"]


@pytest.mark.parametrize("way", [NAMES[0], NAMES[2]])
async def test_an_unknown_stream_is_not_another_one(way: str) -> None:
    report = await found(Resuming(way, unknown=whole("200 OK", {})))
    assert [finding.rule for finding in report.findings] == ["resume-unknown"]


async def test_a_server_may_lose_only_what_came_while_nobody_read() -> None:
    server = Resuming(NAMES[0])

    def hole(events: Events, position: int) -> Events:
        left = server.begun == 2
        return events[position + 2 if left and position >= resume.FEW else position :]

    server.come_back = hole
    report = await found(server)
    assert [finding.rule for finding in report.findings] == ["resume-loses"]
