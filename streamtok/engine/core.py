"""The engine itself: takes orders, steps sequences, posts what has happened. Knows no event loop.

It repeats: take orders, plan, run, sample, commit, and post all events of the step at once. Orders
take effect before the next step. Where it runs is not its business: `streamtok.engine.local` puts
it in a thread, `streamtok.engine.remote.process` in a process of its own.

Read next: `streamtok.engine.scheduler`, which plans.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from streamtok.config import EngineConfig
from streamtok.engine.base import HIGH_WATER, LOW_WATER
from streamtok.engine.extras.embeddings import pool
from streamtok.engine.extras.grammars import Grammars
from streamtok.engine.extras.kv_sizing import count_slots
from streamtok.engine.extras.logprobs import score
from streamtok.engine.runner import Runner
from streamtok.engine.scheduler import Addressed, Plan, Scheduler
from streamtok.engine.verifier import draw
from streamtok.errors import EngineFailed, Unavailable
from streamtok.messages import Failed, Finished, SequenceRequest
from streamtok.model.base import Decoder

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server must know of its engine; see `streamtok.engine.base.Engine`.

    `room` is how many sequences may run and wait.
    """

    context: int
    vocab: int
    width: int
    streams: int
    room: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Submit:
    """Queue the sequences of a request."""

    request_id: str
    sequences: tuple[SequenceRequest, ...]


@dataclass(frozen=True, slots=True)
class Cancel:
    """End a request, or one of its sequences."""

    request_id: str
    index: int | None


@dataclass(frozen=True, slots=True)
class Read:
    """The reader of a request has taken `count` of its events in all."""

    request_id: str
    count: int


@dataclass(frozen=True, slots=True)
class Close:
    """Stop: what still runs or waits ends with Failed(Unavailable)."""


Order = Submit | Cancel | Read | Close
Take = Callable[[bool], Iterable[Order]]  # the orders that have come; if True, waits for one
Post = Callable[[Sequence[Addressed]], None]


@dataclass(slots=True)
class _Reader:
    """How many of a request's sequences have not ended, and how its events are taken."""

    open: int
    made: int = 0
    taken: int = 0


class Core:
    """Runs `decoder` for some sequences at once and keeps others waiting, as `config` allows.

    `grammars` compiles what requests constrain their texts to.

    Raises:
        ConfigError: there is no memory for the keys and values of one context.
    """

    def __init__(
        self, decoder: Decoder, config: EngineConfig, grammars: Grammars | None = None
    ) -> None:
        if not decoder.tiling.exact:
            log.warning(
                "this machine's matrix library computes a row differently in different batches: "
                "the same seed may give other tokens under load"
            )
        slots = count_slots(decoder.config, config)
        streams = min(config.max_streams, slots)
        if streams < config.max_streams:
            log.warning("the memory for keys and values holds %d sequences at once", streams)
        self.facts = Facts(
            decoder.config.context,
            decoder.config.vocab,
            decoder.config.dim,
            streams,
            streams + config.max_queue,
            f"fp_{decoder.digest}" + ("" if decoder.tiling.exact else "_inexact"),
        )
        cheap = decoder.tiling.cheap
        self._scheduler = Scheduler(streams, config.step_tokens, slots - streams, cheap)
        self._runner = Runner(decoder, slots)
        self._grammars = grammars
        self._readers: dict[str, _Reader] = {}
        self._paused: set[str] = set()
        self._closing = False

    def serve(self, take: Take, post: Post) -> None:
        """Step as long as there is work, wait for orders while there is none, until closed."""
        idle = True
        while True:
            for order in take(idle):
                self._obey(order, post)
            if self._closing:
                break
            plan = self._scheduler.plan(self._pause())
            self._post(plan.events, post)
            if not plan.is_empty:
                self._post(self._step(plan), post)
            idle = not plan.works
        closed = Unavailable("the server shut down before the answer was complete")
        self._post(self._scheduler.fail(closed), post)

    def _obey(self, order: Order, post: Post) -> None:
        if isinstance(order, Submit):
            self._readers[order.request_id] = _Reader(len(order.sequences))
            self._scheduler.add(order.request_id, order.sequences)
        elif isinstance(order, Cancel):
            self._post(self._scheduler.cancel(order.request_id, order.index), post)
        elif isinstance(order, Read):
            if reader := self._readers.get(order.request_id):
                reader.taken = order.count
        else:
            self._closing = True

    def _pause(self) -> set[str]:
        """Return the requests whose readers are behind, until they have caught up."""
        self._paused = {
            request_id
            for request_id, reader in self._readers.items()
            if reader.made - reader.taken
            > (LOW_WATER if request_id in self._paused else HIGH_WATER)
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

    def _post(self, events: Sequence[Addressed], post: Post) -> None:
        """Post `events`, all at once."""
        if not events:
            return
        for request_id, event in events:
            reader = self._readers[request_id]
            reader.made += 1
            reader.open -= isinstance(event, Finished | Failed)
            if not reader.open:
                del self._readers[request_id]
        post(events)
