"""Traces a live connection: its bytes in both directions, and the steps of its requests.

Where nobody traces there is no `Trace`: each step is one `is None`, and bytes are not looked at at
all, because the `Tap` that records them is not there. What is recorded holds no secret of a client.

It implements `streamtok.http.tracer`, which lists the steps of a request.

Does not know where records go. Read next: `streamtok.observe.timeline`.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, Literal

from msgspec import Struct

from streamtok.clock import Clock
from streamtok.http.tracer import StepName
from streamtok.http.transport import Address, ByteStream, SocketStream
from streamtok.observe.redact import Mask

Side = Literal["client", "server"]


class Record(Struct, frozen=True):
    """Something that happened on a connection, at `at_s` seconds since 1970."""

    connection: str
    at_s: float


class Accepted(Record, frozen=True):
    """It begins; sides without an address are Unix sockets. `encrypted` means TLS."""

    client: Address | None
    server: Address | None
    encrypted: bool


class Bytes(Record, frozen=True):
    """What one write or one read held."""

    data: bytes
    sent: bool


class Step(Record, frozen=True):
    """A step of the present request."""

    name: StepName
    facts: Mapping[str, Any]


class Ended(Record, frozen=True):
    """One side sends no more; with `reset` neither does."""

    side: Side
    reset: bool


class Closed(Record, frozen=True):
    """It is over: the last record of a connection."""


Take = Callable[[Record], None]


class Tracer:
    """Gives connections their traces; every record goes to all of `takers`.

    Where several processes serve, `worker` tells their connections apart.
    """

    def __init__(self, clock: Clock, takers: Sequence[Take], worker: int | None = None) -> None:
        self._clock = clock
        self._takers = takers
        self._prefix = f"{worker}:" if worker is not None else ""
        self._numbers = count(1)
        self._offset_s = clock.wall_s() - clock.monotonic_s()

    def tap(self, stream: SocketStream) -> "tuple[Tap, Trace]":
        """Return `stream` with a trace of its own, and that trace."""
        trace = self.begin(stream.client, stream.server, encrypted=stream.is_encrypted)
        return Tap(stream, trace), trace

    def begin(self, client: Address | None, server: Address | None, *, encrypted: bool) -> "Trace":
        """Return the trace of a new connection."""
        trace = Trace(self, f"{self._prefix}{next(self._numbers)}")
        self.record(Accepted(trace.connection, self.now_s(), client, server, encrypted))
        return trace

    def now_s(self) -> float:
        """Return the seconds since 1970; unlike a wall clock, it never goes back."""
        return self._offset_s + self._clock.monotonic_s()

    def record(self, record: Record) -> None:
        """Hand a record on."""
        for take in self._takers:
            take(record)


class Trace:
    """What one connection tells."""

    def __init__(self, tracer: Tracer, connection: str) -> None:
        self.connection = connection
        self._tracer = tracer

    def step(self, name: StepName, **facts: Any) -> None:
        """Tell that a step is done, and what is known of it."""
        self._tracer.record(Step(self.connection, self._tracer.now_s(), name, facts))

    def bytes(self, data: bytes, *, sent: bool) -> None:
        """Tell of bytes that are written, or have been read."""
        self._tracer.record(Bytes(self.connection, self._tracer.now_s(), data, sent))

    def end(self, side: Side, *, reset: bool = False) -> None:
        """Tell that a side has ended."""
        self._tracer.record(Ended(self.connection, self._tracer.now_s(), side, reset))

    def close(self) -> None:
        """Tell that all is over."""
        self._tracer.record(Closed(self.connection, self._tracer.now_s()))


class Tap:
    """A ByteStream that tells `trace` what goes through it: the plain bytes, also with TLS."""

    def __init__(self, stream: ByteStream, trace: Trace) -> None:
        self.peer = stream.peer
        self.trace = trace
        self.on_eof: Callable[[], None] = lambda: None
        self.on_lost: Callable[[], None] = lambda: None
        self._stream = stream
        self._mask = Mask()
        self._input_over = False
        self._ended: set[Side] = set()
        self._closed = False
        stream.on_eof = self._input_ended
        stream.on_lost = self._lost

    async def receive(self) -> bytes:
        """See `ByteStream.receive`."""
        data = await self._stream.receive()
        if data:
            self.trace.bytes(self._mask.feed(data), sent=False)
        if self._input_over:
            self._end("client")
        return data

    def unread(self) -> int:
        """See `ByteStream.unread`."""
        return self._stream.unread()

    async def send(self, data: bytes) -> None:
        """See `ByteStream.send`."""
        self._tell(data)
        await self._stream.send(data)

    def write(self, data: bytes) -> None:
        """See `ByteStream.write`."""
        self._tell(data)
        self._stream.write(data)

    def is_reset(self) -> bool:
        """See `ByteStream.is_reset`."""
        return self._stream.is_reset()

    async def close(self, linger: bool) -> None:
        """See `ByteStream.close`."""
        self._end("server")
        await self._stream.close(linger)

    def abort(self) -> None:
        """See `ByteStream.abort`."""
        self._end("server")
        if not self._closed:
            self._closed = True
            self.trace.close()
        self._stream.abort()

    def reset(self) -> None:
        """See `ByteStream.reset`."""
        self._end("server", reset=True)
        self._stream.reset()

    def _tell(self, data: bytes) -> None:
        if data and "server" not in self._ended:
            self.trace.bytes(data, sent=True)

    def _input_ended(self) -> None:
        self._input_over = True
        if not self.unread():  # else it is recorded after what is still to be read
            self._end("client")
        self.on_eof()

    def _lost(self) -> None:
        self._end("client", reset=True)
        self.on_lost()

    def _end(self, side: Side, *, reset: bool = False) -> None:
        """Tell that `side` has ended; after a reset nothing more can be sent by either."""
        if side not in self._ended and not self._closed:
            self._ended |= {"client", "server"} if reset else {side}
            self.trace.end(side, reset=reset)
