"""`streamtok doctor`: asks a server what clients ask, and applies the rules to what it answers.

Each examination is one small conversation. What a server does not offer is not held against it: it
is listed as not checked, with the reason. Read next: `streamtok.teach.doctor.report`, which shows
it all.
"""

import asyncio
import json
import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any, TypeVar
from urllib.parse import quote

from msgspec import Struct, field

from streamtok.http.request import HeaderList
from streamtok.teach.doctor import behaviour, chunks, events, framing, pace, resume, totals
from streamtok.teach.doctor.behaviour import Leaving, Stopped
from streamtok.teach.doctor.events import REPLACEMENT
from streamtok.teach.doctor.eventstream import Stream, read_stream
from streamtok.teach.doctor.pace import Pace
from streamtok.teach.doctor.probe import CHAT, Probe, Target, connect
from streamtok.teach.doctor.recording import Answer
from streamtok.teach.doctor.rules import Finding, Rule, findings

Seen = TypeVar("Seen")

PROMPT = "Write three short sentences about a fox in Z\u00fcrich, with an emoji \U0001f98a in each."
LONG_PROMPT = "Write a very long story about a fox and a lantern."
NO_MODEL = "streamtok-doctor-no-such-model"
ORIGIN = "https://doctor.example"
MAX_TOKENS = 48
MANY_TOKENS = 1000
GRACE_S = 5.0  # how long a server may take to see that its client left
LOOK_AGAIN_S = 0.1
RUNNING = re.compile(  # gauges of what is running: streamtok's, vLLM's, llama.cpp's, TGI's
    r"^(?:streamtok_running_streams|vllm:num_requests_running|llamacpp:requests_processing|"
    r"tgi_batch_current_size)(?:\{[^}]*\})? ([0-9.e+]+)$",
    re.MULTILINE,
)


class Timing(Struct, frozen=True):
    """When text came, in seconds: the first since the request, then the gaps between events."""

    first_token_s: float
    gaps_s: dict[str, float]  # percentiles: p50, p90, p99, max
    events: int


class Report(Struct):
    """What was found at `url`; `unchecked` is what could not be asked, and why."""

    url: str
    model: str | None = None
    findings: list[Finding] = field(default_factory=list)
    unchecked: dict[str, str] = field(default_factory=dict)
    checked: list[str] = field(default_factory=list)
    timing: Timing | None = None

    @property
    def failed(self) -> bool:
        """Whether something is wrong that breaks clients."""
        return any(finding.severity == "error" for finding in self.findings)

    def apply(self, rules: Iterable[Rule[Seen]], seen: Seen, probe: str) -> None:
        """Add what `rules` find, once for each rule: what two probes see is one fault."""
        rules = list(rules)
        known = {finding.rule for finding in self.findings}
        self.findings += [f for f in findings(rules, seen, probe) if f.rule not in known]
        self.checked += [rule.name for rule in rules if rule.name not in self.checked]


async def examine(url: str, where: Target, model: str | None = None) -> Report:
    """Return what is found at a server.

    Raises:
        Unreachable: nobody listens there.
    """
    return await _Doctor(where, Report(url, model)).examine()


async def ask_pace(
    where: Target, make_body: Callable[..., dict[str, Any]], headers: HeaderList = ()
) -> Pace:
    """Ask the same for one token and for many. The first request warms the server up."""
    streams = []
    for max_tokens in (1, 1, MAX_TOKENS):
        async with connect(where) as probe:
            streams.append(await probe.stream(make_body(max_tokens=max_tokens), headers=headers))
    return Pace(*streams[1:])


async def compare(direct: Target, via: Target, model: str | None = None) -> tuple[Pace, Pace]:
    """Ask the same of a server directly and through what stands before it.

    Raises:
        Unreachable: nobody listens at one of them.
    """
    doctors = [_Doctor(where, Report(where.authority, model)) for where in (direct, via)]
    first, second = [await doctor.pace() for doctor in doctors]
    return first, second


def timing(stream: Stream) -> Timing | None:
    """Return when text came; None if none did."""
    times = [block.at_s for block in stream.spoken]
    if not times:
        return None
    gaps = sorted(after - before for before, after in pairwise(times))
    ranks = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    percentiles = {name: gaps[int(rank * (len(gaps) - 1))] for name, rank in ranks.items() if gaps}
    return Timing(times[0], percentiles, len(times))


class _Doctor:
    """The examinations, in order; each adds to the report."""

    def __init__(self, where: Target, report: Report) -> None:
        self._target = where
        self._report = report

    async def examine(self) -> Report:
        report = self._report
        if report.model is None:
            report.model = await self._first_model()
        stream = await self._stream()
        if stream.answer.status == 200 and stream.chunks:
            await self._plain_stream()
            await self._pace()
            await self._stop(stream)
            await self._leave(stream)
            await resume.examine(self._target, report, report.model)
        else:
            report.unchecked["stop strings, cancellation, resumption"] = "there was no stream"
        await self._errors()
        await self._cors()
        return report

    async def pace(self) -> Pace:
        """Return when the text of a short and of a long answer comes."""
        if self._report.model is None:
            self._report.model = await self._first_model()
        return await ask_pace(self._target, self._body)

    def _body(self, **fields: Any) -> dict[str, Any]:
        """Return a request; what is None is left out."""
        body = {
            "model": self._report.model,
            "messages": [{"role": "user", "content": PROMPT}],
            "stream": True,
            "temperature": 0,
            "max_tokens": MAX_TOKENS,
            **fields,
        }
        return {name: value for name, value in body.items() if value is not None}

    async def _first_model(self) -> str | None:
        """Return the first model that the server says it has."""
        async with connect(self._target) as probe:
            answer = await probe.get("/v1/models")
        try:
            return str(json.loads(answer.body)["data"][0]["id"])
        except (ValueError, LookupError, TypeError):
            self._report.unchecked["models"] = "GET /v1/models names none; requests name none"
            return None

    # One stream

    async def _stream(self) -> Stream:
        """Look at one stream closely, and then at its connection."""
        body = self._body(stream_options={"include_usage": True})
        async with connect(self._target) as probe:
            stream = await probe.stream(body)
            self._judge(stream, "stream")
            await self._keep_alive(probe, stream.answer)
        self._report.timing = timing(stream)
        return stream

    def _judge(self, stream: Stream, name: str) -> None:
        """Apply the rules on one stream; where the framing is broken its events mean nothing."""
        answer = stream.answer
        self._report.apply(framing.RULES, answer, name)
        if not answer.readable or answer.header("content-encoding"):
            self._report.unchecked[f"events ({name})"] = "the body cannot be read"
        elif answer.status != 200 or answer.body.lstrip().startswith(b"{"):
            self._report.unchecked[f"events ({name})"] = "the answer is not a stream"
        else:
            self._report.apply(events.RULES, stream, name)
            self._report.apply((*chunks.RULES, *totals.RULES), stream, name)

    async def _keep_alive(self, probe: Probe, answer: Answer) -> None:
        closes = "close" in (answer.header("connection") or "").lower()
        if not answer.complete or answer.flaws or closes or answer.ended == "closed":
            self._report.unchecked["keep-alive"] = "the answer ends with its connection"
            return
        second = await probe.get("/v1/models")
        came = second if second.status or second.ended == "silent" else None
        self._report.apply([behaviour.keep_alive], came, "keep-alive")

    async def _plain_stream(self) -> None:
        """The same without usage."""
        async with connect(self._target) as probe:
            self._judge(await probe.stream(self._body(max_tokens=4)), "stream without usage")

    # More than one stream

    async def _pace(self) -> None:
        """Ask for one token and for many, also as a client that takes gzip does."""
        seen = await ask_pace(self._target, self._body)
        if pace.is_held_back(seen):  # a busy machine looks like a buffer, but not twice
            seen = await ask_pace(self._target, self._body)
        self._report.apply(pace.RULES, seen, "pace")
        zipped = await ask_pace(self._target, self._body, (("Accept-Encoding", "gzip"),))
        if not zipped.long.answer.header("content-encoding"):
            return
        unzipped = (pace.decompressed(one.answer) for one in (zipped.short, zipped.long))
        answers = [answer for answer in unzipped if answer is not None]
        if len(answers) == 2:
            self._report.apply(pace.RULES, Pace(*map(read_stream, answers)), "pace with gzip")
        else:
            self._report.unchecked["pace with gzip"] = "the body cannot be read"

    async def _stop(self, whole: Stream) -> None:
        """Ask the same again, to stop at a string from the middle of the answer."""
        middle = len(whole.text) // 2
        stop = whole.text[middle - 3 : middle + 3]
        if len(whole.text) < 16 or not stop.strip() or REPLACEMENT in stop:
            self._report.unchecked["stop strings"] = "there is no fit one in the answer"
            return
        async with connect(self._target) as probe:
            stream = await probe.stream(self._body(stop=[stop]))
        if stop not in stream.text and not whole.text.startswith(stream.text):
            self._report.unchecked["stop strings"] = "the same request gave another answer"
            return
        self._report.apply([behaviour.stop_leak], Stopped(stop, stream), "stop string")

    async def _leave(self, before: Stream) -> None:
        """Leave a long stream after its first words, and see what the server makes of it."""
        booked = await self._usage(before)
        running = None if booked else await self._running()
        body = self._body(
            max_tokens=MANY_TOKENS, messages=[{"role": "user", "content": LONG_PROMPT}]
        )
        async with connect(self._target) as probe:
            stream = await probe.stream(body, lambda stream: bool(stream.spoken))
            begun = None if running is None else await self._running()
        if stream.answer.complete or not stream.chunks:
            self._report.unchecked["cancellation"] = "the stream was over at once"
        elif booked:
            self._report.apply([behaviour.cancelled], await self._booked(stream), "leaving")
        elif running is not None and begun is not None and begun > running:
            self._report.apply([behaviour.cancelled], await self._fallen(running), "leaving")
        else:
            self._report.unchecked["cancellation"] = "neither /v1/usage nor /metrics shows it"

    async def _booked(self, stream: Stream) -> Leaving:
        """Return how the ledger says that `stream` ended."""
        deadline_s = asyncio.get_running_loop().time() + GRACE_S
        while asyncio.get_running_loop().time() < deadline_s:
            if record := await self._usage(stream):
                reason = record["finish_reason"]
                return Leaving(reason == "cancelled", f"finish_reason: {reason}")
            await asyncio.sleep(LOOK_AGAIN_S)
        return Leaving(False, f"{GRACE_S:g} s later it was not over")

    async def _fallen(self, idle: float) -> Leaving:
        """Return whether the number of running requests falls to what it was."""
        deadline_s = asyncio.get_running_loop().time() + GRACE_S
        while asyncio.get_running_loop().time() < deadline_s:
            running = await self._running()
            if running is not None and running <= idle:
                return Leaving(True, f"{running:g} running")
            await asyncio.sleep(LOOK_AGAIN_S)
        return Leaving(False, f"{GRACE_S:g} s later it still ran")

    async def _usage(self, stream: Stream) -> dict[str, Any] | None:
        """Return the ledger's record of a stream, where the server keeps one."""
        async with connect(self._target) as probe:
            answer = await probe.get(f"/v1/usage/{quote(str(stream.chunks[0].get('id')), safe='')}")
        try:
            record = json.loads(answer.body)
        except ValueError:
            return None
        known = isinstance(record, dict) and answer.status == 200 and "finish_reason" in record
        return record if known else None

    async def _running(self) -> float | None:
        """Return how many requests run, from the metrics."""
        async with connect(self._target) as probe:
            answer = await probe.get("/metrics")
        counts = RUNNING.findall(answer.body.decode("utf-8", "replace"))
        return sum(float(count) for count in counts) if counts else None

    # Refusals

    async def _errors(self) -> None:
        """Ask for what is wrong, and for a model that is not there."""
        wrong = (
            ("messages of a wrong type", self._body(messages="a string")),
            ("no messages", self._body(messages=None)),
        )
        for name, body in wrong:
            async with connect(self._target) as probe:
                self._report.apply(behaviour.ERRORS, await probe.post(body), name)
        async with connect(self._target) as probe:
            answer = await probe.post(self._body(model=NO_MODEL, max_tokens=1))
        self._report.apply(behaviour.UNKNOWN, answer, "unknown model")

    async def _cors(self) -> None:
        """Ask as a browser does for a page of another origin."""
        asks = (
            ("Origin", ORIGIN),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "authorization, content-type"),
        )
        async with connect(self._target) as probe:
            preflight = await probe.ask("OPTIONS", CHAT, headers=asks)
        if preflight.header("access-control-allow-origin") is None:
            self._report.unchecked["CORS"] = f"the preflight does not allow {ORIGIN}"
            return
        answers = []
        for body in (self._body(max_tokens=1), self._body(messages="a string")):
            async with connect(self._target) as probe:
                answers.append(await probe.post(body, (("Origin", ORIGIN),)))
        self._report.apply([behaviour.cors_on_answer], answers, "CORS")
