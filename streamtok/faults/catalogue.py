"""Faults on demand, for tests of clients: their names, and what can be said of each.

`stall;at=5` is a fault with a parameter; several stand with commas between them. They act in the
order of the table here, whatever the order they are asked for in.

What they do is in `streamtok.faults.events` (what a stream says) and `streamtok.faults.wire`
(the bytes on the wire). Read next: `streamtok.faults.inject`, which puts them into an answer.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from streamtok.errors import EngineFailed, InvalidRequest, RateLimited, RequestError, Unavailable
from streamtok.faults import events as event_faults
from streamtok.faults.events import Coalesce, Edit, EventFault, Fox, Identified, Once
from streamtok.faults.wire import BreakOff, Drip, OneByte, SlowHead, Stall, WireFault, WrongType

FIELD = "fault"


class Failure(Struct, frozen=True):
    """The stream fails after `at` tokens."""

    at: int


class EngineDeath(Struct, frozen=True):
    """The engine's process is killed after `at` tokens; the stream is to go on."""

    at: int


Made = RequestError | Failure | EngineDeath | EventFault | WireFault


class Parameter(Struct, frozen=True):
    """What may be said of a fault: a number from `least` to `most`, whole unless it `has_parts`.

    With `choices` it is one of those.
    """

    default: float | None
    least: float = 0
    most: float = 1_000_000
    has_parts: bool = False
    choices: tuple[int, ...] = ()


AT = Parameter(1)  # how many tokens come before it
TIMES = Parameter(None, least=1)  # every fault has it
SECONDS = Parameter(1, most=86_400, has_parts=True)


class Kind(Struct, frozen=True):
    """A fault as it can be asked for; `needs` is what there must be for it to spoil.

    One that acts `in_engine` can only be had in answers that this server's model computes.
    """

    make: Callable[..., Made]
    parameters: Mapping[str, Parameter]
    needs: Literal["", "stream", "events", "chat"] = ""
    in_engine: bool = False


def _refusal(code: int, retry_after: int) -> RequestError:
    message = "this status was asked for"
    if code == 429:
        return RateLimited(message, kind="requests", retry_after_s=retry_after)
    if code == 503:
        return Unavailable(message, retry_after_s=retry_after, code=FIELD)
    return EngineFailed(message, code=FIELD)


def _once(change: Callable[[bytes], Iterable[bytes]]) -> Callable[..., EventFault]:
    return partial(Once, change=change)


KINDS: Mapping[str, Kind] = {
    # before the answer
    "status": Kind(
        _refusal,
        {
            "code": Parameter(503, choices=(429, 500, 503)),
            "retry_after": Parameter(1, most=86_400),
        },
    ),
    # what the events say
    "error": Kind(Failure, {"at": AT}, "events", in_engine=True),
    "engine-death": Kind(EngineDeath, {"at": AT}, in_engine=True),
    "role-repeated": Kind(partial(Edit, event_faults.repeat_role), {}, "chat"),
    "finish-missing": Kind(partial(Edit, event_faults.drop_finish), {}, "events"),
    "usage-missing": Kind(partial(Edit, event_faults.drop_usage), {}, "events"),
    "bad-json": Kind(_once(event_faults.cut_json), {"at": AT}, "events"),
    "done-missing": Kind(partial(Edit, event_faults.drop_done), {}, "events"),
    # how they are written
    "character-broken": Kind(partial(Fox, send=event_faults.in_two_events), {"at": AT}, "events"),
    "character-cut": Kind(partial(Fox, send=event_faults.in_two_chunks), {"at": AT}, "events"),
    "heartbeat": Kind(Identified, {}, "events"),
    "bom": Kind(partial(Once, 0, event_faults.add_bom), {}, "events"),
    "crlf": Kind(partial(Edit, event_faults.end_lines_with_crlf), {}, "events"),
    "coalesced": Kind(Coalesce, {"count": Parameter(4, 2)}, "stream"),
    # the bytes on the wire
    "content-type": Kind(WrongType, {}),
    "slow-headers": Kind(SlowHead, {"seconds": SECONDS}),
    "stall": Kind(Stall, {"at": AT, "seconds": replace(SECONDS, default=3600)}),
    "chunk-cut": Kind(partial(BreakOff, within=True), {"at": AT}),
    "close": Kind(BreakOff, {"at": Parameter(math.inf)}, "stream"),
    "reset": Kind(partial(BreakOff, reset=True), {"at": AT}),
    "one-byte": Kind(OneByte, {}),
    "drip": Kind(Drip, {"bytes_per_s": Parameter(40, 1, has_parts=True)}),
}
NEEDS: Mapping[str, str] = {
    "stream": "stream: true",
    "events": "stream: true and text/event-stream, in a chat or completion of OpenAI's",
    "chat": "a chat with stream: true and text/event-stream",
}


class Wanted(Struct, frozen=True):
    """A fault that a request asks for; `times` says for how many requests like it."""

    name: str
    values: tuple[tuple[str, float | None], ...]
    times: float | None

    @property
    def is_death(self) -> bool:
        """Whether the engine's process is to be killed."""
        return KINDS[self.name].make is EngineDeath

    def make(self) -> Made:
        """Return the fault, fresh for one answer."""
        return KINDS[self.name].make(**dict(self.values))


def parse(text: str) -> list[Wanted]:
    """Return the faults that `text` names, in the order in which they act.

    Raises:
        InvalidRequest: it cannot be understood; says what was wrong and what is known.
    """
    wanted = [_parse_one(part.strip()) for part in text.split(",")]
    order = list(KINDS)
    return sorted(wanted, key=lambda one: order.index(one.name))


def _parse_one(text: str) -> Wanted:
    name, *settings = (part.strip() for part in text.split(";"))
    if name not in KINDS:
        raise wrong(f"there is no fault {name!r}; known are {', '.join(KINDS)}")
    known = {**KINDS[name].parameters, "times": TIMES}
    values = {key: parameter.default for key, parameter in known.items()}
    for setting in settings:
        key, _, number = (part.strip() for part in setting.partition("="))
        if key not in known:
            raise wrong(f"{name}: there is no {key!r}; known are {', '.join(known)}")
        values[key] = _number(f"{name};{key}", known[key], number)
    times = values.pop("times")
    return Wanted(name, tuple(values.items()), times)


def _number(what: str, parameter: Parameter, text: str) -> float:
    try:
        value = float(text) if parameter.has_parts else int(text)
    except ValueError:
        value = math.nan
    if parameter.choices and value not in parameter.choices:
        known = ", ".join(map(str, parameter.choices))
        raise wrong(f"{what}: expected one of {known}, found {text!r}")
    if not parameter.choices and not parameter.least <= value <= parameter.most:
        noun = "a number" if parameter.has_parts else "a whole number"
        limits = f"{parameter.least:g} to {parameter.most:.0f}"
        raise wrong(f"{what}: expected {noun} from {limits}, found {text!r}")
    return value


def wrong(message: str) -> InvalidRequest:
    """Return the error for a fault that cannot be had."""
    return InvalidRequest(f"{FIELD}: {message}", param=FIELD, code="invalid_value")
