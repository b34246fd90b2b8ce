"""The engine: takes commands, steps sequences, posts their events. Knows no event loop.

It repeats: take commands, plan, run, sample, commit, and post all events of the step at once.
Commands take effect before the next step. Where the engine runs is decided elsewhere:
`streamtok.engine.local` puts it in a thread, `streamtok.engine.remote.process` in a process.

Read next: `streamtok.engine.scheduler`, which plans a step.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from msgspec import Struct

from streamtok.config import EngineConfig
from streamtok.engine.commands import (
    HIGH_WATER,
    LOW_WATER,
    STEP_TOKENS,
    Addressed,
    Cancel,
    Command,
    EngineInfo,
    Read,
    Submit,
)
from streamtok.engine.plan import Plan, PromptScore, Work
from streamtok.engine.runner import Runner
from streamtok.engine.sampler import ComputeLogprobs
from streamtok.engine.scheduler import Budget, Scheduler
from streamtok.engine.sequence import Drafter
from streamtok.engine.verifier import StartGuide, draw
from streamtok.errors import EngineFailed, RequestError, Unavailable
from streamtok.messages import Embedding, Failed, Finished, SequenceRequest
from streamtok.model.base import Decoder
from streamtok.model.config import ModelConfig
from streamtok.model.weights import Array

log = logging.getLogger(__name__)

Result = TypeVar("Result")
PerWork = Callable[[Array, Sequence[Work]], list[Result]]
Run = Callable[[Plan], tuple[Array, Array]]  # as `Runner.run`


class EngineExtras(Struct, frozen=True):
    """What an engine can do beyond plain sampling; each field is optional.

    `streamtok.engine.extras.all_extras` fills it. `count_slots` says how many contexts fit into
    memory, `pace` how much of a prompt into a step; `drafter` makes a guesser for one sequence,
    `start_guide` begins a constrained text, `logprobs` and `prompt_logprobs` report those of drawn
    tokens and of prompts, `pool` makes embeddings. A request for one of these four fails without.
    """

    count_slots: Callable[[ModelConfig, EngineConfig], int] | None = None
    pace: Callable[[Run], tuple[Run, Budget]] | None = None
    drafter: Callable[[], Drafter] | None = None
    start_guide: StartGuide | None = None
    logprobs: ComputeLogprobs | None = None
    prompt_logprobs: PerWork[PromptScore | RequestError] | None = None
    pool: PerWork[Embedding | RequestError | None] | None = None

    def refusal(self, request: SequenceRequest) -> str | None:
        """Return what `request` asks for and this engine cannot do, if anything."""
        wanted = (
            ("a constraint", request.constraint, self.start_guide),
            ("log-probabilities", request.sampling.top_logprobs is not None, self.logprobs),
            ("the prompt's log-probabilities", request.prompt_logprobs, self.prompt_logprobs),
            ("an embedding", request.embed, self.pool),
        )
        return next((name for name, asked, extra in wanted if asked and not extra), None)


Take = Callable[[bool], Iterable[Command]]  # commands that have arrived; if True, waits for one
Post = Callable[[Sequence[Addressed]], None]


class _Reader(Struct):
    """Flow control of a request: sequences that have not ended, events posted, events taken."""

    open: int
    posted: int = 0
    taken: int = 0


class EngineCore:
    """Runs `decoder` for several sequences at once and queues others, as `config` allows.

    Raises:
        ConfigError: there is no memory for the keys and values of one context.
    """

    def __init__(
        self, decoder: Decoder, config: EngineConfig, extras: EngineExtras | None = None
    ) -> None:
        self._extras = extras or EngineExtras()
        exact = decoder.tiling.exact
        if not exact:
            log.warning(
                "this machine's matrix library computes a row differently in different batches: "
                "the same seed may give other tokens under load"
            )
        count = self._extras.count_slots
        slots = count(decoder.config, config) if count else 2 * config.max_streams
        streams = min(config.max_streams, slots)
        if streams < config.max_streams:
            log.warning("the memory for keys and values holds %d sequences at once", streams)
        self.info = EngineInfo(
            decoder.config.context,
            decoder.config.vocab,
            decoder.config.dim,
            streams,
            streams + config.max_queue,
            f"fp_{decoder.digest}" + ("" if exact else "_inexact"),
            exact,
        )
        self._runner, budget = Runner(decoder, slots), None
        self._compute: Run = lambda plan: self._runner.run(plan)
        if self._extras.pace:
            self._compute, budget = self._extras.pace(self._compute)
        self._scheduler = Scheduler(
            streams,
            config.step_tokens,
            slots - streams,
            min(decoder.tiling.cheap, STEP_TOKENS),
            self._extras.drafter,
            budget,
        )
        self._readers: dict[str, _Reader] = {}
        self._paused: set[str] = set()
        self._closing = False

    def serve(self, take: Take, post: Post) -> None:
        """Step as long as there is work, wait for commands while there is none, until closed."""
        working = False
        while True:
            for command in take(not working):
                self.execute(command, post)
            if self._closing:
                break
            working = self.step(post)
        closed = Unavailable("the server shut down before the answer was complete")
        self._post(self._scheduler.fail(closed), post)

    def execute(self, command: Command, post: Post) -> None:
        """Take note of a command, which takes effect before the next step."""
        if isinstance(command, Submit):
            self._submit(command, post)
        elif isinstance(command, Cancel):
            self._post(self._scheduler.cancel(command.request_id, command.index), post)
        elif isinstance(command, Read):
            if reader := self._readers.get(command.request_id):
                reader.taken = command.count
        else:
            self._closing = True

    def step(self, post: Post) -> bool:
        """Compute one step; return False if there was nothing to compute."""
        plan = self._scheduler.plan(self._pause())
        self._post(plan.events, post)
        if not plan.is_empty:
            self._post(self._run(plan), post)
        return bool(plan.works)

    def _submit(self, command: Submit, post: Post) -> None:
        self._readers[command.request_id] = _Reader(len(command.sequences))
        able = []
        for sequence in command.sequences:
            if missing := self._extras.refusal(sequence):
                error = EngineFailed(f"this engine cannot do {missing}")
                self._post([(command.request_id, Failed(sequence.index, error, 0))], post)
            else:
                able.append(sequence)
        self._scheduler.add(command.request_id, able)

    def _pause(self) -> set[str]:
        """Return the requests whose readers are slow, until they have caught up.

        The two bounds differ, so that a request is not paused and resumed at every event.
        """
        self._paused = {
            request_id
            for request_id, reader in self._readers.items()
            if reader.posted - reader.taken
            > (LOW_WATER if request_id in self._paused else HIGH_WATER)
        }
        return self._paused

    def _run(self, plan: Plan) -> list[Addressed]:
        """Run one plan; whatever it raises ends the sequences that were in it, and only those."""
        extras, works = self._extras, plan.works
        try:
            logits, states = self._compute(plan)  # [., V], [., D]
            drawn = draw(logits, works, extras.start_guide, extras.logprobs)
            scores = extras.prompt_logprobs(logits, works) if extras.prompt_logprobs else ()
            pools = extras.pool(states, works) if extras.pool else ()
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
            reader.posted += 1
            reader.open -= isinstance(event, Finished | Failed)
            if not reader.open:
                del self._readers[request_id]
        post(events)
