"""Calls that have a tag for each argument, parsed as they are generated, and reported as JSON.

Text is reported as it comes. A value that is JSON is reported when it is complete, since a part of
it may look like its end. Read next: `streamtok.text.tool_calls.forms`.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

from streamtok.text.stops import overlap
from streamtok.text.tool_calls.reader import CallPart, TagReader

Kind = Literal["text", "text or null", "json"]  # of an argument
NAME = r"([\w.-]+)"


class Tags(NamedTuple):
    """What stands in a call: tag opening NAME named (key KEY value VALUE end)* close."""

    tag: str
    opening: str
    named: str
    key: str
    value: str
    end: str
    close: str


class ArgumentsReader(TagReader):
    """Reads one text; `kinds` are those of each function's arguments."""

    def __init__(self, tags: Tags, kinds: Mapping[str, Mapping[str, Kind]]) -> None:
        super().__init__(tags.tag)
        self._tags = tags
        self._kinds = kinds
        # Where nothing follows a name but a tag, only that tag says that the name is complete
        ahead = "" if tags.named else "(?=<)"
        self._head = re.compile(f"{re.escape(tags.opening)}{NAME}{re.escape(tags.named)}{ahead}")
        self._key = re.compile(f"{re.escape(tags.key)}{NAME}{re.escape(tags.value)}")
        self._name = ""
        self._first = True  # whether no argument has been reported

    def _call(self) -> Iterator[CallPart]:
        if head := self._head.match(self._held):
            self._held, self._read = self._held[head.end() :], self._next
            self._name, self._first = head[1], True
            yield CallPart(self.made, head[1], "{")

    def _next(self) -> Iterator[CallPart]:
        if self._held.startswith(self._tags.close):
            self._held = self._held[len(self._tags.close) :]
            yield self._told("}")
            self._end()
        elif key := self._key.match(self._held):
            self._held = self._held[key.end() :]
            kind = self._kinds.get(self._name, {}).get(key[1], "json")
            self._read = READERS[kind].__get__(self)
            quote = '"' if kind == "text" else ""
            yield self._told(f"{'' if self._first else ', '}{json.dumps(key[1])}: {quote}")
            self._first = False

    def _text(self) -> Iterator[CallPart]:
        text, end, rest = self._held.partition(self._tags.end)
        if end:
            self._held, self._read = rest, self._next
        else:
            keep = overlap(text, self._tags.end)
            self._held = text[len(text) - keep :]
            text = text[: len(text) - keep]
        if text or end:
            yield self._told(_escaped(text) + '"' * bool(end))

    def _text_or_null(self) -> Iterator[CallPart]:
        text, end, rest = self._held.partition(self._tags.end)
        if end:
            self._held, self._read = rest, self._next
            yield self._told(text if text == "null" else f'"{_escaped(text)}"')

    def _json(self) -> Iterator[CallPart]:
        place = self._held.find(self._tags.end)
        while place >= 0:
            value = self._held[:place]
            if _is_json(value):
                self._held, self._read = self._held[place + len(self._tags.end) :], self._next
                yield self._told(value)
                return
            place = self._held.find(self._tags.end, place + 1)

    def _told(self, arguments: str) -> CallPart:
        return CallPart(self.made, arguments=arguments)


READERS: Mapping[Kind, Callable[[ArgumentsReader], Iterator[CallPart]]] = {
    "text": ArgumentsReader._text,
    "text or null": ArgumentsReader._text_or_null,
    "json": ArgumentsReader._json,
}


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
