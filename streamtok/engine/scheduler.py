"""Who is computed in the next step, and what becomes of what was sampled. Pure: no arrays, no IO.

A step is plan, run, commit. Between steps sequences join (from the queue, first come first served,
as slots fall free) and leave (finished or cancelled): continuous batching. Each step computes one
position of every sequence that is decoding, and spends what is left of its token budget on prompts,
so that a long prompt delays running streams by one step's budget at most.

Read next: `streamtok.engine.runner`, which runs a plan.
"""

import heapq
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from streamtok.engine.sequence import Sequence
from streamtok.errors import RequestError
from streamtok.messages import (
    Event,
    Failed,
    Finished,
    FinishReason,
    PromptScored,
    SequenceRequest,
    Started,
    TokenEvent,
    TokenLogprobs,
)

Addressed = tuple[str, Event]  # the request's id, and what to tell it


@dataclass(frozen=True, slots=True)
class Work:
    """Compute the next `count` ids of `sequence`; `sampled` if its next token is then drawn.

    `scored` says that the ids are part of a prompt whose tokens' log-probabilities are wanted.
    """

    sequence: Sequence
    slot: int
    count: int
    sampled: bool
    scored: bool = False

    @property
    def rows(self) -> int:
        """How many rows of logits it needs: after each of its ids, the last, or none."""
        return self.count if self.scored else int(self.sampled)

    @property
    def scored_ids(self) -> tuple[int, ...]:
        """The prompt's tokens that the first rows of logits foretell, if it is scored."""
        start = self.sequence.computed + 1
        return self.sequence.request.prompt_ids[start : start + self.count]


@dataclass(frozen=True, slots=True)
class Plan:
    """One step: the work to do, and what to announce before it."""

    works: tuple[Work, ...]
    events: tuple[Addressed, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """What was drawn for one sequence."""

    token_id: int
    logprobs: TokenLogprobs | None = None


PromptScore = tuple[TokenLogprobs, ...]  # of some neighbouring tokens of a prompt


class Scheduler:
    """Holds every sequence between its admission and its terminal event.

    `slots` is how many run at once, `step_tokens` how many positions one step computes at most;
    a step never computes fewer than one position for each decoding sequence and one of a prompt.
    """

    def __init__(self, slots: int, step_tokens: int) -> None:
        self._step_tokens = step_tokens
        self._free = list(range(slots))
        self._waiting: deque[Sequence] = deque()
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
        self._waiting.extend(Sequence(request_id, request) for request in requests)

    def plan(self, paused: Collection[str] = ()) -> Plan:
        """Admit what fits and choose the next step's work; requests in `paused` stand still."""
        events: list[Addressed] = []
        while self._waiting and self._free:
            sequence = self._waiting.popleft()
            sequence.slot = heapq.heappop(self._free)
            self._running.append(sequence)
            events.append((sequence.request_id, Started(sequence.request.index)))
        able = [s for s in self._running if s.request_id not in paused]
        works = [self._work(s, 1) for s in able if s.pending == 1]
        budget = max(1, self._step_tokens - len(works))  # prompts go on in any case
        for sequence in able:
            if sequence.pending > 1 and budget > 0:
                works.append(self._work(sequence, min(sequence.pending, budget)))
                budget -= works[-1].count
        return Plan(tuple(works), tuple(events))

    def commit(
        self,
        plan: Plan,
        samples: Iterable[Sample | RequestError],
        scores: Iterable[PromptScore | RequestError] = (),
    ) -> list[Addressed]:
        """Take over what a step did: one sample for each sampled work of `plan`, in its order, and
        one score for each scored one.

        A sample or a score that is an error ends its sequence with it.
        """
        events: list[Addressed] = []
        drawn, scored = iter(samples), iter(scores)
        for work in plan.works:
            sequence = work.sequence
            sequence.computed += work.count
            score = next(scored) if work.scored else ()
            sample = next(drawn) if work.sampled else None
            if isinstance(score, RequestError):
                events.append(self._fail(sequence, score))
                continue
            if score:
                events.append((sequence.request_id, PromptScored(sequence.request.index, score)))
            if isinstance(sample, RequestError):
                events.append(self._fail(sequence, sample))
            elif sample is not None:
                events.extend(self._extend(sequence, sample))
            elif not sequence.pending:  # nothing is to be generated
                events.append(self._finish(sequence, "length"))
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
        return [self._fail(sequence, error) for sequence in sequences]

    def _all(self) -> list[Sequence]:
        return [*self._running, *self._waiting]

    @staticmethod
    def _work(sequence: Sequence, count: int) -> Work:
        assert sequence.slot is not None
        request = sequence.request
        sampled = count == sequence.pending and request.max_tokens > 0
        scored = request.prompt_logprobs and sequence.computed + 1 < len(request.prompt_ids)
        return Work(sequence, sequence.slot, count, sampled, scored)

    def _extend(self, sequence: Sequence, sample: Sample) -> Iterable[Addressed]:
        request = sequence.request
        sequence.ids.append(sample.token_id)
        event = TokenEvent(request.index, sample.token_id, sample.logprobs)
        if sample.token_id in request.stop_ids:
            yield self._finish(sequence, "stop", event)
            return
        yield sequence.request_id, event
        if sequence.generated >= request.max_tokens:
            yield self._finish(sequence, "length")

    def _finish(
        self, sequence: Sequence, reason: FinishReason, stop: TokenEvent | None = None
    ) -> Addressed:
        self._leave(sequence)
        event = Finished(sequence.request.index, reason, sequence.generated, stop)
        return sequence.request_id, event

    def _fail(self, sequence: Sequence, error: RequestError) -> Addressed:
        self._leave(sequence)
        return sequence.request_id, Failed(sequence.request.index, error, sequence.generated)

    def _leave(self, sequence: Sequence) -> None:
        if sequence.slot is None:
            self._waiting.remove(sequence)
        else:
            self._running.remove(sequence)
            heapq.heappush(self._free, sequence.slot)
            sequence.slot = None
