"""An answer as a list of items, each a text or a tool call: what Responses and Messages share.

Both APIs tell of each item when it begins, when it grows and when it has ended, before the next
begins. The answer's events go in, these changes come out; how they look as JSON is each dialect's.
Pure. Read next: `streamtok.api.responses.events` and `streamtok.api.anthropic.events`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from streamtok.answer.events import (
    AnswerEvent,
    ChoiceEnded,
    Ended,
    TextDelta,
    Token,
    ToolCallBegan,
    ToolCallDelta,
)


@dataclass(slots=True)
class Item:
    """Item `number` of an answer: a call of `tool` with its arguments; text if that is empty.

    Its `tokens` are there where tokens are to be reported.
    """

    number: int
    tool: str
    deltas: list[str] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All of it up to now: text, or arguments as JSON text."""
        return "".join(self.deltas)


@dataclass(frozen=True, slots=True)
class ItemBegan:
    """An item is there, still empty."""

    item: Item


@dataclass(frozen=True, slots=True)
class ItemGrew:
    """An item has got longer, by `delta`, which is that of these `tokens`."""

    item: Item
    delta: str
    tokens: Sequence[Token] = ()


@dataclass(frozen=True, slots=True)
class ItemEnded:
    """An item is complete, or is as complete as it will be where it `is_last`."""

    item: Item
    is_last: bool


Change = ItemBegan | ItemGrew | ItemEnded


class Transcript:
    """The items of one choice; `reason` and `stop_text` say why it ended, once it has."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.reason: str | None = None
        self.stop_text: str | None = None
        self._untold: list[Token] = []  # of which no text is certain yet

    def feed(self, event: AnswerEvent) -> Iterator[Change]:
        """Yield what an event changes."""
        match event:
            case TextDelta(text=text):
                self._untold += event.tokens
                if text and (not self.items or self.items[-1].tool):
                    yield from self._begin("")
                if text:
                    yield self._grow(text)
            case ToolCallBegan(name=name):
                self._untold += event.tokens
                yield from self._begin(name)
            case ToolCallDelta(arguments=arguments):
                self._untold += event.tokens
                yield self._grow(arguments)
            case ChoiceEnded():
                self.reason, self.stop_text = event.reason, event.stop_text
                if self.items:
                    self.items[-1].tokens += [*self._untold, *filter(None, [event.stop])]
            case Ended() if self.items:
                yield ItemEnded(self.items[-1], is_last=True)

    def take(self, events: Iterable[AnswerEvent]) -> Sequence[Item]:
        """Take in events whose changes are of no interest; return the items."""
        for event in events:
            for _ in self.feed(event):
                pass
        return self.items

    def _begin(self, tool: str) -> Iterator[Change]:
        if self.items:
            yield ItemEnded(self.items[-1], is_last=False)
        self.items.append(Item(len(self.items), tool))
        yield ItemBegan(self.items[-1])

    def _grow(self, delta: str) -> Change:
        item = self.items[-1]
        tokens, self._untold = self._untold, []
        item.deltas.append(delta)
        item.tokens += tokens
        return ItemGrew(item, delta, tokens)
