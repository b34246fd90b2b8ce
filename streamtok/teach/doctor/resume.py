"""Asks for streams that can be resumed, leaves them, and comes back, in every way that is offered.

There are three ways: `X-Resumable: 1`, which is streamtok's; a browser's EventSource on a GET; and
OpenAI's responses in the background. Read next: `streamtok.teach.doctor.resumption`, the rules.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol, TypeVar
from urllib.parse import quote, urlencode

from msgspec import Struct

from streamtok.teach.doctor.eventstream import Stream
from streamtok.teach.doctor.probe import CHAT, Request, Target, connect
from streamtok.teach.doctor.recording import Answer
from streamtok.teach.doctor.resumption import (
    RULES,
    Event,
    Resumed,
    breach,
    resume_ids,
    resume_unknown,
    with_id_lines,
    with_numbers,
)
from streamtok.teach.doctor.rules import Rule

TOKENS = 16
FEW = 3  # events after which a client leaves
NO_ID = "streamtok-doctor-no-such-stream"
RESPONSES = "/v1/responses"
PROMPT = "Write one short sentence about a fox."
OFF = ("", "0", "false")
Seen = TypeVar("Seen")


class Report(Protocol):
    """Where findings go: see `streamtok.teach.doctor.examine.Report`."""

    unchecked: dict[str, str]

    def apply(self, rules: Sequence[Rule[Seen]], seen: Seen, probe: str) -> None:
        """Add what `rules` find."""


class Way(Struct, frozen=True):
    """One way to resume: how a stream is asked for, and how its rest is.

    `key` finds what the stream is called, None where the server does not offer this way; `again`
    makes a request of that name and of the id of an event. Where a stream's name is in the path,
    `has_name`.
    """

    name: str
    ask: Request
    key: Callable[[Stream], str | None]
    again: Callable[[str, str], Request]
    events: Callable[[Stream], list[Event]] = with_id_lines
    has_name: bool = True


async def examine(where: Target, report: Report, model: str | None) -> None:
    """Add to `report` what is found of the ways that are offered."""
    missing = [way.name for way in ways(model) if not await _Examination(where, report, way).run()]
    if missing:
        report.unchecked["resumption"] = f"not offered: {', '.join(missing)}"


def ways(model: str | None) -> Sequence[Way]:
    """Return all ways, as they are asked of a server that has `model`."""
    named = {"model": model} if model else {}
    common = {**named, "temperature": 0, "stream": True}
    messages = [{"role": "user", "content": PROMPT}]
    chat = {**common, "messages": messages, "max_tokens": TOKENS}
    link = {**named, "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0}
    source = f"/v1/generate?{urlencode(link)}"
    background = {**common, "input": PROMPT, "max_output_tokens": TOKENS, "background": True}
    return (
        Way(
            "X-Resumable",
            ("POST", CHAT, chat, (("X-Resumable", "1"),)),
            _stream_id,
            lambda key, last: (
                *("GET", f"/v1/streams/{quote(key, safe='')}", None),
                (("Last-Event-ID", last),),
            ),
        ),
        Way(
            "EventSource on GET /v1/generate",
            ("GET", source, None, ()),
            lambda stream: source if any(event.id for event in with_id_lines(stream)) else None,
            lambda _, last: ("GET", source, None, (("Last-Event-ID", last),)),
            has_name=False,
        ),
        Way(
            "background responses",
            ("POST", RESPONSES, background, ()),
            _response_id,
            lambda key, last: (
                "GET",
                f"{RESPONSES}/{quote(key, safe='')}?stream=true&starting_after={last}",
                None,
                (),
            ),
            events=with_numbers,
        ),
    )


def _stream_id(stream: Stream) -> str | None:
    """Return what the head calls the stream, if it says that it can be resumed."""
    offered = (stream.answer.header("x-resumable") or "").lower() not in OFF
    return stream.answer.header("x-stream-id") if offered else None


def _response_id(stream: Stream) -> str | None:
    """Return the id of the response in the first event, if it is in the background."""
    with suppress(LookupError, TypeError):
        response = stream.chunks[0]["response"]
        return str(response["id"]) if response["background"] is True else None
    return None


class _Examination:
    """One way of one server."""

    def __init__(self, where: Target, report: Report, way: Way) -> None:
        self._where = where
        self._report = report
        self._way = way

    async def run(self) -> bool:
        """Examine it; return whether it is offered."""
        way, report = self._way, self._report
        stream = await self._read(way.ask)
        key = way.key(stream) if stream.answer.status == 200 else None
        if key is None:
            return False
        whole = way.events(stream)
        report.apply([resume_ids], whole, way.name)
        named = [number for number, event in enumerate(whole, 1) if event.id is not None]
        if len(whole) <= FEW or not named:
            report.unchecked[f"resumption ({way.name})"] = "the stream was too short"
            return True
        for position in (named[len(named) // 2], named[0], named[-2], named[-1]):
            if not await self._rest(key, whole, position):
                break
        else:  # no break
            await self._leave()
        if way.has_name:
            unknown = await self._ask(way.again(NO_ID, "0"))
            report.apply([resume_unknown], unknown, way.name)
        await self._forget(key)
        return True

    async def _leave(self) -> None:
        """Leave a stream after its first events, and come back to where it was left.

        The whole of it is what comes to a client that has the first event only.
        """
        way = self._way
        stream = await self._read(way.ask, lambda stream: len(stream.events) >= FEW)
        key, begun = way.key(stream), way.events(stream)
        first, last = begun[0].id, begun[-1].id
        if key is None or first is None or last is None:
            return  # the stream before was of another kind
        rest = await self._read(way.again(key, last))
        all_others = await self._read(way.again(key, first))
        if all_others.answer.status != 200:
            self._is_right(Resumed(begun, 1, first, all_others.answer, ()))
            return
        whole = [begun[0], *way.events(all_others)]
        if self._is_right(Resumed(whole, len(begun), last, rest.answer, way.events(rest))):
            known = [*begun, *way.events(rest)]
            self._is_right(Resumed(known, 1, first, all_others.answer, whole[1:]))
        await self._forget(key)

    async def _rest(self, key: str, whole: Sequence[Event], position: int) -> bool:
        """Come back to a stream, and return whether what comes is right."""
        last = whole[position - 1].id
        assert last is not None
        stream = await self._read(self._way.again(key, last))
        return self._is_right(
            Resumed(whole, position, last, stream.answer, self._way.events(stream))
        )

    def _is_right(self, resumed: Resumed) -> bool:
        self._report.apply(RULES, resumed, self._way.name)
        return not breach(resumed)

    async def _forget(self, key: str) -> None:
        """Delete what the server keeps of a response."""
        if self._way.events is with_numbers:
            await self._ask(("DELETE", f"{RESPONSES}/{quote(key, safe='')}", None, ()))

    async def _read(
        self, request: Request, enough: Callable[[Stream], bool] | None = None
    ) -> Stream:
        async with connect(self._where) as probe:
            return await probe.read(request, enough)

    async def _ask(self, request: Request) -> Answer:
        async with connect(self._where) as probe:
            return await probe.ask(*request)
