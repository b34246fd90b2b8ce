"""The plan of one step, and what is drawn from its results: values that scheduler, runner and
sampler exchange.

Read next: `streamtok.engine.fairness`.
"""

from msgspec import Struct

from streamtok.engine.commands import Addressed
from streamtok.engine.prefix_cache import Copy
from streamtok.engine.sequence import Sequence
from streamtok.errors import RequestError
from streamtok.messages import TokenLogprobs


class Work(Struct, frozen=True):
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
        """The prompt's tokens that the first rows of logits are scores for, if it is scored."""
        start = self.sequence.computed + 1
        return self.sequence.request.prompt_ids[start : start + self.count]


class Plan(Struct, frozen=True):
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


class Sample(Struct, frozen=True):
    """What was drawn for one sequence; `completes` says that its grammar lets nothing follow."""

    token_id: int
    logprobs: TokenLogprobs | None = None
    completes: bool = False


Drawn = list[Sample | RequestError]  # for one sequence, in order; an error is the last
PromptScore = tuple[TokenLogprobs, ...]  # of some neighbouring tokens of a prompt
