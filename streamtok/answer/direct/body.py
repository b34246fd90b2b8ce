"""A stream's body that becomes chunks as its tokens come, without waking its connection for each.

While a connection waits for the next item, nothing that it would do with a token has to wait: what
it makes certain, its JSON, the frame of a chunk, the write. So that is done here for all streams,
one after the other in one turn of the event loop, by the same functions. The connection is woken
for all other events, and for a client that does not keep up.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import cast

from streamtok.answer.generation import Generation
from streamtok.answer.render import Renderer
from streamtok.http.body import BodyFramer
from streamtok.http.response import Body
from streamtok.http.transport import ByteStream, SocketStream
from streamtok.messages import TokenEvent

Soon = Callable[[Callable[[], None]], None]  # calls what it is given, later in the same turn


class DirectBody:
    """The `body` of `generation`, rendered by `renderer`.

    Whoever takes its items to change or to keep them never attaches it, and gets them all.
    """

    def __init__(self, body: Body, generation: Generation, renderer: Renderer) -> None:
        self._body = body
        self._generation = generation
        self._queue = generation.stream.queue
        self._render = renderer.chunks

    def __aiter__(self) -> AsyncIterator[bytes | Sequence[bytes]]:
        return aiter(self._body)

    async def aclose(self) -> None:
        """See `Body.aclose`."""
        await self._body.aclose()

    def attach(self, framer: BodyFramer, stream: SocketStream, soon: Soon) -> None:
        """Write to `stream` what `framer` frames, when `soon` has it done."""
        write = partial(self._write, framer, stream)
        events = self._queue.events

        def on_event() -> None:
            if len(events) == 1:  # else it will be written already
                soon(write)

        self._generation.on_event = on_event

    def _write(self, framer: BodyFramer, stream: SocketStream) -> None:
        """Do what the connection would do with the tokens that have come, if it still waits."""
        generation, queue = self._generation, self._queue
        reader, events = queue.reader, queue.events
        if reader is None or reader.done():
            return
        try:
            while events and type(events[0]) is TokenEvent and stream.keeps_up:
                if made := generation.read(generation.stream.take()):
                    for data in framer.frame(self._render(made)):
                        stream.write(data)
                    generation.deliver(made)
        except Exception as error:  # which is the connection's
            reader.set_exception(error)
            reader.exception()  # has asyncio say nothing if nobody else looks
        else:
            if events:
                queue.wake()


def direct(body: Body, generation: Generation, renderer: Renderer) -> Body:
    """Return a `DirectBody`, which is all that is asked of a generator."""
    return cast(Body, DirectBody(body, generation, renderer))


def attach(soon: Soon, body: Body, framer: BodyFramer, stream: ByteStream) -> None:
    """Let `body`, if it can, write to `stream`, if that is a socket, without being asked."""
    if isinstance(body, DirectBody) and isinstance(stream, SocketStream):
        body.attach(framer, stream, soon)
