"""Clocks, passed in where time is read, so that tests control it.

Read next: `streamtok.http.server`.
"""

import time
from typing import Protocol

FROZEN_S = 1_767_225_600.0  # Thu, 01 Jan 2026 00:00:00 GMT


class Clock(Protocol):
    """Two readings of the time, in seconds."""

    def wall_s(self) -> float:
        """Return the seconds since 1970, for people and records; it may jump."""

    def monotonic_s(self) -> float:
        """Return seconds from an arbitrary start, for durations; it never goes back."""


class SystemClock:
    """The machine's clocks."""

    def wall_s(self) -> float:
        """See `Clock.wall_s`."""
        return time.time()

    monotonic_s = staticmethod(time.monotonic)  # asked at every token: no function around it


class FrozenClock(SystemClock):
    """The machine's clocks, but the date is always the beginning of 2026, so that answers repeat.

    Durations are real: time-outs and limits work.
    """

    def wall_s(self) -> float:
        """See `Clock.wall_s`."""
        return FROZEN_S
