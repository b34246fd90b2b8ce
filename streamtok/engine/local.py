"""The engine in a thread of this process: numpy below, the event loop above.

The thread repeats: take orders, plan, run, sample, commit, and hand all events of the step to the
event loop in one crossing. Orders (submit, cancel) go through a thread-safe inbox and take effect
before the next step.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from streamtok.config import EngineConfig
from streamtok.engine.backlog import Backlog
from streamtok.engine.base import ENDS, HIGH_WATER, LOW_WATER, TokenStream
from streamtok.engine.embeddings import pool
from streamtok.engine.grammars import Grammars
from streamtok.engine.logprobs import score
from streamtok.engine.memory import count_slots
from streamtok.engine.runner import Runner
from streamtok.engine.scheduler import Addressed, Plan, Scheduler
from streamtok.engine.verifier import draw
from streamtok.errors import EngineFailed, InvalidRequest, Unavailable
from streamtok.messages import EngineStats, Event, Failed, Finished, SequenceRequest, Started
from streamtok.model.decoder import Decoder

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Submit:
    request_id: str
    sequences: tuple[SequenceRequest, ...]
    stream: TokenStream


@dataclass(frozen=True, slots=True)
class _Cancel:
    request_id: str
    index: int | None


class _Wake:
    """Nothing to do but look again: a reader has caught up, or the engine is closing."""


@dataclass(slots=True)
class _Client:
    """Where a request's events go, and how many of its sequences have not ended."""

    stream: TokenStream
    open: int


_Order = _Submit | _Cancel | _Wake


class LocalEngine:
    """Runs `decoder` for some sequences at once and keeps others waiting, as `config` allows.

    `grammars` compiles what requests constrain their texts to. Must be made on a running event
    loop, which receives the events.

    Raises:
        ConfigError: there is no memory for the keys and values of one context.
    """

    def __init__(
        self, decoder: Decoder, config: EngineConfig, grammars: Grammars | None = None
    ) -> None:
        self.context = decoder.config.context
        self.vocab = decoder.config.vocab
        self.width = decoder.config.dim
        self.fingerprint = f"fp_{decoder.digest}" + ("" if decoder.tiling.exact else "_inexact")
        slots = count_slots(decoder.config, config)
        self.streams = streams = min(config.max_streams, slots)
        if streams < config.max_streams:
            log.warning("the memory for keys and values holds %d sequences at once", streams)
        self._room = streams + config.max_queue
        cheap = decoder.tiling.cheap
        self._scheduler = Scheduler(streams, config.step_tokens, slots - streams, cheap)
        self._runner = Runner(decoder, slots)
        self._grammars = grammars
        self._inbox: queue.SimpleQueue[_Order] = queue.SimpleQueue()
        self._clients: dict[str, _Client] = {}  # the engine's thread alone reads and writes it
        self._paused: set[str] = set()
        self._unfinished = 0  # sequences submitted and not yet terminal, as the event loop sees it
        self._backlog = Backlog(streams)
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        self._thread.start()

    # Called on the event loop

    def submit(self, request_id: str, sequences: Sequence[SequenceRequest]) -> TokenStream:
        """Queue a request; see `Engine.submit`."""
        if self._closing:
            raise Unavailable("the server is shutting down", code="shutting_down")
        if len(sequences) > self._room:
            raise InvalidRequest(
                f"{len(sequences)} sequences are asked for; the server has room for {self._room}",
                param="n",
            )
        if self._unfinished + len(sequences) > self._room:
            raise Unavailable(
                f"{self._unfinished} sequences run or wait already, of {self._room} at most; "
                f"this request adds {len(sequences)}",
                retry_after_s=self._backlog.wait_s(self.stats().queued),
                code="queue_full",
            )
        self._unfinished += len(sequences)
        stream = TokenStream(len(sequences), lambda: self._inbox.put(_Wake()))
        self._inbox.put(_Submit(request_id, tuple(sequences), stream))
        return stream

    def cancel(self, request_id: str, index: int | None = None) -> None:
        """End a request or one sequence of it before the next step; see `Engine.cancel`."""
        self._inbox.put(_Cancel(request_id, index))

    def stats(self) -> EngineStats:
        """Return how many sequences run and wait."""
        running = self._scheduler.running
        return EngineStats(running, max(0, self._unfinished - running))

    async def close(self) -> None:
        """Stop the thread; what still runs or waits ends with Failed(Unavailable)."""
        self._closing = True
        self._inbox.put(_Wake())
        await asyncio.to_thread(self._thread.join)

    def _deliver(self, events: Iterable[tuple[TokenStream, Event]]) -> None:
        now_s = self._loop.time()
        for stream, event in events:
            if isinstance(event, Started):
                self._backlog.start((stream, event.index), now_s)
            elif isinstance(event, ENDS):
                self._unfinished -= 1
                self._backlog.end((stream, event.index), now_s)
            stream.deliver(event)

    # Called in the engine's thread

    def _serve(self) -> None:
        """Step as long as there is work, wait for orders while there is none."""
        idle = True
        while not self._closing:
            self._take_orders(wait=idle)
            plan = self._scheduler.plan(self._pause())
            self._post(plan.events)
            if not plan.is_empty:
                self._post(self._step(plan))
            idle = not plan.works
        self._take_orders(wait=False)
        closed = Unavailable("the server shut down before the answer was complete")
        self._post(self._scheduler.fail(closed))

    def _take_orders(self, wait: bool) -> None:
        """Empty the inbox; if `wait`, until there was something in it."""
        while wait or not self._inbox.empty():
            order = self._inbox.get()
            wait = False
            if isinstance(order, _Submit):
                self._clients[order.request_id] = _Client(order.stream, len(order.sequences))
                self._scheduler.add(order.request_id, order.sequences)
            elif isinstance(order, _Cancel):
                self._post(self._scheduler.cancel(order.request_id, order.index))

    def _pause(self) -> set[str]:
        """Return the requests whose readers are behind, until they have caught up."""
        self._paused = {
            request_id
            for request_id, client in self._clients.items()
            if client.stream.unread > (LOW_WATER if request_id in self._paused else HIGH_WATER)
        }
        return self._paused

    def _step(self, plan: Plan) -> list[Addressed]:
        """Run one plan; whatever it raises ends the sequences that were in it, and only those."""
        try:
            logits, states = self._runner.run(plan)  # [., V], [., D]
            drawn = draw(logits, plan.works, self._grammars)
            scores = score(logits, plan.works)
            pools = pool(states, plan.works)
        except Exception:
            log.exception("an engine step failed")
            return self._scheduler.fail(EngineFailed("the engine failed in a step"), plan)
        return self._scheduler.commit(plan, drawn, scores, pools)

    def _post(self, events: Sequence[Addressed]) -> None:
        """Hand events to the event loop, all in one crossing."""
        if not events:
            return
        addressed = []
        for request_id, event in events:
            client = self._clients[request_id]
            client.stream.produced += 1
            client.open -= isinstance(event, Finished | Failed)
            if not client.open:
                del self._clients[request_id]
            addressed.append((client.stream, event))
        self._loop.call_soon_threadsafe(self._deliver, addressed)
