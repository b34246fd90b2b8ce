"""How long the queue takes, judged by how long sequences have run lately. Pure: knows no clock.

It is what a client is told that finds the queue full. Read next: `streamtok.engine.client`.
"""

import math
from collections import deque
from collections.abc import Hashable

WINDOW = 64  # sequences in the moving average
LEAST_S, MOST_S = 1, 120  # openai-python heeds no more than two minutes


class Backlog:
    """Watches sequences start and end in `slots` places; times in seconds of one clock."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._started_s: dict[Hashable, float] = {}
        self._durations_s: deque[float] = deque(maxlen=WINDOW)

    @property
    def running(self) -> int:
        """How many sequences have started and not ended."""
        return len(self._started_s)

    def start(self, sequence: Hashable, now_s: float) -> None:
        """Note that `sequence` has left the queue."""
        self._started_s[sequence] = now_s

    def end(self, sequence: Hashable, now_s: float) -> None:
        """Note that `sequence` has ended, perhaps without having started."""
        started_s = self._started_s.pop(sequence, None)
        if started_s is not None:
            self._durations_s.append(now_s - started_s)

    def wait_s(self, queued: int) -> int:
        """Return in how many seconds `queued` sequences will have left the queue, about."""
        if not self._durations_s:
            return LEAST_S
        mean_s = sum(self._durations_s) / len(self._durations_s)
        return min(max(math.ceil(mean_s * queued / self._slots), LEAST_S), MOST_S)
