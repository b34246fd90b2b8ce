"""Where a request meets the engine: ids in, pieces of text out, and every token accounted for.

The seven steps of a streamed response meet here: the request is validated (1) and its head sent (2)
by the callers, prompt ids go to the engine (3), every token comes back through the queue and leaves
as a piece of text at once (4, 5), ends in a finish reason (6), and is metered (7).

Knows no JSON and no endpoint. Read next: `streamtok.answer.choice`, where ids become text.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Protocol

from streamtok.answer import steps
from streamtok.answer.choice import Choice, Piece, TextRules
from streamtok.answer.meter import Meter
from streamtok.engine.base import ENDS, Engine
from streamtok.errors import Unavailable
from streamtok.http.tracer import Trace
from streamtok.ledger import UsageRecord
from streamtok.messages import (
    Event,
    Failed,
    Finished,
    Prefilled,
    PromptScored,
    SequenceRequest,
    Started,
    TokenEvent,
    Waiting,
)
from streamtok.text.detokenizer import Detokenizers


@dataclass(frozen=True, slots=True)
class Job:
    """A validated request, as the engine and the ledger need it.

    `key` is the name of the API key it came with, empty where none is needed; `caller` is whose
    limits it counts for; `choices` is how many sequences there are of each prompt, side by side.
    `echoes` has the text that each sequence is to begin with, or nothing; `trace` hears of what
    becomes of it, where there is one.
    """

    id: str
    endpoint: str
    model: str
    key: str
    caller: str
    stream: bool
    prompt_tokens: int
    sequences: tuple[SequenceRequest, ...]
    rules: TextRules
    echoes: tuple[str, ...]
    choices: int = 1
    trace: Trace | None = None


class Alarm(Protocol):
    """What a timer has set."""

    def cancel(self) -> None:
        """Do not ring."""


Timer = Callable[[Callable[[], None]], Alarm]  # calls what it is given when its time is over


@dataclass(frozen=True, slots=True)
class Timers:
    """What is to happen by the clock: signs of life, and the end of what takes too long."""

    heartbeat: Timer | None = None
    deadline: Timer | None = None


class Generation:
    """One request in the engine, its answer piece by piece.

    `close` must be called in the end, whatever happened.

    With a heartbeat, whoever waits for the first token hears each time its time is over; with a
    deadline, the request is cancelled at its time, which is an error.

    Raises:
        RateLimited: the caller has too many streams already.
        Unavailable: the engine has no room for it.
    """

    def __init__(
        self,
        job: Job,
        engine: Engine,
        detokenizers: Detokenizers,
        meter: Meter,
        timers: Timers,
    ) -> None:
        self.job = job
        self.completion_tokens = 0  # as the client is told; what came after a stop string is not in
        self.cached_tokens = 0  # of the prompts; the choices of one prompt count once
        self._engine = engine
        self._meter = meter
        self._created_s = meter.clock.wall_s()
        self._begun_s = meter.clock.monotonic_s()
        self._ended_s: float | None = None
        self._started_s: float | None = None  # when the first sequence left the queue
        self._prefilled_s: float | None = None
        self._first_token_s: float | None = None
        self._last_token_s = [0.0] * len(job.sequences)
        self._generated = [0] * len(job.sequences)
        self._delivered = 0
        self._handed = 0  # the tokens of the last piece, which may not be delivered yet
        self._failed = False
        self._settled: asyncio.Task[None] | None = None
        self._choices = [
            Choice(sequence, detokenizers, job.rules, echo)
            for sequence, echo in zip_longest(job.sequences, job.echoes)
        ]
        self._echoes = deque(filter(None, (choice.begin() for choice in self._choices)))
        self._unfinished = len(self._choices)
        meter.limits.check_streams(job.caller, len(job.sequences))
        self._stream = engine.submit(job.id, job.sequences)
        self._trace = job.trace
        if self._trace is not None:
            self._trace.step("queue", **steps.describe(job))
        meter.limits.begin(job.caller, len(job.sequences), job.prompt_tokens)
        self._heartbeat = timers.heartbeat
        self._alarm: Alarm | None = None
        self._set_alarm()
        self._expired = False
        self._deadline = timers.deadline(self._expire) if timers.deadline else None

    async def started(self) -> bool:
        """Return True when the first sequence has left the queue, False at a heartbeat before.

        Raises:
            RequestError: it never will.
        """
        event = await anext(self._stream)
        self._heed(event)
        return not isinstance(event, Waiting)

    def __aiter__(self) -> "Generation":
        return self

    async def __anext__(self) -> Piece | None:
        """Return the answer piece by piece, each choice up to the one with its finish reason.

        A piece counts as delivered when the next one is asked for. At the end of the last one the
        request is in the ledger. None stands for a heartbeat.

        Raises:
            RequestError: the engine could not go on.
        """
        self._delivered, self._handed = self._delivered + self._handed, 0
        if self._echoes:
            return self._echoes.popleft()
        while self._unfinished:
            event = await anext(self._stream)
            self._heed(event)
            if isinstance(event, Waiting):
                return None
            if (piece := self._read(event)) is not None:
                return self._hand(piece, event)
        self._ended_s = self._meter.clock.monotonic_s()
        await asyncio.shield(self._settle())
        raise StopAsyncIteration

    def close(self, *, failed: bool = False) -> None:
        """Stop whatever of the request still runs, and account for it: as an error if `failed`."""
        if self._settled is None:
            self._failed = self._failed or failed
            self._ended_s = self._meter.clock.monotonic_s()
            self._engine.cancel(self.job.id)
            self._settle()

    def summary(self) -> str:
        """Return tokens, time to first token and speed, for the access log."""
        generated = sum(self._generated)
        parts = [self.job.id, f"{self.job.prompt_tokens}+{generated} tokens"]
        if self._first_token_s is not None:
            parts.append(f"first after {1000 * self._first_token_s:.0f} ms")
            end_s = self._ended_s or self._meter.clock.monotonic_s()
            if generated > 1 and (rest_s := end_s - self._begun_s - self._first_token_s) > 0:
                parts.append(f"then {(generated - 1) / rest_s:.0f} tokens/s")
        return ", ".join(parts)

    def _heed(self, event: Event | Waiting) -> None:
        """Count an event, and raise the error of one that failed."""
        self._count(event)
        if self._trace is not None:
            steps.tell(self._trace, event)
        if isinstance(event, TokenEvent):
            return
        if isinstance(event, Waiting):
            self._set_alarm()
        if isinstance(event, Failed):
            raise event.error
        if self._expired and isinstance(event, Finished) and event.reason == "cancelled":
            raise Unavailable(
                "the request took longer than this server allows", code="request_timeout"
            )

    def _hand(self, piece: Piece, event: Event) -> Piece:
        """Count a piece that is handed out, and end a choice that met a stop string."""
        self._handed = piece.count
        self.completion_tokens += piece.count
        if piece.finish_reason is not None:
            self._unfinished -= 1
            if self._trace is not None:
                self._trace.step("end", index=piece.index, reason=piece.finish_reason)
            if not isinstance(event, Finished):
                self._engine.cancel(self.job.id, piece.index)
        return piece

    def _expire(self) -> None:
        self._expired = True
        self._engine.cancel(self.job.id)

    def _set_alarm(self) -> None:
        """Have a heartbeat come, as long as there is no token."""
        if self._heartbeat and self._first_token_s is None:
            self._alarm = self._heartbeat(self._stream.nudge)

    def _stop_alarm(self) -> None:
        if self._alarm:
            self._alarm.cancel()

    def _stop_timers(self) -> None:
        self._stop_alarm()
        if self._deadline:
            self._deadline.cancel()

    def _read(self, event: Event) -> Piece | None:
        """Return the text of an event, if it has any and its choice is not finished already."""
        choice = self._choices[event.index]
        if choice.finish_reason is None:
            if isinstance(event, TokenEvent):
                return choice.feed(event)
            if isinstance(event, Finished):
                return choice.finish(event)
            if isinstance(event, PromptScored):
                return choice.score(event)
        return None

    def _count(self, event: Event | Waiting) -> None:
        """Keep what the ledger and the metrics need of an event."""
        if isinstance(event, TokenEvent):
            self._count_token(event.index)
        elif isinstance(event, Started):
            if self._started_s is None:
                self._started_s = self._meter.clock.monotonic_s()
        elif isinstance(event, Prefilled):
            if self._prefilled_s is None:
                self._prefilled_s = self._meter.clock.monotonic_s()
            if event.index % self.job.choices == 0:
                self.cached_tokens += event.cached
        elif isinstance(event, ENDS):
            self._generated[event.index] = event.generated
            self._failed = self._failed or isinstance(event, Failed)

    def _count_token(self, index: int) -> None:
        now_s = self._meter.clock.monotonic_s()
        if self._first_token_s is None:
            self._stop_alarm()
            self._first_token_s = now_s - self._begun_s
            self._meter.metrics.first_token.observe(self._first_token_s)
        if self._generated[index]:
            self._meter.metrics.inter_token.observe(now_s - self._last_token_s[index])
        self._last_token_s[index] = now_s
        self._generated[index] += 1

    def _settle(self) -> asyncio.Task[None]:
        if self._settled is None:
            self._stop_timers()
            self._settled = self._meter.settle(self._record())
        return self._settled

    async def _record(self) -> None:
        """Wait until the engine has confirmed every sequence's end, then write the row."""
        async for event in self._stream:
            self._count(event)
        reasons = [choice.finish_reason for choice in self._choices]
        failed = self._failed or self._expired
        reason = "error" if failed else "cancelled" if None in reasons else str(reasons[0])
        assert self._ended_s is not None
        generated = sum(self._generated)
        self._meter.metrics.cached_tokens.inc(self.cached_tokens)
        self._meter.limits.end(self.job.caller, len(self.job.sequences), generated)
        self._meter.record(
            UsageRecord(
                id=self.job.id,
                created_s=self._created_s,
                key=self.job.key,
                endpoint=self.job.endpoint,
                model=self.job.model,
                stream=self.job.stream,
                prompt_tokens=self.job.prompt_tokens,
                generated_tokens=generated,
                delivered_tokens=self._delivered,
                finish_reason=reason,
                first_token_s=self._first_token_s,
                duration_s=self._ended_s - self._begun_s,
                cached_tokens=self.cached_tokens,
                queued_s=_between(self._begun_s, self._started_s),
                prefill_s=_between(self._started_s, self._prefilled_s),
            )
        )


def _between(start_s: float | None, end_s: float | None) -> float | None:
    return None if start_s is None or end_s is None else end_s - start_s
