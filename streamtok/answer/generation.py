"""Where a request meets the engine: ids in, answer events out, and every token accounted for.

The seven steps of a streamed response meet here: the request is validated (1) and its head sent (2)
by the callers, prompt ids go to the engine (3), every token comes back through the queue and leaves
as text at once (4, 5), ends in a finish reason (6), and is metered (7).

Knows no JSON and no endpoint.

Read next: `streamtok.messages`.
"""

import asyncio
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from streamtok import messages
from streamtok.answer import steps
from streamtok.answer.ask import Alarm, Ask, Timers
from streamtok.answer.choice import Choice
from streamtok.answer.events import (
    AnswerEvents,
    Began,
    ChoiceEvent,
    Ended,
    Failed,
    Heartbeat,
    Usage,
)
from streamtok.answer.meter import Meter
from streamtok.engine.base import Engine
from streamtok.errors import RequestError, Unavailable
from streamtok.messages import Event, Finished, PromptScored, TokenEvent, Waiting
from streamtok.text.detokenizer import Detokenizers

HEARTBEAT = Heartbeat()
GroupEvent = ChoiceEvent | Heartbeat


class Generation:
    """One request in the engine. `close` must be called in the end, whatever happened.

    With a heartbeat, a reader that waits for the first token gets an event each time its time is
    over; with a deadline, the request is cancelled at its time, which is an error.

    Raises:
        RateLimited: the caller has too many streams already.
        Unavailable: the engine has no room for it.
    """

    def __init__(
        self,
        ask: Ask,
        answer_id: str,
        engine: Engine,
        detokenizers: Detokenizers,
        meter: Meter,
        timers: Timers,
    ) -> None:
        self._ask = ask
        self.id = answer_id
        self._engine = engine
        self._meter = meter
        sequences = ask.sequences(engine.context)
        self._tally = meter.tally(ask, len(sequences))
        self._choices = [
            Choice(sequence, detokenizers, ask.rules, echo)
            for sequence, echo in zip(sequences, ask.echo_of_each, strict=True)
        ]
        self._unfinished = len(sequences)
        self._failed = self._expired = False
        self._settled: asyncio.Task[None] | None = None
        self.on_event: Callable[[], None] | None = None  # see EventQueue
        self.stream = engine.submit(answer_id, sequences)
        self._trace = ask.trace
        if self._trace is not None:
            self._trace.step("queue", **steps.describe(ask, answer_id, sequences))
        meter.limits.begin(ask.caller, len(sequences), ask.prompt_tokens)
        self._heartbeat = timers.heartbeat
        self._alarm: Alarm | None = None
        self._set_alarm()
        self._deadline = timers.deadline(self._expire) if timers.deadline else None

    @property
    def usage(self) -> Usage:
        """What it has cost so far."""
        return self._tally.usage

    async def started(self) -> bool:
        """Return True when the first sequence has left the queue, False at a heartbeat before.

        Raises:
            RequestError: it never will.
        """
        event = await anext(self.stream)
        self.read([event])
        return not isinstance(event, Waiting)

    async def events(self, *, started: bool, most: int) -> AnswerEvents:
        """Yield what happens; `started` says whether the first sequence has left the queue.

        A group is what `most` tokens make at most. They count as delivered when the next one is
        asked for. Before the last event the request is in the ledger. A RequestError that is thrown
        in ends the answer with `Failed`, as one of the engine's does.
        """
        head: Began | None = self._began()
        try:
            while not started:
                yield (HEARTBEAT,)
                started = await self.started()
            await self._meter.begin(self._tally.record(self.id, "lost"))
            yield (self._began(),)
            head = None
            if echoes := list(filter(None, (choice.begin() for choice in self._choices))):
                yield self._with_usage(echoes) if self._ask.running_usage else echoes
            self.stream.queue.on_event = self.on_event
            while self._unfinished:
                if made := self.read(await self.stream.group(most)):
                    yield made
                    self.deliver(made)
            self._tally.end()
            await asyncio.shield(self._settle())
            yield (Ended(self.usage),)
        except RequestError as error:
            self.close(failed=True)
            yield (Failed(error, head),)
        finally:
            self.close()

    def close(self, *, failed: bool = False) -> None:
        """Stop whatever of the request still runs, and account for it: as an error if `failed`."""
        if self._settled is None:
            self._failed = self._failed or failed
            self._tally.end()
            self._engine.cancel(self.id)
            self._settle()

    def summary(self) -> str:
        """Return id, tokens, time to first token and speed, for the access log."""
        return f"{self.id}, {self._tally.summary()}"

    def _began(self) -> Began:
        return Began(
            id=self.id,
            created=int(self._tally.created_s),
            model=self._ask.model,
            fingerprint=self._engine.fingerprint,
            choices=len(self._choices),
            usage=self._tally.usage,
        )

    def read(self, events: Sequence[Event | Waiting]) -> list[GroupEvent]:
        """Count the engine's `events`, tokens or one other; return what they make certain."""
        self._tally.tokens(events)
        made: list[GroupEvent] = []
        for event in events:
            if self._trace is not None:
                steps.record(self._trace, event)
            if type(event) is not TokenEvent:
                made += self._read_other(event)
                continue
            choice = self._choices[event.index]
            if choice.finish_reason is not None:
                continue  # it was cancelled at a stop string, and this token was on its way
            made += choice.feed(event)
            if choice.finish_reason is not None:
                self._end(choice)
                self._engine.cancel(self.id, event.index)
        return self._with_usage(made) if self._ask.running_usage else made

    def deliver(self, made: Sequence[GroupEvent]) -> None:
        """Count what was taken."""
        for event in made:
            self._tally.delivered += event.count

    def _read_other(self, event: Event | Waiting) -> Sequence[GroupEvent]:
        """Do the same for any other event.

        Raises:
            RequestError: the engine could not go on, or not in the time there is.
        """
        if isinstance(event, Waiting):
            self._set_alarm()
            return (HEARTBEAT,)
        self._tally.event(event)
        if isinstance(event, messages.Failed):
            self._failed = True
            raise event.error
        choice = self._choices[event.index]
        if not isinstance(event, Finished):
            return choice.score(event) if isinstance(event, PromptScored) else ()
        if self._expired and event.reason == "cancelled":
            raise Unavailable(
                "the request took longer than this server allows", code="request_timeout"
            )
        if choice.finish_reason is not None:
            return ()
        made = choice.finish(event)
        self._end(choice)
        return made

    def _end(self, choice: Choice) -> None:
        self._unfinished -= 1
        if self._trace is not None:
            self._trace.step("end", index=choice.index, reason=choice.finish_reason)

    def _with_usage(self, made: Sequence[GroupEvent]) -> list[GroupEvent]:
        """Return what is yielded next, each event with the usage up to it."""
        usage, shown = self._tally.usage, []
        for event in made:
            completion = usage.completion_tokens + event.count
            usage = replace(usage, completion_tokens=completion)
            shown.append(event if isinstance(event, Heartbeat) else replace(event, usage=usage))
        return shown

    def _expire(self) -> None:
        self._expired = True
        self._engine.cancel(self.id)

    def _set_alarm(self) -> None:
        """Have a heartbeat come while there is no token yet, or no engine that computes."""
        if self._heartbeat:
            self._alarm = self._heartbeat(self._ring)

    def _ring(self) -> None:
        if self._tally.has_token and self._engine.ready:
            self._set_alarm()
        else:
            self.stream.nudge()

    def _settle(self) -> asyncio.Task[None]:
        if self._settled is None:
            self.stream.queue.on_event = None
            for timer in filter(None, (self._alarm, self._deadline)):
                timer.cancel()
            self._settled = self._meter.settle(self._record())
        return self._settled

    async def _record(self) -> None:
        """Wait until the engine has confirmed every sequence's end, then write the row."""
        async for event in self.stream:
            self._tally.event(event)
            self._failed = self._failed or isinstance(event, messages.Failed)
        reasons = [choice.finish_reason for choice in self._choices]
        failed = self._failed or self._expired
        reason = "error" if failed else "cancelled" if None in reasons else str(reasons[0])
        record = self._tally.record(self.id, reason)
        self._meter.limits.end(self._ask.caller, len(reasons), record.generated_tokens)
        await self._meter.record(record)
