"""Accounting: what every request costs, for the ledger, the metrics and the rate limits.

A `Tally` counts one request while it runs; the `Meter` records it when it has ended, including when
the client has disconnected. Token counts are kept nowhere else.

Read next: `streamtok.ledger`.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress

from streamtok.answer.ask import Ask
from streamtok.answer.events import Usage
from streamtok.answer.limits import Limits
from streamtok.clock import Clock
from streamtok.engine.commands import ENDS
from streamtok.errors import Unavailable
from streamtok.ledger import Ledger, UsageRecord
from streamtok.messages import Event, Prefilled, Started, TokenEvent, Waiting
from streamtok.metrics import Metrics


class Tally:
    """The token counts and times of one request, from the moment it is created."""

    def __init__(self, ask: Ask, sequences: int, metrics: Metrics, clock: Clock) -> None:
        self._ask = ask
        self._metrics = metrics
        self._now_s = clock.monotonic_s
        self.created_s = clock.wall_s()
        self.delivered = 0  # tokens of events that were taken, and the next one asked for
        self._cached = 0
        self._generated = [0] * sequences
        self._last_token_s = [0.0] * sequences
        self._begun_s = self._now_s()
        self._started_s: float | None = None  # when the first sequence left the queue
        self._prefilled_s: float | None = None
        self._first_token_s: float | None = None
        self._ended_s: float | None = None

    @property
    def has_token(self) -> bool:
        """Whether there was a token."""
        return self._first_token_s is not None

    @property
    def usage(self) -> Usage:
        """The sums of what was delivered; behind a stop string there are more tokens."""
        return Usage(self._ask.prompt_tokens, self.delivered, self._cached)

    def tokens(self, events: Iterable[Event | Waiting]) -> None:
        """Count those of `events`, which have come now, that are tokens."""
        now_s, generated, last_s = self._now_s(), self._generated, self._last_token_s
        for event in events:
            if type(event) is not TokenEvent:
                return
            index = event.index
            if generated[index]:
                self._metrics.inter_token.observe(now_s - last_s[index])
            elif self._first_token_s is None:
                self._first_token_s = now_s
                self._metrics.first_token.observe(now_s - self._begun_s)
            last_s[index] = now_s
            generated[index] += 1

    def event(self, event: Event | Waiting) -> None:
        """Count any event of the engine's."""
        self.tokens((event,))
        if isinstance(event, Started):
            self._started_s = self._now_s() if self._started_s is None else self._started_s
        elif isinstance(event, Prefilled):
            self._prefilled_s = self._now_s() if self._prefilled_s is None else self._prefilled_s
            if event.index % self._ask.candidates == 0:
                self._cached += event.cached
        elif isinstance(event, ENDS):
            self._generated[event.index] = event.generated

    def end(self) -> None:
        """Stop the clock."""
        self._ended_s = self._now_s()

    def summary(self) -> str:
        """Return tokens, time to first token and speed, for the access log."""
        generated = sum(self._generated)
        parts = [f"{self._ask.prompt_tokens}+{generated} tokens"]
        if self._first_token_s is not None:
            parts.append(f"first after {1000 * (self._first_token_s - self._begun_s):.0f} ms")
            end_s = self._now_s() if self._ended_s is None else self._ended_s
            rest_s = end_s - self._first_token_s
            if generated > 1 and rest_s > 0:
                parts.append(f"then {(generated - 1) / rest_s:.0f} tokens/s")
        return ", ".join(parts)

    def record(self, answer_id: str, reason: str) -> UsageRecord:
        """Return the ledger's row, as it is if the request ends now."""
        ask = self._ask
        ended_s = self._now_s() if self._ended_s is None else self._ended_s
        return UsageRecord(
            id=answer_id,
            created_s=self.created_s,
            key=ask.key,
            endpoint=ask.surface.path,
            model=ask.model,
            stream=ask.stream,
            prompt_tokens=ask.prompt_tokens,
            generated_tokens=sum(self._generated),
            delivered_tokens=self.delivered,
            finish_reason=reason,
            first_token_s=_between(self._begun_s, self._first_token_s),
            duration_s=ended_s - self._begun_s,
            cached_tokens=self._cached,
            queued_s=_between(self._begun_s, self._started_s),
            prefill_s=_between(self._started_s, self._prefilled_s),
        )


class Meter:
    """Records requests in ledger, metrics and limits, those of disconnected clients too."""

    def __init__(self, ledger: Ledger, metrics: Metrics, limits: Limits, clock: Clock) -> None:
        self.ledger = ledger
        self.metrics = metrics
        self.limits = limits
        self.clock = clock
        # Given each request's id at its end, and before that the row it would have if it were lost
        self.on_begin: Callable[[UsageRecord], None] | None = None
        self.on_end: Callable[[str], None] | None = None
        self._settling: set[asyncio.Task[None]] = set()
        self._writing: asyncio.Task[None] | None = None

    def tally(self, ask: Ask, sequences: int) -> Tally:
        """Return the counts of a request that begins now.

        Raises:
            RequestError: the caller has too many streams already.
        """
        self.limits.check_streams(ask.caller, sequences)
        return Tally(ask, sequences, self.metrics, self.clock)

    async def begin(self, record: UsageRecord) -> None:
        """Note that a request is answered from now on; `record` is its row if a crash loses it."""
        if self.on_begin is not None:
            self.on_begin(record)
            await self._written()

    def settle(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run `work`, which accounts for a request, whatever happens to the connection."""
        task = asyncio.get_running_loop().create_task(work)
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return task

    async def record(self, record: UsageRecord) -> None:
        """Count a request's tokens and write its row, which a crash cannot lose from then on."""
        self.ledger.record(record)
        if self.on_end is not None:
            self.on_end(record.id)
        self.metrics.prompt_tokens += record.prompt_tokens
        self.metrics.cached_tokens += record.cached_tokens
        self.metrics.generated_tokens += record.generated_tokens
        self.metrics.inter_token.fold()
        if record.finish_reason == "cancelled":
            self.metrics.cancelled += 1
        await self._written()

    async def _written(self) -> None:
        """Wait until what was recorded is written; all that was in one turn wait together."""
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write())
        await asyncio.shield(self._writing)

    async def _write(self) -> None:
        self._writing = None
        with suppress(Unavailable, TimeoutError):  # serving goes on
            async with asyncio.timeout(1.0):  # not for ever, where a disk hangs
                await self.ledger.database.run(("SELECT 1", ()))  # behind what was recorded

    async def settled(self) -> None:
        """Wait until every request that has ended is accounted for."""
        if self._settling:
            await asyncio.wait(self._settling)

    async def close(self) -> None:
        """Account for every request, then close the ledger."""
        await self.settled()
        self.ledger.close()


def _between(start_s: float | None, end_s: float | None) -> float | None:
    return None if start_s is None or end_s is None else end_s - start_s
