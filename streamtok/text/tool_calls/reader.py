"""Calls of functions within a text: the form they have, and how they are read as they are made.

    some text <tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>

This is the form of Hermes, Qwen and others. A grammar holds the text to it from the tag on, so that
it is read here without doubts, piece by piece: what comes before the first tag is content, names
are reported when they are known, arguments as they come. Pure.

Read next: `streamtok.text.template`, which tells the model of the functions there are.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from msgspec import Struct

from streamtok.text.stops import overlap

OPEN, CLOSE = "<tool_call>", "</tool_call>"
HEAD = re.compile(r'\s*\{"name": ?"([^"]*)", ?"arguments": ?')


def write_call(name: str, arguments: str) -> str:
    """Return a call as text; `arguments` are JSON already."""
    return f'{OPEN}\n{{"name": {json.dumps(name)}, "arguments": {arguments}}}\n{CLOSE}'


class CallPart(Struct, frozen=True):
    """What is new of the call `number` of a text: its `name` once, then more of its arguments."""

    number: int
    name: str = ""
    arguments: str = ""


class TagReader(ABC):
    """Reads one text whose calls begin with `tag`.

    `made` is how many calls are complete, `begun` whether one is not.
    """

    def __init__(self, tag: str) -> None:
        self.made = 0
        self.begun = False
        self._tag = tag
        self._held = ""  # what is still ambiguous
        self._read: Callable[[], Iterator[str | CallPart]] = self._content

    def feed(self, text: str) -> tuple[str, tuple[CallPart, ...]]:
        """Return what is new of the content, and then of calls.

        What may become a tag is held back; at the end of a text it is none, nor anything else.
        """
        self._held += text
        parts: list[str | CallPart] = []
        reading = None
        while reading != self._read:
            reading = self._read
            parts += reading()
        content = "".join(part for part in parts if isinstance(part, str))
        return content, tuple(_joined(part for part in parts if isinstance(part, CallPart)))

    def _content(self) -> Iterator[str | CallPart]:
        content, tag, rest = self._held.partition(self._tag)
        if tag:
            self._held, self._read, self.begun = rest, self._call, True
        else:
            keep = overlap(content, self._tag)
            self._held = content[len(content) - keep :]
            content = content[: len(content) - keep]
        if content and not self.made:  # between calls there is nothing but white space
            yield content

    @abstractmethod
    def _call(self) -> Iterator[CallPart]:
        """Yield what is new of a call, after its tag."""

    def _end(self) -> None:
        """Go on after the end of a call."""
        self.made, self.begun, self._read = self.made + 1, False, self._content


class CallReader(TagReader):
    """Reads one text whose calls are JSON."""

    def __init__(self) -> None:
        super().__init__(OPEN)
        self._value = ObjectEnd()

    def _call(self) -> Iterator[CallPart]:
        if head := HEAD.match(self._held):
            # It ends in optional white space, which may not have come yet: that is no argument.
            self._held, self._read = self._held[head.end() :], self._arguments
            self._value = ObjectEnd()
            yield CallPart(self.made, name=head[1])

    def _arguments(self) -> Iterator[CallPart]:
        if self._value.untouched:
            self._held = self._held.lstrip()
        length, ended = self._value.feed(self._held)
        arguments, self._held = self._held[:length], self._held[length:]
        if ended:
            self._read = self._close
        if arguments:
            yield CallPart(self.made, arguments=arguments)

    def _close(self) -> Iterator[CallPart]:
        _, tag, rest = self._held.partition(CLOSE)
        if tag:
            self._held = rest
            self._end()
        yield from ()


def _joined(parts: Iterable[CallPart]) -> Iterator[CallPart]:
    """Put together what neighbours say of the same call."""
    for number, same in groupby(parts, lambda part: part.number):
        news = list(same)
        arguments = "".join(part.arguments for part in news)
        yield CallPart(number, news[0].name, arguments)


class ObjectEnd:
    """Finds where a JSON object ends that comes in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._quoted = False
        self._escaped = False

    @property
    def untouched(self) -> bool:
        """Whether the object has not begun."""
        return not self._depth

    def feed(self, text: str) -> tuple[int, bool]:
        """Return how much of `text` belongs to the object, and whether it ends there."""
        for place, character in enumerate(text):
            if self._escaped:
                self._escaped = False
            elif self._quoted:
                self._escaped = character == "\\"
                self._quoted = character != '"'
            elif character == '"':
                self._quoted = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if not self._depth:
                    return place + 1, True
        return len(text), False
