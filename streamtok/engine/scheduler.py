"""Who is computed in the next step, and what becomes of what was sampled. Pure: no arrays, no IO.

A step is plan, run, commit. Between steps sequences join (from the queue, in which clients take
turns, as slots fall free) and leave (finished or cancelled): continuous batching. Each step
computes one position of every sequence that is decoding, and spends a part of what is left of its
token budget on prompts, as much on one client's as on another's, so that a long prompt delays
running streams little, and many prompts of one client do not hold up another's.

Read next: `streamtok.engine.runner`, which runs a plan.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace

from streamtok.engine.extras.drafts import Drafter
from streamtok.engine.fairness import Turns, divide
from streamtok.engine.prefix_cache import Copy, Prefixes, is_ahead
from streamtok.engine.sequence import Sequence
from streamtok.errors import RequestError
from streamtok.messages import (
    Embedding,
    Event,
    Failed,
    Finished,
    FinishReason,
    Prefilled,
    PromptScored,
    SequenceRequest,
    Started,
    TokenEvent,
    TokenLogprobs,
)

LEAST_PROMPT = 16  # positions that a prompt may have in a step where fewer than 8 decode

Addressed = tuple[str, Event]  # the request's id, and what to tell it


@dataclass(frozen=True, slots=True)
class Work:
    """Compute the next `count` ids of `sequence`; `sampled` if its next token is then drawn.

    The ids in `guess`, which may come next, are computed besides. `scored` says that the ids are
    part of a prompt whose tokens' log-probabilities are wanted.
    """

    sequence: Sequence
    slot: int
    count: int
    sampled: bool
    guess: tuple[int, ...] = ()
    scored: bool = False

    @property
    def rows(self) -> int:
        """How many of its last positions need logits."""
        if self.scored:
            return self.count
        return 1 + len(self.guess) if self.sampled else 0

    @property
    def pooled(self) -> bool:
        """Whether the final states of its positions are wanted."""
        return self.sequence.request.embed

    @property
    def scored_ids(self) -> tuple[int, ...]:
        """The prompt's tokens that the first rows of logits foretell, if it is scored."""
        start = self.sequence.computed + 1
        return self.sequence.request.prompt_ids[start : start + self.count]


@dataclass(frozen=True, slots=True)
class Plan:
    """One step: slots to clear, then rows to copy, then the work to do, in the order of slots.

    `events` are to be announced before it.
    """

    works: tuple[Work, ...]
    events: tuple[Addressed, ...]
    wipes: tuple[int, ...] = ()
    copies: tuple[Copy, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.works or self.wipes or self.copies)


@dataclass(frozen=True, slots=True)
class Sample:
    """What was drawn for one sequence; `completes` says that its grammar lets nothing follow."""

    token_id: int
    logprobs: TokenLogprobs | None = None
    completes: bool = False


Drawn = list[Sample | RequestError]  # for one sequence, in order; an error is the last
PromptScore = tuple[TokenLogprobs, ...]  # of some neighbouring tokens of a prompt


class Scheduler:
    """Holds every sequence between its admission and its terminal event.

    `streams` is how many run at once, `step_tokens` how many positions one step computes at most;
    a step never computes fewer than one position for each decoding sequence and one of a prompt.
    `kept` is how many ended sequences leave their keys and values to others. A step that would
    compute fewer than `tile` positions is filled up with guesses.
    """

    def __init__(self, streams: int, step_tokens: int, kept: int = 0, tile: int = 1) -> None:
        self._step_tokens = step_tokens
        self._tile = tile
        self._prefixes = Prefixes(streams, kept)
        self._waiting = Turns()
        self._running: list[Sequence] = []

    @property
    def running(self) -> int:
        """How many sequences hold a slot."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many sequences wait for a slot."""
        return len(self._waiting)

    def add(self, request_id: str, requests: Iterable[SequenceRequest]) -> None:
        """Let a request's sequences wait for their slots."""
        self._waiting.add(Sequence(request_id, request) for request in requests)

    def plan(self, paused: Collection[str] = ()) -> Plan:
        """Admit what fits and choose the next step's work; requests in `paused` stand still."""
        events: list[Addressed] = []
        copies: list[Copy] = []
        while self._waiting and self._prefixes.free:
            sequence = self._waiting.take()
            copies += self._prefixes.admit(sequence)
            self._running.append(sequence)
            events.append((sequence.request_id, Started(sequence.request.index)))
        able = [s for s in self._running if s.request_id not in paused]
        works = [self._work(s, 1) for s in able if s.pending == 1]
        prompts = [s for s in able if s.pending > 1]
        prefills, reused = self._prefill(prompts, self._prompt_budget(len(works)))
        if not prefills:
            works = list(self._guess(works))
        wipes = self._prefixes.take_spoilt()
        ordered = sorted((*works, *prefills), key=lambda work: work.slot)
        return Plan(tuple(ordered), tuple(events), wipes, (*copies, *reused))

    def commit(
        self,
        plan: Plan,
        drawn: Iterable[Drawn],
        scores: Iterable[PromptScore | RequestError] = (),
        pools: Iterable[Embedding | RequestError | None] = (),
    ) -> list[Addressed]:
        """Take over what a step did: what was drawn for each sampled work of `plan`, in its order,
        one score for each scored one, and of each pooled one the embedding, if it is complete.

        A result that is an error ends its sequence with it.
        """
        events: list[Addressed] = []
        samples, scored, pooled = iter(drawn), iter(scores), iter(pools)
        for work in plan.works:
            sequence = work.sequence
            sequence.computed += work.count
            score = next(scored) if work.scored else ()
            tokens = next(samples) if work.sampled else []
            embedding = next(pooled) if work.pooled else None
            if isinstance(score, RequestError):
                events.append(self._fail(sequence, score))
                continue
            if isinstance(embedding, RequestError):
                events.append(self._fail(sequence, embedding))
                continue
            if score:
                events.append((sequence.request_id, PromptScored(sequence.request.index, score)))
            if work.sampled:
                events.extend(self._take(work, tokens))
            elif not sequence.pending:  # nothing is to be generated
                events.append(self._finish(sequence, "length", embedding=embedding))
        return events

    def cancel(self, request_id: str, index: int | None = None) -> list[Addressed]:
        """End what is left of a request, or of its sequence `index` alone."""
        return [
            self._finish(sequence, "cancelled")
            for sequence in self._all()
            if sequence.request_id == request_id and index in (None, sequence.request.index)
        ]

    def fail(self, error: RequestError, plan: Plan | None = None) -> list[Addressed]:
        """End the sequences of `plan` with an error, or all there are."""
        sequences = self._all() if plan is None else [work.sequence for work in plan.works]
        if plan:  # how far it got is not known
            self._prefixes.spoil([*plan.wipes, *(copy.target for copy in plan.copies)])
        return [self._fail(sequence, error) for sequence in sequences]

    def _prompt_budget(self, decoding: int) -> int:
        """Return how many positions of prompts a step computes beside so many that decode.

        It then takes about three times as long as without prompts, at most. These go on in any
        case, and have the whole step where nobody else waits for it.
        """
        left = self._step_tokens - decoding
        return max(1, min(left, max(LEAST_PROMPT, 2 * decoding)) if decoding else left)

    def _prefill(self, prompts: Collection[Sequence], budget: int) -> tuple[list[Work], list[Copy]]:
        """Spend `budget` positions on prompts, each client's oldest first."""
        works: list[Work] = []
        copies: list[Copy] = []
        wanted: Counter[str] = Counter()
        for sequence in prompts:
            wanted[sequence.request.client] += sequence.pending
        left = divide(budget, wanted)
        for sequence in prompts:
            client = sequence.request.client
            if not left[client]:
                continue
            if sequence.untouched:
                if any(is_ahead(work.sequence, sequence) for work in works):
                    continue
                copies += self._prefixes.reuse(sequence)
            works.append(self._work(sequence, min(sequence.pending, left[client])))
            left[client] -= works[-1].count
        return works, copies

    def _all(self) -> list[Sequence]:
        return [*self._running, *self._waiting]

    @staticmethod
    def _work(sequence: Sequence, count: int) -> Work:
        assert sequence.slot is not None
        request = sequence.request
        sampled = count == sequence.pending and request.max_tokens > 0
        scored = request.prompt_logprobs and sequence.computed + 1 < len(request.prompt_ids)
        return Work(sequence, sequence.slot, count, sampled, scored=scored)

    def _guess(self, works: list[Work]) -> Iterator[Work]:
        """Yield `works` with guesses for the positions that are left of a tile."""
        spare = self._tile - len(works)
        for index, work in enumerate(works):
            sequence = work.sequence
            most = max(0, min(-(-spare // (len(works) - index)), sequence.left - 1))
            guess = sequence.guess(most)
            spare -= len(guess)
            yield replace(work, guess=guess) if guess else work

    def _take(self, work: Work, drawn: Drawn) -> Iterator[Addressed]:
        """Append what was drawn, as far as the sequence goes."""
        sequence = work.sequence
        if work.guess:
            sequence.drafter.learn(len(drawn) - 1)
        for place, sample in enumerate(drawn):
            sequence.computed += place > 0  # the token before was guessed, and computed
            if isinstance(sample, RequestError):
                yield self._fail(sequence, sample)
                return
            yield from self._extend(sequence, sample)
            if sequence.slot is None:
                return

    def _extend(self, sequence: Sequence, sample: Sample) -> Iterable[Addressed]:
        request = sequence.request
        if not sequence.generated:
            yield sequence.request_id, Prefilled(request.index, sequence.cached)
        sequence.ids.append(sample.token_id)
        event = TokenEvent(request.index, sample.token_id, sample.logprobs)
        if sample.token_id in request.stop_ids:
            yield self._finish(sequence, "stop", event)
            return
        yield sequence.request_id, event
        if sample.completes:
            yield self._finish(sequence, "stop")
        elif not sequence.left:
            yield self._finish(sequence, "length")

    def _finish(
        self,
        sequence: Sequence,
        reason: FinishReason,
        stop: TokenEvent | None = None,
        embedding: Embedding | None = None,
    ) -> Addressed:
        self._leave(sequence)
        event = Finished(sequence.request.index, reason, sequence.generated, stop, embedding)
        return sequence.request_id, event

    def _fail(self, sequence: Sequence, error: RequestError) -> Addressed:
        self._prefixes.forget(sequence)
        self._leave(sequence)
        return sequence.request_id, Failed(sequence.request.index, error, sequence.generated)

    def _leave(self, sequence: Sequence) -> None:
        sequence.drafter = Drafter()  # what it knows is of no more use; the ids may be
        sequence.guide = None
        if sequence.slot is None:
            self._waiting.remove(sequence)
        else:
            self._running.remove(sequence)
            self._prefixes.leave(sequence)
