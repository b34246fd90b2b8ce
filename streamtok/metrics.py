"""What `GET /metrics` shows, in Prometheus' text format. A registry per server, no globals."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.registry import Collector

from streamtok.messages import EngineStats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


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
        self.first_token = Histogram(
            "streamtok_time_to_first_token_seconds",
            "From the accepted request to its first token.",
            buckets=SECONDS,
            **make,
        )
        self.inter_token = Histogram(
            "streamtok_inter_token_seconds",
            "Between two tokens of one choice.",
            buckets=SECONDS,
            **make,
        )
        running = Gauge("streamtok_running_streams", "Sequences being generated.", **make)
        running.set_function(lambda: stats().running)
        queued = Gauge("streamtok_queued_requests", "Sequences waiting for a place.", **make)
        queued.set_function(lambda: stats().queued)

    def render(self) -> bytes:
        """Return all of them in the text format."""
        if self._worker is None:
            return generate_latest(self._registry)
        return generate_latest(_Labelled(self._registry, {"worker": str(self._worker)}))


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
