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
from dataclasses import replace
from weakref import WeakSet

from streamtok.answer.ask import Ask
from streamtok.answer.events import AnswerEvents, Echo, Ended, Failed, TextDelta
from streamtok.api.input import validation
from streamtok.api.openai.chat import CHAT
from streamtok.errors import EngineFailed, RequestError
from streamtok.faults import events as event_faults
from streamtok.faults.catalogue import FIELD, KINDS, NEEDS, Failure, Made, Wanted, parse, wrong
from streamtok.faults.events import EventFault
from streamtok.faults.wire import FaultyOutput, Later, WireFault
from streamtok.http.framings import EVENT_STREAM, PLAIN_TEXT, Framing
from streamtok.http.request import Request
from streamtok.http.response import Body, Output, Response, chunks_of
from streamtok.http.transport import ByteStream

HEADER = "x-fault"
MakeOutput = Callable[[ByteStream, list[WireFault], Callable[[], float]], Output]


class Faults:
    """Hears what requests ask for. After `end`, nothing is held up any more.

    `later` is the timer for pauses; without it, the event loop's. Unless it `listens`, requests
    may not ask.
    """

    def __init__(self, later: Later | None = None, *, listens: bool = True) -> None:
        self.field = FIELD if listens else ""
        self._later = later
        self._seen: Counter[tuple[Wanted, int]] = Counter()
        self._outputs: WeakSet[FaultyOutput] = WeakSet()
        self._ended = False

    def plan(
        self, request: Request, framing: Framing | None, ask: Ask, also: str | None = None
    ) -> "Plan | None":
        """See `streamtok.api.services.FaultInjector.plan`; `also` is what is to go wrong anyway."""
        asked_for = _asked_for(request) if self.field else None
        if not (text := ", ".join(filter(None, (also, asked_for)))):
            return None
        return self._plan(text, request, framing, ask.surface.id_prefix == CHAT.id_prefix)

    def plan_for(self, request: Request, *, is_stream: bool, is_chat: bool) -> "Plan | None":
        """Return what is to go wrong with another server's answer, as the header asks.

        Raises:
            InvalidRequest: the header asks for what there is not, or for an error from the engine.
            RequestError: it asks for this error.
        """
        if not (text := request.header(HEADER)):
            return None
        plan = self._plan(text, request, EVENT_STREAM if is_stream else None, is_chat)
        if plan.fails:
            raise wrong("error acts in the engine, and so on this server's own answers only")
        return plan

    def _plan(self, text: str, request: Request, framing: Framing | None, is_chat: bool) -> "Plan":
        wanted = parse(text)
        for one in wanted:
            _check_needs(one.name, framing, is_chat)
        made = [one.make() for one in wanted if self._is_due(one, request)]
        for fault in made:
            if isinstance(fault, RequestError):
                raise fault
        return Plan(made, self._output, framing is PLAIN_TEXT)

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

    def __init__(self, faults: list[Made], make_output: MakeOutput, is_text: bool) -> None:
        self._failures = [fault.at for fault in faults if isinstance(fault, Failure)]
        self._events = [fault for fault in faults if isinstance(fault, EventFault)]
        self._wire = [fault for fault in faults if isinstance(fault, WireFault)]
        self._make_output = make_output
        self._is_text = is_text
        self._tokens = 0

    @property
    def fails(self) -> bool:
        """Whether the answer itself is to fail."""
        return bool(self._failures)

    def events(self, events: AnswerEvents) -> AnswerEvents:
        """See `Interceptor.events`."""
        return self._failing(events) if self._failures else events

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
