"""An answer that is not streamed: the events of each choice joined, the best choices selected.

Read next: `streamtok.http.framings`.
"""

import math
from collections.abc import Iterator, Sequence

from msgspec import Struct, field

from streamtok.answer.events import (
    AnswerEvents,
    Began,
    ChoiceEnded,
    ChoiceEvent,
    Echo,
    Embedded,
    Ended,
    Failed,
    Heartbeat,
    TextDelta,
    Token,
    ToolCallBegan,
    ToolCallDelta,
    Usage,
)
from streamtok.messages import Embedding


class ToolCall(Struct):
    """A call of the tool `name`; its `arguments` are JSON text, incomplete where it was cut."""

    name: str
    arguments: str = ""


class CompleteChoice(Struct):
    """All of one choice. Its `text` begins with the prompt where that is echoed.

    `prompt_tokens` and `tokens` are those of the prompt and of the answer that are to be reported;
    `stop` is the token that ended it. See `streamtok.answer.events`.
    """

    texts: list[str] = field(default_factory=list)
    prompt_tokens: list[Token] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    embedding: Embedding = ()
    reason: str = ""
    stop: Token | None = None
    stop_text: str | None = None
    events: list[ChoiceEvent] = field(default_factory=list)

    def add(self, event: ChoiceEvent) -> None:
        """Take in what is new."""
        self.events.append(event)
        if isinstance(event, TextDelta | ToolCallBegan | ToolCallDelta):
            self.tokens.extend(event.tokens)
        match event:
            case Echo():
                self.texts.append(event.text)
                self.prompt_tokens.extend(event.tokens)
            case TextDelta():
                self.texts.append(event.text)
            case ToolCallBegan():
                self.calls.append(ToolCall(event.name))
            case ToolCallDelta():
                self.calls[-1].arguments += event.arguments
            case Embedded():
                self.embedding = event.embedding
            case ChoiceEnded():
                self.reason, self.stop, self.stop_text = event.reason, event.stop, event.stop_text

    @property
    def text(self) -> str:
        """All of the text."""
        return "".join(self.texts)

    @property
    def generated(self) -> Iterator[Token]:
        """The answer's tokens, with the one that ended it."""
        yield from self.tokens
        if self.stop is not None:
            yield self.stop


class CompleteAnswer(Struct, frozen=True):
    """All of an answer, with the choices that were asked for, in order."""

    began: Began
    choices: Sequence[CompleteChoice]
    usage: Usage


async def collect(events: AnswerEvents, choices: int, candidates: int) -> CompleteAnswer:
    """Return the answer of `events`, with the best `choices` of each prompt's `candidates`.

    Raises:
        RequestError: it failed.
    """
    began: Began | None = None
    found: list[CompleteChoice] = []
    async for group in events:
        for event in group:
            if isinstance(event, Began):
                began, found = event, [CompleteChoice() for _ in range(event.choices)]
            elif isinstance(event, Failed):
                raise event.error
            elif isinstance(event, Ended):
                assert began is not None
                starts = range(0, len(found), candidates)
                kept = (best(found[start : start + candidates], choices) for start in starts)
                return CompleteAnswer(began, [one for some in kept for one in some], event.usage)
            elif not isinstance(event, Heartbeat):
                found[event.index].add(event)
    raise AssertionError("the answer has no end")


def best(candidates: Sequence[CompleteChoice], choices: int) -> Sequence[CompleteChoice]:
    """Return the `choices` with the highest log-probability per token, the highest first.

    Where all are wanted they stay in order.
    """
    if choices == len(candidates):
        return candidates
    return sorted(candidates, key=_mean_logprob, reverse=True)[:choices]


def _mean_logprob(choice: CompleteChoice) -> float:
    """Return the mean over the generated tokens; minus infinity for an answer without any."""
    logprobs = [token.logprobs.logprob for token in choice.generated if token.logprobs]
    return sum(logprobs) / len(logprobs) if logprobs else -math.inf
