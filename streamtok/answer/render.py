"""Rendering: a dialect turns answer events into JSON, a framing turns JSON into chunks.

Every API has a dialect, a table from the type of an event to its JSON. Shared here:
heartbeats, and that the generation is closed at the end. An `Interceptor`, such as fault injection,
is applied between the generation and the dialect.
Knows neither the engine nor sockets.

Read next: `streamtok.api.openai.streaming`.
"""

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import Protocol

import msgspec

from streamtok.answer.complete import CompleteAnswer
from streamtok.answer.events import AnswerEvent, AnswerEvents, Ended, Failed, Heartbeat, TextDelta
from streamtok.http.framings import Framing
from streamtok.http.response import Response

Chunk = tuple[str, str, bytes]  # bare text, the event's name, JSON
SAMPLE = "\0"  # a text that is nothing else's, to see what is around one
encode_string = msgspec.json.Encoder().encode


class CompleteDialect(Protocol):
    """The JSON of one API for one answer that is not streamed."""

    async def complete(self, answer: CompleteAnswer) -> bytes:
        """Return the JSON of the answer."""


class Dialect(CompleteDialect, Protocol):
    """The JSON of one API for one answer; it may keep state between events.

    It `is_plain` where it keeps none of text, and text is all that differs between two chunks that
    it makes of a choice's text.
    """

    @property
    def is_plain(self) -> bool:
        """Whether the chunks of text may be made without it once it has made one."""

    def chunks(self, event: AnswerEvent) -> Iterable[Chunk]:
        """Return the chunks of an event, which is neither a heartbeat nor the end."""

    async def end(self, event: Ended) -> Iterable[Chunk]:
        """Return the last chunks; an answer that is to be stored is stored first."""


class Interceptor(Protocol):
    """Changes one answer on its way, as fault injection does: see `streamtok.faults`."""

    def events(self, events: AnswerEvents) -> AnswerEvents:
        """Return what is rendered instead of `events`. To fail, throw an error into them."""

    def response(self, response: Response) -> Response:
        """Return what is sent instead of `response`."""


class Renderer:
    """Makes the chunks of one answer: its dialect's, in a framing.

    Where text is all that differs between the chunks of a choice's text, what stands around it is
    made once, from the chunk of a sample: most tokens go that way, at a fraction of the cost.
    """

    def __init__(self, dialect: Dialect, framing: Framing) -> None:
        self._dialect = dialect
        self._framing = framing
        self._around: dict[int, tuple[bytes, bytes]] = {}  # what a choice's text stands between

    def chunks(self, events: Iterable[AnswerEvent]) -> list[bytes]:
        """Return the chunks of a group of events, which is not the end.

        Raises:
            BrokenOff: the answer failed, and the framing has no place for an error.
        """
        chunks, around = [], self._around
        for event in events:
            if type(event) is TextDelta and event.index in around:
                before, after = around[event.index]
                chunks.append(before + encode_string(event.text) + after)
            elif type(event) is Heartbeat:
                chunks.append(self._framing.ping)
            elif type(event) is Failed:
                made = self._dialect.chunks(event)
                chunks += [self._framing.error(name, data) for _, name, data in made]
            else:
                chunks += self.framed(self._dialect.chunks(event))
                if type(event) is TextDelta and self._dialect.is_plain:
                    self._learn(event.index)
        return chunks

    async def stream(self, events: AnswerEvents) -> AsyncGenerator[Sequence[bytes], None]:
        """Yield the chunks of a stream, heartbeats too, those of a group of events together.

        Once this has begun the status line is sent: an error can only be reported in a chunk.

        Raises:
            BrokenOff: the answer failed, and the framing has no place for an error.
        """
        async with aclosing(events):
            async for group in events:
                if type(ended := group[-1]) is Ended:
                    chunks = self.framed(await self._dialect.end(ended))
                else:
                    chunks = self.chunks(group)
                if chunks:
                    yield chunks
        if self._framing.end:
            yield (self._framing.end,)

    def framed(self, chunks: Iterable[Chunk]) -> list[bytes]:
        """Return a dialect's chunks in the framing; bare text without text has none."""
        return [chunk for made in chunks if (chunk := self._framing.chunk(*made))]

    def _learn(self, index: int) -> None:
        """Find what is around a choice's text; bare text has nothing, and no JSON in it."""
        [sample] = self.framed(self._dialect.chunks(TextDelta(index, SAMPLE, 0)))
        before, found, after = sample.rpartition(encode_string(SAMPLE))
        if found:
            self._around[index] = before, after
