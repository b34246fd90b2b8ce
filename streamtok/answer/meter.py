"""The books of a server: what every request has cost, for the ledger, the metrics and the limits.

Does not count tokens: `streamtok.answer.generation` does, and hands the sums in when a request
ends.
"""

import asyncio
from collections.abc import Coroutine

from streamtok.answer.limits import Limits
from streamtok.clock import Clock
from streamtok.ledger import Ledger, UsageRecord
from streamtok.metrics import Metrics


class Meter:
    """Keeps the books: ledger rows, metrics, limits, also for requests whose client has left."""

    def __init__(self, ledger: Ledger, metrics: Metrics, limits: Limits, clock: Clock) -> None:
        self.ledger = ledger
        self.metrics = metrics
        self.limits = limits
        self.clock = clock
        self._settling: set[asyncio.Task[None]] = set()

    def settle(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run `work`, which accounts for a request, whatever becomes of the connection."""
        task = asyncio.get_running_loop().create_task(work)
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return task

    def record(self, record: UsageRecord) -> None:
        """Write a request's row and count its tokens."""
        self.ledger.record(record)
        self.metrics.prompt_tokens.inc(record.prompt_tokens)
        self.metrics.generated_tokens.inc(record.generated_tokens)
        if record.finish_reason == "cancelled":
            self.metrics.cancelled.inc()

    async def settled(self) -> None:
        """Wait until every request that has ended is accounted for."""
        if self._settling:
            await asyncio.wait(self._settling)

    async def close(self) -> None:
        """Account for every request, then close the ledger."""
        await self.settled()
        self.ledger.close()
