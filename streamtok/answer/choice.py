"""One choice of an answer, on its way from token ids to pieces of text.

Text leaves as soon as it is certain: complete characters, and nothing that may become a stop
string. With it go the tokens it took, where they are to be reported. A choice may begin with its
prompt (`echo`), and may call functions, which is not content. Knows neither the engine nor JSON.
Read next: `streamtok.answer.generation`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from msgspec import Struct
from msgspec.structs import replace

from streamtok.messages import (
    Embedding,
    Finished,
    PromptScored,
    SequenceRequest,
    TokenEvent,
    TokenLogprobs,
)
from streamtok.text.detokenizer import Detokenizers
from streamtok.text.stops import StopMatcher
from streamtok.text.tool_calls.reader import CallPart, CallReader


@dataclass(frozen=True, slots=True)
class TextRules:
    """How ids become text: where it stops, whether special tokens show their names in it, whether
    its tokens are reported one by one, and whether there may be calls in it.

    Stop strings are looked for in the content only, not in calls.
    """

    stops: tuple[str, ...] = ()
    special: bool = False
    detailed: bool = False
    calls: bool = False


class Token(Struct, frozen=True):
    """A token; its text begins behind `offset` characters of the choice's text.

    `logprobs` are there where they were asked for, except for a prompt's first token.
    """

    id: int
    offset: int
    logprobs: TokenLogprobs | None


class Piece(Struct, frozen=True):
    """Text that became certain for choice `index`, with the `count` tokens generated for it.

    What is new of `calls` comes after the text.
    `tokens` holds them where they are to be reported. The last piece of a choice carries its finish
    reason, may have no text, and has the token that is the reason apart, in `stop`. One that
    `is_prompt` is the prompt, before all that is generated. `stop_text` is the stop string that was
    met, `embedding` what was asked for instead of text.
    """

    index: int
    text: str
    count: int
    tokens: tuple[Token, ...]
    finish_reason: str | None
    is_prompt: bool = False
    stop: Token | None = None
    stop_text: str | None = None
    embedding: Embedding | None = None
    calls: tuple[CallPart, ...] = ()


def split(piece: Piece) -> tuple[Piece, Piece]:
    """Return the last piece of a choice in two: its text, and why it ended."""
    body = replace(piece, finish_reason=None, stop=None)
    return body, replace(piece, text="", count=0, tokens=(), calls=())


def token_ids(pieces: Sequence[Piece]) -> list[int]:
    """Return the generated tokens of `pieces`, which report them."""
    return [token.id for token in tokens(p for p in pieces if not p.is_prompt)]


def tokens(pieces: Iterable[Piece]) -> Iterator[Token]:
    """Yield all that `pieces` report, the one that ended the text too."""
    for piece in pieces:
        yield from piece.tokens
        if piece.stop:
            yield piece.stop


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
        self._rules = rules
        self._echo = echo
        self._detokenizers = detokenizers
        self._detokenizer = detokenizers.make(
            request.prompt_ids, special=rules.special, within=request.constraint is not None
        )
        if echo is not None:
            self._detokenizer.follow(echo)
        self._stops = StopMatcher(rules.stops)
        self._reader = CallReader() if rules.calls else None
        self._scores: list[TokenLogprobs | None] = [None]  # of the prompt's tokens
        self._offset = 0
        self._held = 0  # tokens whose text has not come out
        self._tokens: list[Token] = []  # the same tokens, where they are to be reported

    def begin(self) -> Piece | None:
        """Return the prompt, if it is wanted and there is nothing more to be said of it."""
        complete = len(self._request.prompt_ids) == 1 or not self._request.prompt_logprobs
        return None if self._echo is None or not complete else self._prompt(self._echo)

    def score(self, event: PromptScored) -> Piece | None:
        """Return the prompt when the last of its tokens' scores is in `event`."""
        self._scores.extend(event.logprobs)
        complete = len(self._scores) == len(self._request.prompt_ids)
        return self._prompt(self._echo) if complete and self._echo is not None else None

    def feed(self, event: TokenEvent) -> Piece | None:
        """Return the text that `event` makes certain, if any; a stop string finishes the choice."""
        text = self._detokenizer.feed(event.token_id)
        self._held += 1
        if self._rules.detailed:
            self._tokens.append(Token(event.token_id, self._offset, event.logprobs))
            self._offset += len(text)
        calls: tuple[CallPart, ...] = ()
        if self._reader is not None:
            text, calls = self._reader.feed(text)
        text = self._stops.feed(text)
        if self._stops.matched is not None:
            self.finish_reason, calls = "stop", ()
        if calls:
            text += self._stops.flush()  # there is no more content behind it
        return self._piece(text, calls=calls) if text or calls or self.finish_reason else None

    def finish(self, event: Finished) -> Piece:
        """Return the last piece: what was held back, and why it ended."""
        tail = self._detokenizer.flush()
        calls: tuple[CallPart, ...] = ()
        text = tail
        if self._reader is not None:
            text, calls = self._reader.feed(tail)
        text = self._stops.feed(text) + self._stops.flush()
        self.finish_reason = "stop" if self._stops.matched is not None else event.reason
        if self._reader is not None and self._reader.made and self.finish_reason == "stop":
            self.finish_reason = "tool_calls"
        self._held += event.stop is not None  # the token that ended the text, which has none
        self._offset += len(tail)
        piece = self._piece(text, event.stop, calls)
        return replace(piece, embedding=event.embedding) if event.embedding else piece

    def _piece(
        self, text: str, ended_by: TokenEvent | None = None, calls: tuple[CallPart, ...] = ()
    ) -> Piece:
        stop = None
        if ended_by and self._rules.detailed:
            stop = Token(ended_by.token_id, self._offset, ended_by.logprobs)
        tokens, reason = tuple(self._tokens), self.finish_reason
        met = self._stops.matched
        piece = Piece(
            self.index, text, self._held, tokens, reason, stop=stop, stop_text=met, calls=calls
        )
        self._held, self._tokens = 0, []
        return piece

    def _prompt(self, text: str) -> Piece:
        ids, scored = self._request.prompt_ids, self._request.prompt_logprobs
        places = list(self._places(text, ids))
        self._offset = len(text)
        scores = zip(ids, places, self._scores, strict=True) if scored else ()
        tokens = tuple(Token(*score) for score in scores)
        return Piece(self.index, text, 0, tokens, None, is_prompt=True)

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
