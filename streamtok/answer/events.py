"""Answer events, one type per meaning, in this order:

    Began, then of each choice Echo?, (TextDelta | ToolCallBegan | ToolCallDelta)*, Embedded?,
    ChoiceEnded, and when the last choice has ended: Ended

Failed may replace any of them, and is the last. A Heartbeat may come between any two before the
first token. Events of several choices are interleaved in any order; `index` is the choice.

A dialect (the JSON of one API) is a function of these events alone. They come in groups: what
is in the engine's queue at one time is handled in one go. Began, Ended, Failed and Heartbeat are
groups of their own. Whatever is to change an answer on its way, as fault injection does, takes a
stream of groups and returns another.
Knows neither the engine nor JSON. Read next: `streamtok.answer.choice`.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import ClassVar

from msgspec import Struct

from streamtok.errors import RequestError
from streamtok.messages import Embedding, TokenLogprobs


class Usage(Struct, frozen=True):
    """What a request has cost so far, in tokens.

    `completion_tokens` leave out what was generated after a stop string. `cached_tokens` of the
    prompts did not have to be computed; the choices of one prompt count once.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


class Token(Struct, frozen=True):
    """A token; its text begins after `offset` characters of the choice's text.

    `logprobs` are there where they were asked for, except for a prompt's first token.
    """

    id: int
    offset: int
    logprobs: TokenLogprobs | None


class Began(Struct, frozen=True):
    """The first sequence has left the queue. `created` is in seconds since 1970."""

    id: str
    created: int
    model: str
    fingerprint: str
    choices: int
    usage: Usage


class Echo(Struct, frozen=True):
    """The prompt, where the answer is to begin with it; `tokens` where they are to be reported."""

    index: int
    text: str
    tokens: tuple[Token, ...] = ()
    usage: Usage | None = None
    count: ClassVar[int] = 0


class TextDelta(Struct, frozen=True):
    """Text that is final, for which `count` tokens were generated.

    `tokens` are these where they are to be reported; `usage` is the sum up to here where every
    event is to carry it.
    """

    index: int
    text: str
    count: int
    tokens: tuple[Token, ...] = ()
    usage: Usage | None = None


class ToolCallBegan(Struct, frozen=True):
    """The model calls the tool `name`; `number` counts the calls of a choice from 0."""

    index: int
    number: int
    name: str
    count: int
    tokens: tuple[Token, ...] = ()
    usage: Usage | None = None


class ToolCallDelta(Struct, frozen=True):
    """More of the arguments of call `number`, which are JSON text."""

    index: int
    number: int
    arguments: str
    count: int
    tokens: tuple[Token, ...] = ()
    usage: Usage | None = None


class Embedded(Struct, frozen=True):
    """The prompt's embedding, which was asked for instead of text."""

    index: int
    embedding: Embedding
    usage: Usage | None = None
    count: ClassVar[int] = 0


class ChoiceEnded(Struct, frozen=True):
    """A choice is complete: `reason` is "stop", "length" or "tool_calls".

    `stop` is the token that ended it, if one did and tokens are to be reported; `stop_text` the
    stop string that was met.
    """

    index: int
    reason: str
    count: int
    stop: Token | None = None
    stop_text: str | None = None
    usage: Usage | None = None


class Ended(Struct, frozen=True):
    """All choices are complete, and the request is in the ledger."""

    usage: Usage


class Failed(Struct, frozen=True):
    """The answer cannot go on. `began` is there where it has not even begun."""

    error: RequestError
    began: Began | None = None


class Heartbeat(Struct, frozen=True):
    """No token has come for a while: the client gets a heartbeat, so that no proxy times out."""

    count: ClassVar[int] = 0


ChoiceEvent = Echo | TextDelta | ToolCallBegan | ToolCallDelta | Embedded | ChoiceEnded
AnswerEvent = Began | ChoiceEvent | Ended | Failed | Heartbeat
AnswerEvents = AsyncGenerator[Sequence[AnswerEvent], None]  # each item is what happened at once
