"""The doctor's rules, applied to what passes through the proxy; a report at the end.

Each rule counts once, with what was seen first and in how many answers. Answers that are not
streams of chat completions are judged by their framing alone.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console

from streamtok.clock import Clock
from streamtok.http.request import Request
from streamtok.teach.doctor import chunks, events, framing, totals
from streamtok.teach.doctor.eventstream import read_stream
from streamtok.teach.doctor.examine import Report
from streamtok.teach.doctor.recording import AnswerReader, Read
from streamtok.teach.doctor.report import render

ANY_ANSWER = (  # what holds for every answer, streamed or not
    framing.head_syntax,
    framing.length_and_chunked,
    framing.chunk_size,
    framing.chunk_length,
    framing.chunk_line_end,
    framing.body_cut,
    framing.zero_chunk,
    framing.bytes_after_end,
)


class Judge:
    """Collects what is wrong with the answers of the server at `url`."""

    def __init__(self, url: str, clock: Clock) -> None:
        self.report = Report(url)
        self.answers = 0
        self._clock = clock

    def begin(self, request: Request) -> "Verdict":
        """Return what judges the answer to `request`."""
        return Verdict(self, request, self._clock.monotonic_s)

    def show(self, console: Console, put_in: Mapping[str, int]) -> None:
        """Print the report, and which faults were put in here, how often.

        Those are not the server's, and come after what the rules see.
        """
        render(self.report, console)
        plural = "" if self.answers == 1 else "s"
        console.print(f"[dim]{self.answers} answer{plural} passed through[/]")
        if put_in:
            counts = ", ".join(f"{name} ({count})" for name, count in put_in.items())
            console.print(f"faults put in by this proxy, not by the server: {counts}")


class Verdict:
    """Reads one answer as it comes, and judges it at its end."""

    def __init__(self, judge: Judge, request: Request, now_s: Callable[[], float]) -> None:
        self._judge = judge
        self._request = request
        self._now_s = now_s
        self._started_s = now_s()
        self._reader = AnswerReader()

    def read(self, data: bytes) -> None:
        """Take what one read gave."""
        self._reader.feed(Read(self._now_s() - self._started_s, data))

    def end(self) -> None:
        """Judge the answer, which the server has ended in one way or another."""
        answer = self._reader.answer("closed")
        self._judge.answers += 1
        report, name = self._judge.report, f"{self._request.method} {self._request.target}"
        asked = json_object(self._request.body)
        if not asked.get("stream") or not self._request.path.endswith("/chat/completions"):
            report.apply(ANY_ANSWER, answer, name)
            return
        report.apply(framing.RULES, answer, name)
        if answer.readable and answer.status == 200 and not answer.header("content-encoding"):
            stream = read_stream(answer, bool(asked.get("stream_options")))
            report.apply(events.RULES, stream, name)
            report.apply((*chunks.RULES, *totals.RULES), stream, name)


def json_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in `body`; an empty one where there is none."""
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
