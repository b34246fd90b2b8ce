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


class FakeTimer:
    """Rings when a test says so; each call sets it anew, as `streamtok.api.generation.Timer`."""

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
        """See `streamtok.api.generation.Alarm.cancel`."""
        self._ring = None

    async def ring(self) -> None:
        """Ring, as soon as the timer is set."""
        while self._ring is None:
            self._changed.clear()
            await self._changed.wait()
        ring, self._ring = self._ring, None
        ring()
