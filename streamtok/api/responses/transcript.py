"""An answer as a list of items, each a text or a tool call: what Responses and Messages share.

Both APIs report each item when it begins, grows and ends, before the next one begins. `Transcript`
makes these changes of answer events; an `ItemDialect` makes JSON of both. No IO. Read next:
`streamtok.api.responses.events` and `streamtok.api.anthropic.events`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from msgspec import Struct, field

from streamtok.answer.events import (
    AnswerEvent,
    Began,
    ChoiceEnded,
    Ended,
    Failed,
    TextDelta,
    Token,
    ToolCallBegan,
    ToolCallDelta,
)
from streamtok.answer.render import Chunk


class Item(Struct):
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


class ItemBegan(Struct, frozen=True):
    """An item is there, still empty."""

    item: Item


class ItemGrew(Struct, frozen=True):
    """An item has got longer, by `delta`, which is that of these `tokens`."""

    item: Item
    delta: str
    tokens: Sequence[Token] = ()


class ItemEnded(Struct, frozen=True):
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
        self._pending: list[Token] = []  # of which no text is certain yet

    def feed(self, event: AnswerEvent) -> Iterator[Change]:
        """Yield what an event changes."""
        match event:
            case TextDelta(text=text):
                self._pending += event.tokens
                if text and (not self.items or self.items[-1].tool):
                    yield from self._begin("")
                if text:
                    yield self._grow(text)
            case ToolCallBegan(name=name):
                self._pending += event.tokens
                yield from self._begin(name)
            case ToolCallDelta(arguments=arguments):
                self._pending += event.tokens
                yield self._grow(arguments)
            case ChoiceEnded():
                self.reason, self.stop_text = event.reason, event.stop_text
                if self.items:
                    self.items[-1].tokens += [*self._pending, *filter(None, [event.stop])]
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
        tokens, self._pending = self._pending, []
        item.deltas.append(delta)
        item.tokens += tokens
        return ItemGrew(item, delta, tokens)


class ItemDialect(ABC):
    """A dialect that reports items: the chunks of an event, then those of the changes it makes."""

    def __init__(self) -> None:
        self.transcript = Transcript()
        self._table: dict[type, Callable[[Any], Iterable[Chunk]]] = {
            Began: self._began,
            Failed: self._failed,
            ItemBegan: self._item_began,
            ItemGrew: self._item_grew,
            ItemEnded: self._item_ended,
        }

    def chunks(self, event: AnswerEvent) -> Iterator[Chunk]:
        """See `Dialect.chunks`."""
        if made := self._table.get(type(event)):
            yield from made(event)
        for change in self.transcript.feed(event):
            yield from self._table[type(change)](change)

    @abstractmethod
    def _began(self, event: Began) -> Iterable[Chunk]: ...

    @abstractmethod
    def _failed(self, event: Failed) -> Iterable[Chunk]: ...

    @abstractmethod
    def _item_began(self, change: ItemBegan) -> Iterable[Chunk]: ...

    @abstractmethod
    def _item_grew(self, change: ItemGrew) -> Iterable[Chunk]: ...

    @abstractmethod
    def _item_ended(self, change: ItemEnded) -> Iterable[Chunk]: ...
