"""A stream's events, as sent: what a client's decoder would hide is kept. No IO.

`streamtok.http.sse` reads events as the standard says; here each block keeps its bytes, its line
ends, its comments and its time. Read next: `streamtok.teach.doctor.events`, the rules on it.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from streamtok.teach.doctor.recording import Answer

LINE = re.compile(rb"([^\r\n]*)(\r\n|\n|\r)")
BOM = b"\xef\xbb\xbf"
DONE = b"[DONE]"


class Block(Struct, frozen=True):
    """Lines up to an empty one: an event, if it has data. A comment is a field without a name.

    Its bytes are `body[start:end]`, the last of which came at `at_s`. `value` is what its data say
    in JSON, None where they are not JSON. `ended` is false where the empty line is missing.
    """

    raw: bytes
    fields: tuple[tuple[str, bytes], ...]
    start: int
    end: int
    at_s: float
    ended: bool
    value: Any

    @property
    def data(self) -> bytes | None:
        """The data, None if no line has any."""
        return _data(self.fields)


class Stream(Struct, frozen=True):
    """A streamed answer: its blocks, and among these the events that say something."""

    answer: Answer
    blocks: tuple[Block, ...]
    usage_asked: bool = True

    @property
    def events(self) -> list[Block]:
        """The blocks with data."""
        return [block for block in self.blocks if block.data is not None]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """The JSON objects that are parts of the answer, in order."""
        values = [block.value for block in self.events]
        return [v for v in values if isinstance(v, dict) and not v.get("error")]

    @property
    def errors(self) -> list[Any]:
        """What the error events hold under "error"."""
        values = [block.value for block in self.events]
        return [v["error"] for v in values if isinstance(v, dict) and v.get("error")]

    @property
    def parts(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Each choice of each chunk with its delta."""
        return [pair for chunk in self.chunks for pair in _parts(chunk)]

    @property
    def text(self) -> str:
        """All of the first choice's text."""
        return "".join(
            delta["content"]
            for choice, delta in self.parts
            if isinstance(delta.get("content"), str) and choice.get("index", 0) == 0
        )

    @property
    def spoken(self) -> list[Block]:
        """The events that carry text."""
        return [
            block
            for block in self.events
            if isinstance(block.value, dict)
            and any(delta.get("content") for _, delta in _parts(block.value))
        ]


def read_stream(answer: Answer, usage_asked: bool = True) -> Stream:
    """Return the events of an answer's body."""
    return Stream(answer, tuple(_blocks(answer)), usage_asked)


def _blocks(answer: Answer) -> Iterator[Block]:
    body = answer.body
    start = position = len(BOM) if body.startswith(BOM) else 0
    fields: list[tuple[str, bytes]] = []
    while line := LINE.match(body, position):
        position = line.end()
        if line[1]:
            name, _, value = line[1].partition(b":")
            fields.append((name.decode("utf-8", "replace"), value.removeprefix(b" ")))
        else:
            yield _block(answer, fields, start, position, ended=True)
            start, fields = position, []
    if start < len(body):
        if body[position:]:
            name, _, value = body[position:].partition(b":")
            fields.append((name.decode("utf-8", "replace"), value.removeprefix(b" ")))
        yield _block(answer, fields, start, len(body), ended=False)


def _block(
    answer: Answer, fields: list[tuple[str, bytes]], start: int, end: int, *, ended: bool
) -> Block:
    value = None
    data = _data(fields)
    if data is not None and data.strip() != DONE:
        try:
            value = json.loads(data.decode("utf-8", "replace"))
        except ValueError:
            value = None
    return Block(answer.body[start:end], tuple(fields), start, end, answer.at_s(end), ended, value)


def _data(fields: Any) -> bytes | None:
    values = [value for name, value in fields if name == "data"]
    return b"\n".join(values) if values else None


def _parts(chunk: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    choices = chunk.get("choices")
    for choice in choices if isinstance(choices, list) else []:
        if isinstance(choice, dict):
            delta = choice.get("delta")
            yield choice, delta if isinstance(delta, dict) else {}
