"""Which sequences are computed in the next step, and what its results mean. Pure: no arrays.

Theory of operation. The engine works in steps: plan, run, commit. A plan lists works; a work is
"compute the next `count` ids of this sequence", and all works of a step run as one batch. Between
steps sequences join (from the queue, as slots fall free) and leave (finished or cancelled). This is
continuous batching (Orca, OSDI 2022): no sequence waits for the slowest of a batch.

A sequence is a list of ids, of which the first `computed` are in the KV cache. During prefill many
ids are pending; while it decodes exactly one is, the token that was sampled last. There is no other
state, so the two phases differ in nothing but the count, and a sequence that comes with tokens that
another engine has generated simply has a longer prefill.

A step computes one position of every sequence that decodes, and spends part of what is left of its
token budget on prompts, in chunks (chunked prefill): a long prompt delays running streams little.
The budget is divided fairly among clients, and the queue serves clients in turn, so that many
prompts of one client do not delay those of another. A step that only decodes is filled up with
guessed tokens, where positions are free anyway; the verifier keeps the right ones.

Requests whose reader is slow are "paused": their sequences keep their slots and get no work.

What a step computes for a sequence never depends on the step's other works; the order of works,
the size of chunks and reuse of prefixes are all free to change without changing a token.

Every sequence ends with exactly one Finished or Failed; `_leave` is the only way out.

Read next: `streamtok.engine.plan`.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from msgspec.structs import replace

from streamtok.engine.commands import Addressed
from streamtok.engine.fairness import FairQueue, fair_shares
from streamtok.engine.plan import Drawn, Plan, PromptScore, Sample, Work
from streamtok.engine.prefix_cache import Copy, PrefixCache, is_ahead
from streamtok.engine.sequence import Drafter, Sequence
from streamtok.errors import RequestError
from streamtok.messages import (
    Embedding,
    Failed,
    Finished,
    FinishReason,
    Prefilled,
    PromptScored,
    SequenceRequest,
    Started,
    TokenEvent,
)

Budget = Callable[[int], int]  # positions of prompts next to so many that decode


class Scheduler:
    """Holds every sequence from its submission to its terminal event.

    `streams` is how many run at once, `step_tokens` how many positions one step computes at most;
    a step never computes fewer than one position for each decoding sequence and one of a prompt.
    `kept` is how many ended sequences leave their keys and values to others. A step that would
    compute fewer than `tile` positions is filled up with the guesses of a `drafter` for each
    sequence, if there is one. Where sequences wait, a paused one is suspended and gives up its
    slot, and so is the latest of a client that has two more. A `budget` bounds a step's prompts.
    """

    def __init__(
        self,
        streams: int,
        step_tokens: int,
        kept: int = 0,
        tile: int = 1,
        drafter: Callable[[], Drafter] | None = None,
        budget: Budget | None = None,
    ) -> None:
        self._step_tokens = step_tokens
        self._tile = tile
        self._cache = PrefixCache(streams, kept)
        self._drafter = drafter
        self._budget = budget
        self._waiting = FairQueue()
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
        """Queue the sequences of a request."""
        self._waiting.add(
            Sequence(request_id, request, self._drafter() if self._drafter else None)
            for request in requests
        )

    def plan(self, paused: Collection[str] = ()) -> Plan:
        """Admit what fits and choose the next step's work; requests in `paused` get none."""
        events, copies = self._admit(paused) if self._waiting else ([], [])
        able = [s for s in self._running if s.request_id not in paused]
        works = [self._work(s, 1) for s in able if s.pending == 1]
        prompts = [s for s in able if s.pending > 1]
        left = self._step_tokens - len(works)
        part = min(left, self._budget(len(works))) if self._budget else left
        prefills, reused = self._prefill(prompts, max(1, part))
        if not prefills:
            works = list(self._guess(works))
        wipes = self._cache.take_spoilt()
        ordered = sorted((*works, *prefills), key=lambda work: work.slot)
        return Plan(tuple(ordered), tuple(events), wipes, (*copies, *reused))

    def commit(
        self,
        plan: Plan,
        drawn: Iterable[Drawn],
        scores: Iterable[PromptScore | RequestError] = (),
        pools: Iterable[Embedding | RequestError | None] = (),
    ) -> list[Addressed]:
        """Apply the results of a step, in the order of the works of `plan`.

        They are what was `drawn` for each sampled work, one of `scores` for each scored one, and
        one of `pools` for each pooled one: its embedding, if it is complete.

        A result that is an error ends its sequence with it.
        """
        events: list[Addressed] = []
        samples, scored, pooled = iter(drawn), iter(scores), iter(pools)
        for work in plan.works:
            sequence = work.sequence
            sequence.computed += work.count
            if work.scored:
                sequence.scored = sequence.computed
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
            self._cache.spoil([*plan.wipes, *(copy.target for copy in plan.copies)])
        return [self._fail(sequence, error) for sequence in sequences]

    def _admit(self, paused: Collection[str]) -> tuple[list[Addressed], list[Copy]]:
        """Give slots to waiting sequences, as far as slots are free or can be freed."""
        events: list[Addressed] = []
        copies: list[Copy] = []
        held = Counter(sequence.request.client for sequence in self._running)
        while (sequence := self._waiting.next(held, paused)) is not None:
            if not self._cache.free:
                victim = self._victim(sequence, paused, held)
                if victim is None:
                    break
                self._suspend(victim)
                held[victim.request.client] -= 1
            self._waiting.take(sequence)
            copies += self._cache.admit(sequence)
            self._running.append(sequence)
            held[sequence.request.client] += 1
            if not sequence.suspended:
                events.append((sequence.request_id, Started(sequence.request.index)))
        return events, copies

    def _victim(
        self, waiting: Sequence, paused: Collection[str], held: Mapping[str, int]
    ) -> Sequence | None:
        """Return the sequence whose slot `waiting` may have; None if it has to wait.

        It is one that is paused, since its reader has enough to read, or else the latest of a
        client that would still have as many slots as the client of `waiting` afterwards.
        """
        latest = self._running[::-1]
        idle = (sequence for sequence in latest if sequence.request_id in paused)
        most = held.get(waiting.request.client, 0) + 1
        greedy = (sequence for sequence in latest if held[sequence.request.client] > most)
        return next(idle, None) or max(
            greedy, key=lambda sequence: held[sequence.request.client], default=None
        )

    def _suspend(self, sequence: Sequence) -> None:
        """Let a running sequence wait for another slot: it will go on as if it had kept this one.

        Its keys and values are copied from another slot, or computed again, with the same bits.
        """
        self._running.remove(sequence)
        self._cache.suspend(sequence)
        self._waiting.add_first(sequence)

    def _prefill(self, prompts: Collection[Sequence], budget: int) -> tuple[list[Work], list[Copy]]:
        """Spend `budget` positions on prompts, each client's oldest first."""
        works: list[Work] = []
        copies: list[Copy] = []
        wanted: Counter[str] = Counter()
        for sequence in prompts:
            wanted[sequence.request.client] += sequence.pending
        left = fair_shares(budget, wanted)
        for sequence in prompts:
            client = sequence.request.client
            if not left[client]:
                continue
            if sequence.untouched:
                if any(is_ahead(work.sequence, sequence) for work in works):
                    continue
                copies += self._cache.reuse(sequence)
            works.append(self._work(sequence, min(sequence.pending, left[client])))
            left[client] -= works[-1].count
        return works, copies

    def _all(self) -> list[Sequence]:
        return [*self._running, *self._waiting]

    @staticmethod
    def _work(sequence: Sequence, count: int) -> Work:
        assert sequence.slot is not None
        request = sequence.request
        scored = request.prompt_logprobs and sequence.computed + 1 < len(request.prompt_ids)
        if scored and sequence.computed < sequence.scored:  # it has been suspended since
            scored, count = False, min(count, sequence.scored - sequence.computed)
        sampled = count == sequence.pending and request.max_tokens > 0
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
        if work.guess and sequence.drafter:
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
        self._cache.forget(sequence)
        self._leave(sequence)
        return sequence.request_id, Failed(sequence.request.index, error, sequence.generated)

    def _leave(self, sequence: Sequence) -> None:
        sequence.drafter = sequence.guide = None  # the cache keeps the ids of ended sequences only
        if sequence.slot is None:
            self._waiting.remove(sequence)
        else:
            self._running.remove(sequence)
            self._cache.leave(sequence)
