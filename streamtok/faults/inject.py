"""Puts the faults that a request asks for into its answer.

A request asks in the header `X-Fault` or in the body's field `fault`. Both mean something only on a
server that was started with `--faults`: without it there is no `Faults`, and nobody looks.

Read next: `streamtok.faults.catalogue`, what can be asked for.
"""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from weakref import WeakSet

from msgspec.structs import replace

from streamtok.answer.ask import Ask
from streamtok.answer.events import AnswerEvents, ChoiceEvent, Echo, Ended, Failed, TextDelta
from streamtok.api.input import validation
from streamtok.api.openai.chat import CHAT
from streamtok.errors import EngineFailed, RequestError
from streamtok.faults import events as event_faults
from streamtok.faults.catalogue import (
    FIELD,
    KINDS,
    NEEDS,
    EngineDeath,
    Failure,
    Made,
    Wanted,
    parse,
    wrong,
)
from streamtok.faults.events import EventFault
from streamtok.faults.wire import FaultyOutput, Later, WireFault
from streamtok.http.framings import EVENT_STREAM, PLAIN_TEXT, Framing
from streamtok.http.request import Request
from streamtok.http.response import Body, Output, Response, chunks_of
from streamtok.http.transport import ByteStream

HEADER = "x-fault"
MakeOutput = Callable[[ByteStream, list[WireFault], Callable[[], float]], Output]
Kill = Callable[[], None]
CANNOT_DIE = "needs --engine process: another engine cannot be killed on demand"
SCRIPTED = "needs an answer of the model's: a script answers this one"


class Faults:
    """Hears what requests ask for. After `end`, nothing is held up any more.

    `later` is the timer for pauses; without it, the event loop's. `kill` ends the engine's process,
    where it has one. Unless it `listens`, requests may not ask. `put_in` counts by name what was.
    """

    def __init__(
        self, later: Later | None = None, *, kill: Kill | None = None, listens: bool = True
    ) -> None:
        self.field = FIELD if listens else ""
        self.put_in: Counter[str] = Counter()
        self._later = later
        self._kill = kill
        self._seen: Counter[tuple[Wanted, int]] = Counter()
        self._outputs: WeakSet[FaultyOutput] = WeakSet()
        self._ended = False

    def plan(self, request: Request, framing: Framing | None, ask: Ask) -> "Plan | None":
        """See `streamtok.api.services.FaultInjector.plan`."""
        return self._plan(request, framing, ask, "", CANNOT_DIE if self._kill is None else "")

    def plan_scripted(
        self, request: Request, framing: Framing | None, ask: Ask, also: str
    ) -> "Plan | None":
        """Do the same for an answer of a script, with which `also` is to go wrong."""
        return self._plan(request, framing, ask, also, SCRIPTED)

    def plan_for(self, request: Request, *, is_stream: bool, is_chat: bool) -> "Plan | None":
        """Return what is to go wrong with another server's answer, as the header asks.

        Raises:
            InvalidRequest: the header asks for what there is not, or for a fault in the engine.
            RequestError: it asks for this error.
        """
        if not (text := request.header(HEADER)):
            return None
        wanted = parse(text)
        for one in wanted:
            if KINDS[one.name].in_engine:
                raise wrong(f"{one.name} acts in the engine, and so on this server's answers only")
        return self._made(wanted, request, EVENT_STREAM if is_stream else None, is_chat)

    def _plan(
        self, request: Request, framing: Framing | None, ask: Ask, also: str, immortal: str
    ) -> "Plan | None":
        """Plan what is asked for; `immortal` is why the engine cannot be killed, if it cannot."""
        asked_for = _asked_for(request) if self.field else None
        if not (text := ", ".join(filter(None, (also, asked_for)))):
            return None
        wanted = parse(text)
        for one in wanted:
            if one.is_death and immortal:
                raise wrong(f"{one.name} {immortal}")
        return self._made(wanted, request, framing, ask.surface.id_prefix == CHAT.id_prefix)

    def _made(
        self, wanted: list[Wanted], request: Request, framing: Framing | None, is_chat: bool
    ) -> "Plan":
        for one in wanted:
            _check_needs(one.name, framing, is_chat)
        due = [one for one in wanted if self._is_due(one, request)]
        self.put_in.update(one.name for one in due)
        made = [one.make() for one in due]
        for fault in made:
            if isinstance(fault, RequestError):
                raise fault
        return Plan(made, self._output, self._kill, is_text=framing is PLAIN_TEXT)

    def end(self) -> None:
        """Hurry on all that is held up: the server is stopping."""
        self._ended = True
        for output in list(self._outputs):
            output.hurry()

    def _is_due(self, wanted: Wanted, request: Request) -> bool:
        if wanted.times is None:
            return True
        key = (wanted, hash((request.target, request.body)))
        self._seen[key] += 1
        return self._seen[key] <= wanted.times

    def _output(
        self, stream: ByteStream, faults: list[WireFault], tokens: Callable[[], float]
    ) -> Output:
        later = self._later or asyncio.get_running_loop().call_later
        output = FaultyOutput(stream, faults, tokens, later)
        self._outputs.add(output)
        if self._ended:
            output.hurry()
        return output


class Plan:
    """What is to go wrong with one answer; `is_text` where its chunks are bare text."""

    def __init__(
        self, faults: list[Made], make_output: MakeOutput, kill: Kill | None, *, is_text: bool
    ) -> None:
        self._failures = [fault.at for fault in faults if isinstance(fault, Failure)]
        self._deaths = [fault.at for fault in faults if isinstance(fault, EngineDeath)]
        self._events = [fault for fault in faults if isinstance(fault, EventFault)]
        self._wire = [fault for fault in faults if isinstance(fault, WireFault)]
        self._make_output = make_output
        self._kill = kill
        self._is_text = is_text
        self._tokens = 0

    def events(self, events: AnswerEvents) -> AnswerEvents:
        """See `Interceptor.events`."""
        if self._failures:
            events = self._failing(events)
        if self._kill is not None:
            for at in self._deaths:
                events = _killing(events, at, self._kill)
        return events

    def response(self, response: Response) -> Response:
        """See `Interceptor.response`."""
        if isinstance(response.body, bytes):
            return replace(response, output=self._output(lambda: math.inf))
        chunks = self._spoiled(response.body)
        return replace(response, body=chunks, output=self._output(lambda: self._tokens))

    def _output(self, tokens: Callable[[], float]) -> Callable[[ByteStream], Output]:
        return lambda stream: self._make_output(stream, self._wire, tokens)

    async def _failing(self, events: AnswerEvents) -> AnswerEvents:
        """Yield the groups up to where the stream is to fail, and then how it does.

        A group must be made of one token at most.
        """
        tokens, at = 0, min(self._failures)
        async with aclosing(events):
            async for group in events:
                error = EngineFailed("this error was asked for", code=FIELD)
                if tokens >= at:
                    yield await events.athrow(error)
                    return
                yield group
                if isinstance(group[-1], Ended):  # it is too late for the answer itself to fail
                    yield (Failed(error),)
                tokens += any(isinstance(e, Echo | TextDelta) and e.text for e in group)

    async def _spoiled(self, body: Body) -> AsyncGenerator[bytes, None]:
        """Yield the chunks with faults in them, and count their tokens."""
        async with aclosing(body):
            async for item in body:
                for chunk in chunks_of(item):
                    before = self._tokens
                    self._tokens += self._is_text or bool(event_faults.text_of(chunk))
                    for spoiled in event_faults.spoil(self._events, chunk, before):
                        yield spoiled
        for rest in event_faults.flush(self._events):
            yield rest


async def _killing(events: AnswerEvents, at: int, kill: Kill) -> AnswerEvents:
    """Yield the groups, and kill the engine once `at` tokens have been sent, or before the end."""
    tokens, is_due = 0, True
    async with aclosing(events):
        async for group in events:
            if is_due and isinstance(group[-1], Ended):
                kill()
            yield group
            tokens += sum(event.count for event in group if isinstance(event, ChoiceEvent))
            if is_due and tokens >= at:
                is_due = False
                kill()


def _asked_for(request: Request) -> str:
    """Return what the request asks for: in its header, in its body, or in both."""
    field = validation.read_object(request.body).get(FIELD) if request.method == "POST" else None
    if not isinstance(field, str | None):
        raise wrong("expected a string such as stall;at=5")
    return ", ".join(filter(None, (request.header(HEADER), field)))


def _check_needs(name: str, framing: Framing | None, is_chat: bool) -> None:
    """Refuse a fault that would do nothing."""
    has_events = framing is EVENT_STREAM
    met = {
        "": True,
        "stream": framing is not None,
        "events": has_events,
        "chat": has_events and is_chat,
    }
    if not met[KINDS[name].needs]:
        raise wrong(f"{name} needs {NEEDS[KINDS[name].needs]}")
