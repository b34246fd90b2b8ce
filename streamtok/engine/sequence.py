"""One sequence on its way: what is known of it, how far it is computed, which slot holds it."""

from dataclasses import dataclass, field

from streamtok.engine.extras.drafts import Drafter
from streamtok.engine.extras.grammars import Guide
from streamtok.messages import SequenceRequest
from streamtok.model.weights import Array


@dataclass(slots=True, eq=False)
class Sequence:
    """The state of one sequence, owned by the scheduler.

    `ids` are the prompt and what was sampled since; the keys and values of the first `computed`
    of them lie in the cache, in `slot` (None while waiting, and after the end). The first `cached`
    of these were computed for another sequence. `guide` knows where it is in its grammar, once the
    first token is drawn of one that has a constraint. `states` is the sum of its final states so
    far, [D], where these are wanted.
    """

    request_id: str
    request: SequenceRequest
    ids: list[int] = field(default_factory=list)
    computed: int = 0
    cached: int = 0
    slot: int | None = None
    drafter: Drafter = field(default_factory=Drafter)
    guide: Guide | None = None
    states: Array | None = None

    def __post_init__(self) -> None:
        self.ids.extend(self.request.prompt_ids)

    @property
    def pending(self) -> int:
        """How many ids are known but not computed: one while decoding, more during prefill."""
        return len(self.ids) - self.computed

    @property
    def untouched(self) -> bool:
        """Whether nothing has been computed for it yet."""
        return self.computed == self.cached

    @property
    def generated(self) -> int:
        """How many tokens have been sampled."""
        return len(self.ids) - len(self.request.prompt_ids)

    @property
    def left(self) -> int:
        """How many tokens may still be sampled."""
        return self.request.max_tokens - self.generated

    def guess(self, most: int) -> tuple[int, ...]:
        """Return what may come next, `most` tokens or none: first of all what a grammar forces."""
        forced = self.guide.forced(most) if self.guide else ()
        return forced or self.drafter.guess(self.ids, most)
