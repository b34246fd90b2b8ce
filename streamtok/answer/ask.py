"""A validated request: what to generate, for which caller, and how the answer is sent.

Endpoints make an `Ask` of their JSON; the layers below read nothing else. Knows no JSON, no
HTTP and no model.

Read next: `streamtok.answer.limits`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from msgspec import Struct, field
from msgspec.structs import replace

from streamtok.answer.choice import TextRules
from streamtok.http.framings import OFFERS, Offer
from streamtok.http.tracer import Trace
from streamtok.messages import Constraint, SamplingParams, SequenceRequest


class Surface(Struct, frozen=True):
    """How one API differs from another in requesting text, apart from its JSON.

    `path` is what the ledger records, `id_prefix` what the answers' ids begin with, `prompt_field`
    the request's field that holds the prompt, `offers` the framings a stream may have.
    """

    path: str
    id_prefix: str
    prompt_field: str
    offers: Sequence[Offer] = OFFERS


class Ask(Struct, frozen=True, kw_only=True):
    """A validated request.

    `key` is the name of the API key it came with, empty where none is needed; `caller` is whose
    limits it counts for. Of each of the `prompts`, token ids, `candidates` sequences are generated
    and the best `choices` returned. The first is sampled with `sampling`, the next ones with the
    seeds that follow. `echoes` has the text that each prompt's answers begin with, or nothing; with
    `score_prompts` the prompts' tokens are reported with log-probabilities. `constraint` is what
    the text must be, made of `parts`; with `embed` no text is wanted, but the prompts' embeddings.
    With `running_usage` every event carries the usage so far. `named` is the model as the request
    names it, and `chat` its conversation, if it is one.
    """

    surface: Surface
    model: str
    key: str
    caller: str
    stream: bool
    prompts: Sequence[tuple[int, ...]]
    max_tokens: int
    sampling: SamplingParams
    choices: int = 1
    candidates: int = 1
    min_tokens: int = 0
    stop_ids: frozenset[int] = frozenset()
    rules: TextRules = field(default_factory=TextRules)
    echoes: Sequence[str] = ()
    constraint: Constraint | None = None
    parts: Sequence[Constraint] = ()
    score_prompts: bool = False
    embed: bool = False
    running_usage: bool = False
    trace: Trace | None = None
    named: str | None = None
    chat: Any = None

    @property
    def prompt_tokens(self) -> int:
        """How many tokens the prompts have together."""
        return sum(map(len, self.prompts))

    @property
    def echo_of_each(self) -> Sequence[str | None]:
        """What each sequence's answer begins with."""
        echoes: Sequence[str | None] = self.echoes or [None] * len(self.prompts)
        return [text for text in echoes for _ in range(self.candidates)]

    def sequences(self, context: int) -> list[SequenceRequest]:
        """Return the sequences to generate in a model's `context`, the candidates of each prompt
        side by side.
        """
        sampling = self.sampling
        return [
            SequenceRequest(
                index=index,
                prompt_ids=ids,
                sampling=replace(sampling, seed=sampling.seed + index) if index else sampling,
                max_tokens=min(self.max_tokens, context - len(ids)),
                stop_ids=self.stop_ids,
                min_tokens=self.min_tokens,
                prompt_logprobs=self.score_prompts,
                client=self.caller,
                constraint=self.constraint,
                embed=self.embed,
            )
            for index, ids in enumerate(ids for ids in self.prompts for _ in range(self.candidates))
        ]


class Alarm(Protocol):
    """A timer that is running."""

    def cancel(self) -> None:
        """Stop the timer; its callback is not called."""


Timer = Callable[[Callable[[], None]], Alarm]  # calls what it is given when its time is over


class Timers(Struct, frozen=True):
    """Timers of a request: its heartbeats, and its deadline."""

    heartbeat: Timer | None = None
    deadline: Timer | None = None
