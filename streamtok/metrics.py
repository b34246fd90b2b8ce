"""What `GET /metrics` shows: counters and times. A registry per server, no globals."""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from streamtok.messages import EngineStats

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Counters that are added to as things happen, and gauges read when they are asked for.

    Where several processes serve one address, each shows what it has done itself, labelled with
    its number `worker`: otherwise a scraper would take the next one's counters for its own, reset.
    """

    def __init__(self, stats: Callable[[], EngineStats], worker: int | None = None) -> None:
        self.registry = CollectorRegistry()
        self.worker = worker
        make: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter(
            "streamtok_requests_total", "Answers sent.", ("endpoint", "status", "key"), **make
        )
        self.prompt_tokens = Counter(
            "streamtok_prompt_tokens_total", "Prompt tokens of accepted requests.", **make
        )
        self.cached_tokens = Counter(
            "streamtok_cached_tokens_total", "Prompt tokens that were not computed again.", **make
        )
        self.generated_tokens = Counter(
            "streamtok_generated_tokens_total", "Tokens sampled, delivered or not.", **make
        )
        self.cancelled = Counter(
            "streamtok_cancelled_total", "Requests ended because the client left.", **make
        )
        self.first_token = Times(
            "streamtok_time_to_first_token_seconds", "From the accepted request to its first token."
        )
        self.inter_token = Times(
            "streamtok_inter_token_seconds", "Between two tokens of one choice."
        )
        for times in (self.first_token, self.inter_token):
            self.registry.register(times)
        running = Gauge("streamtok_running_streams", "Sequences being generated.", **make)
        running.set_function(lambda: stats().running)
        queued = Gauge("streamtok_queued_requests", "Sequences waiting for a place.", **make)
        queued.set_function(lambda: stats().queued)


class Times(Collector):
    """A histogram of seconds for one thread: what is observed for every token must cost little."""

    def __init__(self, name: str, documentation: str) -> None:
        self._name = name
        self._documentation = documentation
        self._counts = [0] * (len(SECONDS) + 1)  # times up to each of SECONDS, and longer ones
        self._sum_s = 0.0
        self._times_s: list[float] = []  # that are not counted yet
        self.observe = self._times_s.append  # counts a time; the rest is done for many at once

    def fold(self) -> None:
        """Count what was observed. To be called now and then, as at each request's end."""
        for time_s in self._times_s:
            self._counts[bisect_left(SECONDS, time_s)] += 1
            self._sum_s += time_s
        self._times_s.clear()

    def collect(self) -> Iterable[Metric]:
        """Return the histogram, whose buckets hold the times below them too."""
        self.fold()
        names = [*map(floatToGoString, SECONDS), "+Inf"]
        buckets = list(zip(names, accumulate(map(float, self._counts)), strict=True))
        yield HistogramMetricFamily(self._name, self._documentation, buckets, self._sum_s)
