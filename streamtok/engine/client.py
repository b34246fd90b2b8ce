"""The event loop's side of an engine, wherever the engine runs: orders go in, events come out.

Keeps the stream of each request, and the count of those that run and wait. Read next:
`streamtok.engine.core`, the other side.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from streamtok.engine.base import ENDS, TokenStream
from streamtok.engine.core import Cancel, Facts, Order, Read, Submit
from streamtok.engine.extras.backlog import Backlog
from streamtok.engine.scheduler import Addressed
from streamtok.errors import InvalidRequest, RequestError, Unavailable
from streamtok.messages import EngineStats, Failed, SequenceRequest, Started, TokenEvent


class Front:
    """What `streamtok.engine.base.Engine` promises, for an engine of which `facts` are known.

    `send` takes orders to it; its events are to be given to `receive`, in order. Must be made on
    the event loop.
    """

    def __init__(self, facts: Facts, send: Callable[[Order], None]) -> None:
        self.context = facts.context
        self.vocab = facts.vocab
        self.width = facts.width
        self.streams = facts.streams
        self.fingerprint = facts.fingerprint
        self._room = facts.room
        self._send = send
        # with how many tokens each sequence has that has not ended
        self._streams: dict[str, tuple[TokenStream, dict[int, int]]] = {}
        self._unfinished = 0  # sequences submitted and not yet terminal
        self._backlog = Backlog(facts.streams)
        self._loop = asyncio.get_running_loop()
        self.refused: Unavailable | None = None  # why nothing is taken at the moment

    def submit(self, request_id: str, sequences: Sequence[SequenceRequest]) -> TokenStream:
        """Queue a request; see `Engine.submit`."""
        if self.refused:
            raise self.refused
        if len(sequences) > self._room:
            raise InvalidRequest(
                f"{len(sequences)} sequences are asked for; the server has room for {self._room}",
                param="n",
            )
        if self._unfinished + len(sequences) > self._room:
            raise Unavailable(
                f"{self._unfinished} sequences run or wait already, of {self._room} at most; "
                f"this request adds {len(sequences)}",
                retry_after_s=self._backlog.wait_s(self.stats().queued),
                code="queue_full",
            )
        self._unfinished += len(sequences)
        stream = TokenStream(len(sequences), lambda count: self._send(Read(request_id, count)))
        self._streams[request_id] = (stream, {sequence.index: 0 for sequence in sequences})
        self._send(Submit(request_id, tuple(sequences)))
        return stream

    def cancel(self, request_id: str, index: int | None = None) -> None:
        """End a request or one sequence of it before the next step; see `Engine.cancel`."""
        self._send(Cancel(request_id, index))

    def stats(self) -> EngineStats:
        """Return how many sequences run and wait."""
        running = self._backlog.running
        return EngineStats(running, self._unfinished - running)

    def receive(self, events: Iterable[Addressed]) -> None:
        """Hand events to those who wait for them."""
        now_s = self._loop.time()
        for request_id, event in events:
            stream, generated = self._streams[request_id]
            if isinstance(event, TokenEvent):
                generated[event.index] += 1
            elif isinstance(event, Started):
                self._backlog.start((request_id, event.index), now_s)
            elif isinstance(event, ENDS):
                self._unfinished -= 1
                self._backlog.end((request_id, event.index), now_s)
                del generated[event.index]
                if not generated:
                    del self._streams[request_id]
            stream.deliver(event)

    def fail(self, error: RequestError) -> None:
        """End every sequence with `error`: the engine is gone, and says nothing more."""
        events = [
            (request_id, Failed(index, error, count))
            for request_id, (_, generated) in self._streams.items()
            for index, count in generated.items()
        ]
        self.receive(events)
