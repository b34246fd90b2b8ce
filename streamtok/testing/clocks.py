"""Time that passes when a test says so."""

import asyncio
from collections.abc import Callable


class FakeClock:
    """Stands still until it is moved; both readings in seconds."""

    def __init__(self, wall_s: float = 1_700_000_000.0) -> None:
        self._wall_s = wall_s
        self._monotonic_s = 0.0

    def wall_s(self) -> float:
        """See `streamtok.clock.Clock.wall_s`."""
        return self._wall_s

    def monotonic_s(self) -> float:
        """See `streamtok.clock.Clock.monotonic_s`."""
        return self._monotonic_s

    def jump(self, seconds: float) -> None:
        """Set the wall clock, as people and time servers do."""
        self._wall_s += seconds

    def advance(self, seconds: float) -> None:
        """Move both readings forward."""
        self._wall_s += seconds
        self._monotonic_s += seconds


class FakeLater:
    """A timer for pauses, as `streamtok.faults.wire.Later`, that rings when a test says so.

    `pauses` are the seconds it was set to, one after the other.
    """

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self._timer = FakeTimer()

    def __call__(self, seconds: float, ring: Callable[[], None]) -> "FakeTimer":
        """Set the timer."""
        self.pauses.append(seconds)
        return self._timer(ring)

    @property
    def is_set(self) -> bool:
        """Whether somebody waits."""
        return self._timer.is_set

    async def wait(self) -> None:
        """Wait until somebody waits."""
        await self._timer.wait()

    async def ring(self) -> None:
        """End the pause that is under way, or the next one."""
        await self._timer.ring()


class FakeTimer:
    """Rings when a test says so; each call sets it anew, as `streamtok.answer.generation.Timer`."""

    def __init__(self) -> None:
        self._ring: Callable[[], None] | None = None
        self._changed = asyncio.Event()

    def __call__(self, ring: Callable[[], None]) -> "FakeTimer":
        """Set the timer."""
        self._ring = ring
        self._changed.set()
        return self

    @property
    def is_set(self) -> bool:
        """Whether it would ring."""
        return self._ring is not None

    def cancel(self) -> None:
        """See `streamtok.answer.generation.Alarm.cancel`."""
        self._ring = None

    async def wait(self) -> None:
        """Wait until the timer is set."""
        while self._ring is None:
            self._changed.clear()
            await self._changed.wait()

    async def ring(self) -> None:
        """Ring, as soon as the timer is set."""
        await self.wait()
        assert self._ring is not None
        ring, self._ring = self._ring, None
        ring()
