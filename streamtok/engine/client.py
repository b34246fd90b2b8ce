"""The event loop's side of an engine, wherever the engine runs: commands go in, events come out.

Keeps the stream of each request and counts the sequences that run and wait.

Read next: `streamtok.engine.local`.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from streamtok.engine.base import TokenStream
from streamtok.engine.commands import ENDS, Addressed, Cancel, Command, EngineInfo, Read, Submit
from streamtok.errors import InvalidRequest, RequestError, Unavailable
from streamtok.messages import EngineStats, Failed, SequenceRequest, Started, TokenEvent


class QueueEstimate(Protocol):
    """Estimates how long the queue takes, from how long sequences have run."""

    def add(self, duration_s: float) -> None:
        """Note how long a sequence ran, from its start to its end."""

    def wait_s(self, queued: int) -> int:
        """Return after how many seconds about `queued` sequences will have left the queue."""


class EngineClient:
    """What `streamtok.engine.base.Engine` promises, for an engine described by `info`.

    `send` takes commands to it; its events are to be given to `receive`, in order. Must be created
    on the event loop. Without an `estimate`, made from the number of streams, a client that finds
    the queue full is asked to retry after one second.
    """

    def __init__(
        self,
        info: EngineInfo,
        send: Callable[[Command], None],
        estimate: Callable[[int], QueueEstimate] | None = None,
    ) -> None:
        self.context = info.context
        self.vocab = info.vocab
        self.width = info.width
        self.streams = info.streams
        self.fingerprint = info.fingerprint
        self.exact = info.exact
        self.room = info.room
        self._send = send
        self._estimate = estimate(info.streams) if estimate else None
        # for each sequence that has not ended, how many tokens it has
        self._streams: dict[str, tuple[TokenStream, dict[int, int]]] = {}
        self._unfinished = 0  # sequences submitted and not yet terminal
        self._started_s: dict[tuple[str, int], float] = {}  # when those that run left the queue
        self._loop = asyncio.get_running_loop()
        self.refused: Unavailable | None = None  # why nothing is accepted at the moment

    @property
    def ready(self) -> bool:
        """Whether it computes; see `Engine.ready`."""
        return self.refused is None

    def submit(self, request_id: str, sequences: Sequence[SequenceRequest]) -> TokenStream:
        """Queue a request; see `Engine.submit`."""
        if self.refused:
            raise self.refused
        if len(sequences) > self.room:
            raise InvalidRequest(
                f"{len(sequences)} sequences are asked for; the server has room for {self.room}",
                param="n",
            )
        if self._unfinished + len(sequences) > self.room:
            raise Unavailable(
                f"{self._unfinished} sequences run or wait already, of {self.room} at most; "
                f"this request adds {len(sequences)}",
                retry_after_s=self._estimate.wait_s(self.stats().queued) if self._estimate else 1,
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
        running = len(self._started_s)
        return EngineStats(running, self._unfinished - running)

    def receive(self, events: Iterable[Addressed]) -> None:
        """Give each event to the stream of its request."""
        now_s = self._loop.time()
        for request_id, event in events:
            stream, generated = self._streams[request_id]
            if type(event) is TokenEvent:
                generated[event.index] += 1
            elif isinstance(event, Started):
                self._started_s[request_id, event.index] = now_s
            elif isinstance(event, ENDS):
                self._end(request_id, event.index, now_s)
                del generated[event.index]
                if not generated:
                    del self._streams[request_id]
            stream.put(event)

    def fail(self, error: RequestError) -> None:
        """End every sequence with `error`: the engine is gone and posts nothing more."""
        events = [
            (request_id, Failed(index, error, count))
            for request_id, (_, generated) in self._streams.items()
            for index, count in generated.items()
        ]
        self.receive(events)

    def _end(self, request_id: str, index: int, now_s: float) -> None:
        self._unfinished -= 1
        started_s = self._started_s.pop((request_id, index), None)
        if self._estimate and started_s is not None:
            self._estimate.add(now_s - started_s)
