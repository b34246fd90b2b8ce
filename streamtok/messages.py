"""Frozen values that cross layers: the engine's requests and events.

The engine deals in token ids only; text, HTTP and JSON live elsewhere. One request may hold several
sequences (the prompts of a batch, the `n` choices of a chat); their events share one queue and
carry the sequence's `index`. For every sequence the events come in this order:

    Started, PromptScored*, Prefilled, TokenEvent*, then exactly one of Finished or Failed

The end may come at any point.

Read next: `streamtok.engine.commands`.
"""

from typing import Literal

from msgspec import Struct

from streamtok.errors import RequestError

FinishReason = Literal["stop", "length", "cancelled", "content_filter"]
ConstraintKind = Literal["json_schema", "lark", "regex", "gbnf"]
Embedding = tuple[float, ...]  # of length one, in single precision


class Constraint(Struct, frozen=True):
    """What a text must be: JSON that a schema describes, or what a grammar or a regex matches.

    The syntax of grammars is Lark's, or GBNF, that of llama.cpp. `field` is where it stood in the
    request, such as "response_format.json_schema.schema".
    """

    kind: ConstraintKind
    text: str
    field: str

    @property
    def param(self) -> str:
        """The field of the request at its top level."""
        return self.field.partition(".")[0].partition("[")[0]


class SamplingParams(Struct, frozen=True):
    """How the next token is chosen from the logits; the neutral value of each field does nothing.

    `seed` and the token's position alone decide the random draw, so that the same request gives
    the same tokens whatever else is being served. `top_logprobs` is how many alternatives to
    report with each token's own log-probability; None reports nothing.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int = 0
    top_logprobs: int | None = None

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken: at 0, or so near that scores overflow."""
        return self.temperature < 1e-5


class SequenceRequest(Struct, frozen=True):
    """One sequence to generate: the one numbered `index` of its request.

    Generation ends at `max_tokens` tokens (0: once the prompt is computed) or at a token in
    `stop_ids`, which is not drawn among the first `min_tokens`. With `prompt_logprobs` the prompt's
    tokens are reported too, so that each of them must be computed; `sampling.top_logprobs` is then
    not None. `client` is the caller: clients take turns, and only sequences of one client share
    each other's prompts. With a `constraint` the text ends where that is satisfied: by one of
    the model's own stop tokens, which it allows then, or by itself where nothing can follow. With
    `embed`, which nothing is generated for, its end brings the prompt's embedding.

    `generated_ids` are tokens that another engine has sampled already: generation continues after
    them as if this engine had, since every draw depends on the seed and the position alone. They
    count towards `max_tokens` and are not reported again.
    """

    index: int
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams
    max_tokens: int
    stop_ids: frozenset[int] = frozenset()
    min_tokens: int = 0
    prompt_logprobs: bool = False
    client: str = ""
    constraint: Constraint | None = None
    embed: bool = False
    generated_ids: tuple[int, ...] = ()


class TokenLogprobs(Struct, frozen=True):
    """Log-probabilities (natural log, before any sampling modifier) at one position."""

    logprob: float
    top: tuple[tuple[int, float], ...]


class Started(Struct, frozen=True):
    """The sequence has left the queue: its prefill begins with the next engine step."""

    index: int


class PromptScored(Struct, frozen=True):
    """The prompt's next tokens, as many as `logprobs`; its first token has none and is left out."""

    index: int
    logprobs: tuple[TokenLogprobs, ...]


class Prefilled(Struct, frozen=True):
    """The prompt is computed; `cached` of its tokens had been for another sequence."""

    index: int
    cached: int


class TokenEvent(Struct, frozen=True):
    """One sampled token."""

    index: int
    token_id: int
    logprobs: TokenLogprobs | None = None


class Finished(Struct, frozen=True):
    """The sequence ended; `generated` counts every token sampled, the stop token included.

    `stop` is the token that ended the text, if one did; `embedding` is the prompt's, if it was
    asked for.
    """

    index: int
    reason: FinishReason
    generated: int
    stop: TokenEvent | None = None
    embedding: Embedding | None = None


class Failed(Struct, frozen=True):
    """The sequence cannot go on; `generated` tokens had been sampled until then."""

    index: int
    error: RequestError
    generated: int


class Waiting(Struct, frozen=True):
    """Nothing has come for a while: the client is owed a sign of life. Not an engine's event."""


Event = Started | PromptScored | Prefilled | TokenEvent | Finished | Failed


class EngineStats(Struct, frozen=True):
    """How busy an engine is at this moment, counted in sequences.

    Since the start, its process was replaced `restarts` times, and `resumed` sequences were
    continued by a replacement; `replicas` are its parts, if it has any.
    """

    running: int
    queued: int
    restarts: int = 0
    resumed: int = 0
    replicas: tuple["EngineStats", ...] = ()
