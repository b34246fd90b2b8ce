"""Rules on a stream that a client comes back to: the rest of it, and nothing else. No IO.

A client that was cut off names the last event it has, and is sent those after it. What each rule
looks at was asked by `streamtok.teach.doctor.resume`, which is to be read next.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import Struct

from streamtok.teach.doctor.eventstream import Stream
from streamtok.teach.doctor.recording import Answer, show
from streamtok.teach.doctor.rules import Rule, rule

NO_CONTENT = 204  # WHATWG HTML: an EventSource does not connect again


class Event(Struct, frozen=True):
    """An event with data: its id, if it has one, and what it says besides."""

    id: str | None
    says: Any


class Resumed(Struct, frozen=True):
    """What came when a client came back that has the first `position` of the events `whole`.

    `last` is the id that it named.
    """

    whole: Sequence[Event]
    position: int
    last: str
    answer: Answer
    events: Sequence[Event]

    @property
    def rest(self) -> Sequence[Event]:
        """What should have come."""
        return self.whole[self.position :]

    def __str__(self) -> str:
        return f"after {self.last}: {len(self.rest)} events expected, {len(self.events)} came"


def with_id_lines(stream: Stream) -> list[Event]:
    """Return a stream's events with the ids of their `id:` lines."""
    found = []
    for block in stream.events:
        ids = [value for name, value in block.fields if name == "id"]
        id_ = ids[-1].decode("utf-8", "replace") if ids else None
        found.append(Event(id_, block.data if block.value is None else block.value))
    return found


def with_numbers(stream: Stream) -> list[Event]:
    """Return a stream's events with their `sequence_number`, as OpenAI's responses have it."""
    found = []
    for block in stream.events:
        value = block.value if isinstance(block.value, dict) else {}
        number = value.get("sequence_number")
        id_ = None if number is None else json.dumps(number)
        says = {key: value[key] for key in value if key != "sequence_number"} or block.data
        found.append(Event(id_, says))
    return found


def _refused(resumed: Resumed) -> bool:
    nothing_left = not resumed.rest and resumed.answer.status == NO_CONTENT
    return resumed.answer.status != 200 and not nothing_left


def breach(resumed: Resumed) -> str:
    """Return the name of the one rule that is broken; empty if none is."""
    if _refused(resumed):
        return "resume-refused"
    whole, rest, came = (
        [event.says for event in events] for events in (resumed.whole, resumed.rest, resumed.events)
    )
    if came == rest:
        pairs = zip(resumed.events, resumed.rest, strict=True)
        return "resume-id" if any(new.id != old.id for new, old in pairs) else ""
    if came == whole:
        return "resume-ignored"
    if _is_in(came, rest):
        return "resume-loses"
    if _is_in(rest, came) and all(one in whole for one in came):
        return "resume-repeats"
    return "resume-differs"


def _is_in(some: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether `some` stand among `others`, in the same order."""
    left = iter(others)
    return all(one in left for one in some)


def _first_wrong(resumed: Resumed) -> str:
    for number, event in enumerate(resumed.events):
        if number >= len(resumed.rest) or event != resumed.rest[number]:
            return f"{resumed}; the first that is wrong: {event.id}: {_text(event.says)}"
    return f"{resumed}; the first that is missing: {resumed.rest[len(resumed.events)].id}"


def _text(says: Any) -> str:
    return show(says if isinstance(says, bytes) else json.dumps(says).encode())


HTML = "WHATWG HTML, server-sent events: Last-Event-ID; OpenAI API reference: starting_after"


@rule(
    "error",
    source=HTML,
    breaks="clients that come back: an EventSource gives up at any status but 200",
    fix="keep the answer for some time after its client has left, and continue to compute it",
)
def resume_refused(resumed: Resumed) -> Iterator[str]:
    """A stream that is said to be resumable can be resumed."""
    if breach(resumed) == "resume-refused":
        yield f"{resumed.answer.status}: {show(resumed.answer.body)}"


@rule(
    "error",
    source=HTML,
    breaks="clients that come back: they show the whole text a second time",
    fix="read Last-Event-ID (or starting_after), and begin with the event after it",
)
def resume_ignored(resumed: Resumed) -> Iterator[str]:
    """A resumed stream does not begin again from its start."""
    if breach(resumed) == "resume-ignored":
        yield str(resumed)


@rule(
    "error",
    source=HTML,
    breaks="clients that come back: text that they have already is appended again",
    fix="begin with the event after the one that the client names",
)
def resume_repeats(resumed: Resumed) -> Iterator[str]:
    """A resumed stream has no event twice."""
    if breach(resumed) == "resume-repeats":
        yield _first_wrong(resumed)


@rule(
    "error",
    source=HTML,
    breaks="clients that come back: their text has a hole that nobody sees",
    fix="keep events until they cannot be asked for any more; refuse what cannot be resumed",
)
def resume_loses(resumed: Resumed) -> Iterator[str]:
    """A resumed stream leaves no event out."""
    if breach(resumed) == "resume-loses":
        yield _first_wrong(resumed)


@rule(
    "error",
    source=HTML,
    breaks="clients that come back: the text is made of two different answers",
    fix="send the events that were made, not those of a second generation that may differ",
)
def resume_differs(resumed: Resumed) -> Iterator[str]:
    """A resumed stream has the events of the unbroken one."""
    if breach(resumed) == "resume-differs":
        yield _first_wrong(resumed)


@rule(
    "error",
    source=HTML,
    breaks="clients that are cut off a second time: they come back to the wrong place",
    fix="number the events of an answer, not those of a connection",
)
def resume_id(resumed: Resumed) -> Iterator[str]:
    """An event has the same id in a resumed stream."""
    if breach(resumed) == "resume-id":
        yield _first_wrong(resumed)


RULES: tuple[Rule[Resumed], ...] = (
    resume_refused,
    resume_ignored,
    resume_repeats,
    resume_loses,
    resume_differs,
    resume_id,
)


@rule(
    "error",
    source=HTML,
    breaks="clients that come back: the place they name is not one place",
    fix="give each event an id, and no two the same",
)
def resume_ids(whole: Sequence[Event]) -> Iterator[str]:
    """Each event of a resumable stream has an id of its own; the last may have none."""
    seen: set[str] = set()
    for number, event in enumerate(whole, 1):
        if event.id is None and number < len(whole):
            yield f"event {number} has no id: {_text(event.says)}"
        elif event.id in seen:
            yield f"event {number} has the id {event.id} again: {_text(event.says)}"
        seen |= {event.id} if event.id else set()


@rule(
    "error",
    source=HTML,
    breaks="clients that come back too late: they append another answer's text",
    fix="answer 404 for a stream that is unknown, over or another client's",
)
def resume_unknown(answer: Answer) -> Iterator[str]:
    """A stream that there is not is not resumed."""
    if not 400 <= answer.status < 500:
        yield f"{answer.status}: {show(answer.body)}"
