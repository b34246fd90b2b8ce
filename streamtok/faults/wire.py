"""Bytes that go wrong on their way to the socket, on purpose: for tests of clients.

A fault turns each write into steps: bytes, pauses, or the end of the connection. Faults are pure
and know nothing of sockets; `FaultyOutput` takes the steps. It stands between a connection and its
socket for one answer that asked for it, and for no other.

Does not know what the bytes say. Read next: `streamtok.faults.events`, which spoils that, and
`streamtok.faults.catalogue`, where both are asked for by name.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, Protocol

from msgspec import Struct

from streamtok.http.response import BrokenOff
from streamtok.http.transport import ByteStream

ZERO_CHUNK = b"0\r\n"  # how the end of a chunked body begins
CONTENT_TYPE = re.compile(rb"(?i)(?<=\r\ncontent-type: )[^\r]*")
DRIPS_PER_S = 50  # a faster drip takes several bytes at a time


class Pause(Struct, frozen=True):
    """Write nothing for `seconds`."""

    seconds: float


class Cut(Struct, frozen=True):
    """End the connection here, with a reset or as if all had been said."""

    reset: bool


Step = bytes | Pause | Cut


class Place(Struct, frozen=True):
    """What a write holds, and how many tokens have been sent before it."""

    part: Literal["head", "body", "end"]
    tokens: float

    def is_after(self, tokens: float) -> bool:
        """Whether so many tokens have been sent; the end comes after any number of them."""
        return self.part == "end" or (self.part == "body" and self.tokens >= tokens)


class WireFault:
    """What is to go wrong with one answer's writes. By itself, nothing."""

    def steps(self, data: bytes, place: Place) -> Iterator[Step]:
        """Yield the writes that replace a write, or a part of it that another fault has made."""
        yield data


class SlowHead(WireFault):
    """The head comes late."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def steps(self, data: bytes, place: Place) -> Iterator[Step]:
        """See `WireFault.steps`."""
        if place.part == "head":
            yield Pause(self._seconds)
        yield data


class WrongType(WireFault):
    """The head declares another content type."""

    def steps(self, data: bytes, place: Place) -> Iterator[Step]:
        """See `WireFault.steps`."""
        yield CONTENT_TYPE.sub(b"text/plain", data) if place.part == "head" else data


class Stall(WireFault):
    """Nothing comes for a while after `at` tokens."""

    def __init__(self, at: float, seconds: float) -> None:
        self._at = at
        self._seconds = seconds
        self._over = False

    def steps(self, data: bytes, place: Place) -> Iterator[Step]:
        """See `WireFault.steps`."""
        if not self._over and place.is_after(self._at):
            self._over = True
            yield Pause(self._seconds)
        yield data


class BreakOff(WireFault):
    """The connection ends after `at` tokens: between two chunks, or within one."""

    def __init__(self, at: float, *, reset: bool = False, within: bool = False) -> None:
        self._at = at
        self._end = Cut(reset)
        self._within = within

    def steps(self, data: bytes, place: Place) -> Iterator[Step]:
        """See `WireFault.steps`."""
        if not place.is_after(self._at):
            yield data
            return
        if self._within:
            yield data[: len(data) // 2]
        yield self._end


class OneByte(WireFault):
    """Each byte is written by itself."""

    def steps(self, data: bytes, place: Place) -> Iterator[Step]:
        """See `WireFault.steps`."""
        return (data[place : place + 1] for place in range(len(data)))


class Drip(WireFault):
    """Bytes come slowly, the head's too."""

    def __init__(self, bytes_per_s: float) -> None:
        self._size = max(1, int(bytes_per_s / DRIPS_PER_S))
        self._pause = Pause(self._size / bytes_per_s)

    def steps(self, data: bytes, place: Place) -> Iterator[Step]:
        """See `WireFault.steps`."""
        for start in range(0, len(data), self._size):
            yield self._pause
            yield data[start : start + self._size]


def spoil(faults: Sequence[WireFault], data: bytes, place: Place) -> Iterable[Step]:
    """Return the writes that replace one, once each fault in turn has changed it."""
    steps: Iterable[Step] = [data]
    for fault in faults:
        steps = [made for step in steps for made in _made(fault, step, place)]
    return steps


def _made(fault: WireFault, step: Step, place: Place) -> Iterable[Step]:
    return fault.steps(step, place) if isinstance(step, bytes) else (step,)


class Alarm(Protocol):
    """What `Later` has set."""

    def cancel(self) -> None:
        """Do not ring."""


Later = Callable[[float, Callable[[], None]], Alarm]  # calls the second after so many seconds


class FaultyOutput:
    """Takes the steps for one answer; `tokens` tells how many have been made for it so far.

    Pauses end early when somebody calls `hurry`, and there are none afterwards.
    """

    def __init__(
        self,
        stream: ByteStream,
        faults: Sequence[WireFault],
        tokens: Callable[[], float],
        later: Later,
    ) -> None:
        self._stream = stream
        self._faults = faults
        self._tokens = tokens
        self._later = later
        self._sent = 0.0
        self._begun = False
        self._hurried = False
        self._waiter: asyncio.Future[None] | None = None

    async def send(self, data: bytes) -> None:
        """Write what replaces `data`.

        Raises:
            BrokenOff: the answer is to end here.
            ConnectionLost: the client is gone.
        """
        for step in spoil(self._faults, data, self._place(data)):
            if isinstance(step, Pause):
                await self._pause(step.seconds)
            elif isinstance(step, Cut):
                if step.reset:
                    self._stream.reset()
                raise BrokenOff
            else:
                await self._stream.send(step)
        self._begun = True
        self._sent = self._tokens()

    def hurry(self) -> None:
        """Pause no more: the client has closed its side, or the server is stopping."""
        self._hurried = True
        self._wake()

    def _place(self, data: bytes) -> Place:
        if not self._begun:
            return Place("head", 0)
        return Place("end" if data.startswith(ZERO_CHUNK) else "body", self._sent)

    async def _pause(self, seconds: float) -> None:
        if self._hurried:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        alarm = self._later(seconds, self._wake)
        try:
            await self._waiter
        finally:
            alarm.cancel()

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)
