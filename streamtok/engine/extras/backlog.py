"""How long the queue takes, estimated from how long sequences have run lately. Pure: no clock.

A client that finds the queue full gets it as `Retry-After`. Plugs into
`streamtok.engine.client.EngineClient`.
"""

import math
from collections import deque

WINDOW = 64  # sequences in the moving average
LEAST_S, MOST_S = 1, 120  # openai-python waits two minutes at most


class Backlog:
    """A moving average of how long sequences run, for an engine that runs `streams` at once."""

    def __init__(self, streams: int) -> None:
        self._streams = streams
        self._durations_s: deque[float] = deque(maxlen=WINDOW)

    def add(self, duration_s: float) -> None:
        """Note how long a sequence ran, from its start to its end."""
        self._durations_s.append(duration_s)

    def wait_s(self, queued: int) -> int:
        """Return after how many seconds about `queued` sequences will have left the queue."""
        if not self._durations_s:
            return LEAST_S
        mean_s = sum(self._durations_s) / len(self._durations_s)
        return min(max(math.ceil(mean_s * queued / self._streams), LEAST_S), MOST_S)
