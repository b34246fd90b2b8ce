"""One choice of an answer: token ids in, answer events out.

Text is emitted as soon as it is certain: complete characters, and nothing that may become a stop
string. The tokens it took go with it, where they are reported (`logprobs`). A choice may begin with
its prompt (`echo`), and may call tools, which is not content. Knows neither the engine nor JSON.

Read next: `streamtok.text.detokenizer`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from msgspec import Struct

from streamtok.answer.events import (
    ChoiceEnded,
    ChoiceEvent,
    Echo,
    Embedded,
    TextDelta,
    Token,
    ToolCallBegan,
    ToolCallDelta,
)
from streamtok.messages import Finished, PromptScored, SequenceRequest, TokenEvent, TokenLogprobs
from streamtok.text.detokenizer import Detokenizers
from streamtok.text.stops import StopMatcher


class CallPart(Protocol):
    """What is new of the call `number`: its `name` once, then more of its `arguments`."""

    @property
    def number(self) -> int:
        """Which call of the choice, from 0."""

    @property
    def name(self) -> str:
        """The tool's name, in the first part of a call; else empty."""

    @property
    def arguments(self) -> str:
        """More of the JSON text of its arguments."""


class CallReader(Protocol):
    """Separates tool calls from content; `made` is how many calls are complete."""

    made: int

    def feed(self, text: str) -> tuple[str, Sequence[CallPart]]:
        """Return what is new of the content, and then of calls."""


class TextRules(Struct, frozen=True):
    """How ids become text: where it stops, whether special tokens show their names in it, whether
    its tokens are reported one by one, and what reads the calls in it, if there may be any.

    Stop strings are looked for in the content only, not in calls.
    """

    stops: tuple[str, ...] = ()
    special: bool = False
    detailed: bool = False
    reader: Callable[[], CallReader] | None = None


class Choice:
    """One sequence; `echo` is the text of its prompt, where the answer is to begin with it."""

    def __init__(
        self,
        request: SequenceRequest,
        detokenizers: Detokenizers,
        rules: TextRules,
        echo: str | None = None,
    ) -> None:
        self.index = request.index
        self.finish_reason: str | None = None
        self._request = request
        self._detailed = rules.detailed
        self._echo = echo
        self._detokenizers = detokenizers
        self._detokenizer = detokenizers.make(
            request.prompt_ids, special=rules.special, within=request.constraint is not None
        )
        if echo is not None:
            self._detokenizer.follow(echo)
        self._stops = StopMatcher(rules.stops) if rules.stops else None
        self._reader = rules.reader() if rules.reader else None
        self._plain = not (rules.detailed or rules.stops or rules.reader)
        self._scores: list[TokenLogprobs | None] = [None]  # of the prompt's tokens
        self._offset = 0
        self._held = 0  # tokens whose text has not come out
        self._tokens: list[Token] = []  # the same tokens, where they are to be reported

    def begin(self) -> Echo | None:
        """Return the prompt, if it is wanted and its tokens need not be scored first."""
        complete = len(self._request.prompt_ids) == 1 or not self._request.prompt_logprobs
        return None if self._echo is None or not complete else self._prompt(self._echo)

    def score(self, event: PromptScored) -> Sequence[Echo]:
        """Return the prompt when the last of its tokens' scores is in `event`."""
        self._scores.extend(event.logprobs)
        complete = len(self._scores) == len(self._request.prompt_ids)
        return (self._prompt(self._echo),) if complete and self._echo is not None else ()

    def feed(self, event: TokenEvent) -> Sequence[ChoiceEvent]:
        """Return what `event` makes certain, if anything; a stop string ends the choice."""
        text = self._detokenizer.feed(event.token_id)
        self._held += 1
        if self._plain:  # most tokens go this way
            if not text:
                return ()
            count, self._held = self._held, 0
            return (TextDelta(self.index, text, count),)
        if self._detailed:
            self._tokens.append(Token(event.token_id, self._offset, event.logprobs))
            self._offset += len(text)
        calls: Sequence[CallPart] = ()
        if self._reader is not None:
            text, calls = self._reader.feed(text)
        if self._stops is not None:
            text = self._stops.feed(text)
            if self._stops.matched is not None:
                self.finish_reason = "stop"
                return [*self._made(text), self._end()]
            if calls:
                text += self._stops.flush()  # no more content follows
        return self._made(text, calls) if text or calls else ()

    def finish(self, event: Finished) -> Sequence[ChoiceEvent]:
        """Return what was held back, and why the choice ended."""
        tail = text = self._detokenizer.flush()
        calls: Sequence[CallPart] = ()
        self.finish_reason = event.reason
        if self._reader is not None:
            text, calls = self._reader.feed(tail)
        if self._stops is not None:
            text = self._stops.feed(text) + self._stops.flush()
            if self._stops.matched is not None:
                self.finish_reason = "stop"
        if self._reader is not None and self._reader.made and self.finish_reason == "stop":
            self.finish_reason = "tool_calls"
        self._held += event.stop is not None  # the token that ended the text, which has none
        self._offset += len(tail)
        made = self._made(text, calls)
        if event.embedding is not None:
            made.append(Embedded(self.index, event.embedding))
        return [*made, self._end(event.stop)]

    def _made(self, text: str, calls: Sequence[CallPart] = ()) -> list[ChoiceEvent]:
        """Return the events of what is certain; the first carries the tokens it took."""
        made: list[ChoiceEvent] = []
        if text or (self._tokens and not calls):
            made.append(TextDelta(self.index, text, *self._take()))
        for part in calls:
            if part.name:
                made.append(ToolCallBegan(self.index, part.number, part.name, *self._take()))
            if part.arguments:
                made.append(ToolCallDelta(self.index, part.number, part.arguments, *self._take()))
        return made

    def _take(self) -> tuple[int, tuple[Token, ...]]:
        """Return how many tokens there were since the last event, and the reported ones."""
        taken = self._held, tuple(self._tokens)
        self._held = 0
        self._tokens.clear()
        return taken

    def _end(self, ended_by: TokenEvent | None = None) -> ChoiceEnded:
        assert self.finish_reason is not None
        stop = None
        if ended_by and self._detailed:
            stop = Token(ended_by.token_id, self._offset, ended_by.logprobs)
        count, _ = self._take()
        matched = self._stops.matched if self._stops is not None else None
        return ChoiceEnded(self.index, self.finish_reason, count, stop, matched)

    def _prompt(self, text: str) -> Echo:
        ids, scored = self._request.prompt_ids, self._request.prompt_logprobs
        places = list(self._places(text, ids))
        self._offset = len(text)
        scores = zip(ids, places, self._scores, strict=True) if scored else ()
        return Echo(self.index, text, tuple(Token(*score) for score in scores))

    def _places(self, text: str, ids: tuple[int, ...]) -> Iterator[int]:
        """Yield where each of `ids` begins in `text`; a special token may not be written there."""
        place, detokenizer = 0, self._detokenizers.make()
        for token_id in ids:
            yield min(place, len(text))
            name = self._detokenizers.special_name(token_id)
            if not name:
                place += len(detokenizer.feed(token_id))
            elif text.startswith(name, place):
                place += len(name)
