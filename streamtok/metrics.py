"""What `GET /metrics` shows, counted: plain numbers. `streamtok.api.more.collectors` names them."""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable

from streamtok.messages import EngineStats

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Counters that are added to as things happen; how busy the engine is, `stats` says.

    `requests` counts answers sent by endpoint, status and API key. Where several processes serve
    one address, each shows what it has done itself, labelled with its number `worker`: otherwise a
    scraper would take the next one's counters for its own, reset.
    """

    def __init__(self, stats: Callable[[], EngineStats], worker: int | None = None) -> None:
        self.stats = stats
        self.worker = worker
        self.created_s = time.time()
        self.requests: Counter[tuple[str, str, str]] = Counter()
        self.prompt_tokens = self.cached_tokens = self.generated_tokens = self.cancelled = 0
        self.first_token, self.inter_token = Times(), Times()


class Times:
    """A histogram of seconds for one thread: what is observed for every token must cost little."""

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)  # times up to each of SECONDS, and longer ones
        self.sum_s = 0.0
        self._times_s: list[float] = []  # that are not counted yet
        self.observe = self._times_s.append  # counts a time; the rest is done for many at once

    def fold(self) -> None:
        """Count what was observed. To be called now and then, as at each request's end."""
        for time_s in self._times_s:
            self.counts[bisect_left(SECONDS, time_s)] += 1
            self.sum_s += time_s
        self._times_s.clear()
