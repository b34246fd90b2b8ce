"""What `GET /metrics` shows, in Prometheus' text format. A registry per server, no globals."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from streamtok.messages import EngineStats

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
View = Callable[[Collector], Collector]


class Metrics:
    """Counters that are added to as things happen, and gauges read when they are asked for.

    Where several processes serve one address, each shows what it has done itself, labelled with
    its number `worker`: otherwise a scraper would take the next one's counters for its own, reset.
    """

    def __init__(self, stats: Callable[[], EngineStats], worker: int | None = None) -> None:
        self._registry = CollectorRegistry()
        self._worker = worker
        make: dict[str, Any] = {"registry": self._registry}
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
            self._registry.register(times)
        running = Gauge("streamtok_running_streams", "Sequences being generated.", **make)
        running.set_function(lambda: stats().running)
        queued = Gauge("streamtok_queued_requests", "Sequences waiting for a place.", **make)
        queued.set_function(lambda: stats().queued)
        self._registry.register(_Restarts(stats))

    def render(self) -> bytes:
        """Return all of them in the text format."""
        return self.expose("")[1]

    def expose(
        self, accept: str, view: View | None = None, *, by_key: bool = True
    ) -> tuple[str, bytes]:
        """Return the content type for `accept`, and all or what a `view` makes of them.

        Unless `by_key`, samples that differ in the API key alone are summed.
        """
        encode, content_type = choose_encoder(accept)
        shown: Collector = self._registry if by_key else _WithoutKeys(self._registry)
        shown = view(shown) if view else shown
        if self._worker is not None:
            shown = _Labelled(shown, {"worker": str(self._worker)})
        return content_type, encode(shown)


class _Restarts(Collector):
    """How often the engine's process was replaced, and how many streams that interrupted."""

    def __init__(self, stats: Callable[[], EngineStats]) -> None:
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        """Return two counters."""
        stats = self._stats()
        restarts = "Times that the engine's process ended and was replaced."
        yield CounterMetricFamily("streamtok_engine_restarts", restarts, stats.restarts)
        resumed = "Sequences that were continued by a replacement of the engine's process."
        yield CounterMetricFamily("streamtok_resumed_streams", resumed, stats.resumed)


class Times(Collector):
    """A histogram of seconds for one thread: what is observed for every token must cost little."""

    def __init__(self, name: str, documentation: str) -> None:
        self._name = name
        self._documentation = documentation
        self._counts = [0] * (len(SECONDS) + 1)  # times up to each of SECONDS, and longer ones
        self._sum_s = 0.0

    def observe(self, time_s: float) -> None:
        """Count a time."""
        self._counts[bisect_left(SECONDS, time_s)] += 1
        self._sum_s += time_s

    def collect(self) -> Iterable[Metric]:
        """Return the histogram, whose buckets hold the times below them too."""
        names = [*map(floatToGoString, SECONDS), "+Inf"]
        buckets = list(zip(names, accumulate(map(float, self._counts)), strict=True))
        yield HistogramMetricFamily(self._name, self._documentation, buckets, self._sum_s)


class _WithoutKeys(Collector):
    """A collector whose samples are not told apart by API key."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def collect(self) -> Iterable[Metric]:
        """Return the metrics, with the sums of samples that differ in the key alone."""
        for metric in self._collector.collect():
            sums: dict[Any, Any] = {}
            for sample in metric.samples:
                labels = {**sample.labels, "key": ""} if "key" in sample.labels else sample.labels
                place = sample.name, tuple(labels.items())
                before = sums.get(place, sample._replace(value=0.0))
                value = before.value + sample.value
                if sample.name.endswith("_created"):  # of the first
                    value = min(filter(None, (before.value, sample.value)))
                sums[place] = sample._replace(labels=labels, value=value)
            metric.samples = list(sums.values())
            yield metric


class _Labelled(Collector):
    """A collector whose samples have more labels."""

    def __init__(self, collector: Collector, labels: Mapping[str, str]) -> None:
        self._collector = collector
        self._labels = labels

    def collect(self) -> Iterable[Metric]:
        """Return the metrics with the labels."""
        for metric in self._collector.collect():
            metric.samples = [
                sample._replace(labels={**sample.labels, **self._labels})
                for sample in metric.samples
            ]
            yield metric
