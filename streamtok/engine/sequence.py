"""One sequence: its ids, how far they are computed, and which slot of the KV cache holds it.

Read next: `streamtok.engine.runner`.
"""

from collections.abc import Collection
from copy import copy
from typing import Protocol

import numpy as np
import numpy.typing as npt
from msgspec import Struct, field

from streamtok.messages import SequenceRequest
from streamtok.model.weights import Array

Mask = npt.NDArray[np.bool_]  # [V]


class Drafter(Protocol):
    """Guesses how one sequence continues; see `streamtok.engine.extras.drafts`."""

    def guess(self, ids: list[int], most: int) -> tuple[int, ...]:
        """Return what may follow `ids`, `most` tokens or fewer."""

    def learn(self, right: int) -> None:
        """Take note of how many tokens of the last guess were right."""


class Guide(Protocol):
    """Follows one sequence through its grammar; see `streamtok.engine.extras.grammars`."""

    def allowed(self, barred_ids: Collection[int] = ()) -> Mask:
        """Return which tokens may come next, at least one: without `barred_ids` if possible."""

    def forced(self, most: int) -> tuple[int, ...]:
        """Return the next tokens, `most` or fewer, where the grammar leaves no choice."""

    def take(self, token_id: int) -> bool:
        """Advance by a token that was allowed; return whether the text is complete with it."""


class Sequence(Struct, eq=False):
    """The state of one sequence, owned by the scheduler.

    `ids` are the prompt and what was sampled since; the keys and values of the first `computed`
    of them are in the cache, in `slot` (None while waiting, and after the end). The first `reused`
    of these were copied into the slot; `cached` is how many that were when it first got one, which
    is what its client is sent. `guide` is there once the first token is drawn, if the request has a
    constraint. `states` is the sum of its final states so far, [D], if the request is for an
    embedding. A `suspended` one has had a slot before; the log-probabilities of its prompt have
    been reported up to position `scored`.
    """

    request_id: str
    request: SequenceRequest
    drafter: Drafter | None = None
    ids: list[int] = field(default_factory=list)
    computed: int = 0
    cached: int = 0
    reused: int = 0
    scored: int = 0
    suspended: bool = False
    slot: int | None = None
    guide: Guide | None = None
    states: Array | None = None

    def __post_init__(self) -> None:
        self.ids.extend(self.request.prompt_ids)
        self.ids.extend(self.request.generated_ids)

    @property
    def pending(self) -> int:
        """How many ids are known but not computed: one while decoding, more during prefill."""
        return len(self.ids) - self.computed

    @property
    def untouched(self) -> bool:
        """Whether nothing has been computed for it yet."""
        return self.computed == self.reused

    def start_from(self, count: int) -> None:
        """Begin with the first `count` positions already in the slot."""
        self.computed = self.reused = count
        if not self.suspended:
            self.cached = count

    def suspend(self) -> "Sequence":
        """Give up the slot, so that all is computed anew in the next one; return what stays there.

        What stays is a copy, because the ids of this sequence will go on and those in the slot
        will not.
        """
        left = copy(self)
        left.ids, left.slot = self.ids[: self.computed], None
        left.drafter = left.guide = left.states = None
        self.suspended, self.slot, self.states = True, None, None
        self.computed = self.reused = 0
        return left

    @property
    def generated(self) -> int:
        """How many tokens have been sampled."""
        return len(self.ids) - len(self.request.prompt_ids)

    @property
    def left(self) -> int:
        """How many tokens may still be sampled."""
        return self.request.max_tokens - self.generated

    def guess(self, most: int) -> tuple[int, ...]:
        """Return what may come next, `most` tokens or fewer: what a grammar forces, if anything."""
        if self.guide and (forced := self.guide.forced(most)):
            return forced
        return self.drafter.guess(self.ids, most) if self.drafter else ()
