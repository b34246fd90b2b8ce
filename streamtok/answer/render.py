"""From answer events to what is sent: a dialect makes JSON of them, a framing makes chunks.

Every API has a dialect, a table from the type of an event to its JSON. What they share is here:
signs of life while nothing comes, and that a generation is closed in the end. What is to change an
answer on its way (`Interceptor`) stands between its generation and its dialect.
Knows neither the engine nor sockets.

Read next: `streamtok.api.openai.streaming`.
"""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Protocol, runtime_checkable

from streamtok.answer.complete import CompleteAnswer
from streamtok.answer.events import AnswerEvent, AnswerEvents, Ended, Failed, Heartbeat
from streamtok.http.framings import Framing
from streamtok.http.response import Response

Chunk = tuple[str, str, bytes]  # bare text, the event's name, JSON


class CompleteDialect(Protocol):
    """The JSON of one API for one answer that is not streamed."""

    async def complete(self, answer: CompleteAnswer) -> bytes:
        """Return the JSON of the answer."""


@runtime_checkable
class Dialect(CompleteDialect, Protocol):
    """The JSON of one API for one answer; it may keep state between events."""

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


async def stream(
    events: AnswerEvents, dialect: Dialect, framing: Framing
) -> AsyncGenerator[bytes, None]:
    """Yield the chunks of a stream.

    Once this has begun the status line is sent, so that an error can only be reported in a chunk.
    Each heartbeat is a chunk too.

    Raises:
        BrokenOff: the answer failed, and the framing has no place for an error.
    """
    async with aclosing(events):
        async for event in events:
            if type(event) is Heartbeat:
                yield framing.ping
                continue
            if type(event) is Failed:
                for _, name, data in dialect.chunks(event):
                    yield framing.error(name, data)
                continue
            chunks = await dialect.end(event) if type(event) is Ended else dialect.chunks(event)
            for text, name, data in chunks:
                if chunk := framing.chunk(text, name, data):  # bare text without text has none
                    yield chunk
    if framing.end:
        yield framing.end
