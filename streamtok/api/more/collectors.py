"""The metrics as Prometheus names them: counted ones, the engine's, and the ledger database's."""

from collections.abc import Callable, Iterable
from itertools import accumulate

from prometheus_client import Metric
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from streamtok.api.more.answers import ReplicaBody
from streamtok.api.more.replicas import COUNTERS, GAUGES, replica_bodies
from streamtok.ledger import Database
from streamtok.messages import EngineStats
from streamtok.metrics import SECONDS, Metrics, Times

LABEL = ("replica",)
TOTALS = {  # attributes of `Metrics`
    "prompt_tokens": "Prompt tokens of accepted requests.",
    "cached_tokens": "Prompt tokens that were not computed again.",
    "generated_tokens": "Tokens sampled, delivered or not.",
    "cancelled": "Requests ended because the client left.",
}


class Counted(Collector):
    """A server's own counters, by the names that Prometheus has for them."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """Return what was counted until now."""
        metrics = self._metrics
        labels = ("endpoint", "status", "key")
        requests = CounterMetricFamily("streamtok_requests", "Answers sent.", labels=labels)
        for values, count in metrics.requests.items():
            requests.add_metric(values, count, created=metrics.created_s)
        yield requests
        for name, documentation in TOTALS.items():
            value, created_s = getattr(metrics, name), metrics.created_s
            yield CounterMetricFamily(f"streamtok_{name}", documentation, value, created=created_s)
        about = "From the accepted request to its first token."
        yield _histogram("streamtok_time_to_first_token_seconds", about, metrics.first_token)
        about = "Between two tokens of one choice."
        yield _histogram("streamtok_inter_token_seconds", about, metrics.inter_token)
        stats = metrics.stats()
        about = "Sequences being generated."
        yield GaugeMetricFamily("streamtok_running_streams", about, stats.running)
        about = "Sequences waiting for a place."
        yield GaugeMetricFamily("streamtok_queued_requests", about, stats.queued)


def _histogram(name: str, documentation: str, times: Times) -> Metric:
    """Return the histogram, whose buckets hold the times below them too."""
    times.fold()
    names = [*map(floatToGoString, SECONDS), "+Inf"]
    buckets = list(zip(names, accumulate(map(float, times.counts)), strict=True))
    return HistogramMetricFamily(name, documentation, buckets, times.sum_s)


class WithParts(Collector):
    """A collector with the metrics of the engine's process, each replica and the database too."""

    def __init__(
        self, collector: Collector, stats: Callable[[], EngineStats], database: Database
    ) -> None:
        self._collector, self._stats, self._database = collector, stats, database

    def collect(self) -> Iterable[Metric]:
        """Return all metrics."""
        yield from self._collector.collect()
        stats = self._stats()
        restarts = "Times that the engine's process ended and was replaced."
        yield CounterMetricFamily("streamtok_engine_restarts", restarts, stats.restarts)
        resumed = "Sequences that were continued by a replacement of the engine's process."
        yield CounterMetricFamily("streamtok_resumed_streams", resumed, stats.resumed)
        lost = "Rows that could not be written to the ledger."
        yield CounterMetricFamily("streamtok_ledger_lost_rows", lost, self._database.lost)
        if (waiting := getattr(self._database, "waiting", None)) is not None:
            wait = "Rows that wait in memory for the ledger's database."
            yield GaugeMetricFamily("streamtok_ledger_waiting_rows", wait, waiting)
        if replicas := replica_bodies(stats):
            for name, documentation in GAUGES.items():
                gauge = GaugeMetricFamily(f"streamtok_replica_{name}", documentation, labels=LABEL)
                yield _filled(gauge, name, replicas)
            for name, documentation in COUNTERS.items():
                full = f"streamtok_replica_{name}"
                yield _filled(
                    CounterMetricFamily(full, documentation, labels=LABEL), name, replicas
                )


def _filled(
    family: GaugeMetricFamily | CounterMetricFamily, name: str, replicas: list[ReplicaBody]
) -> Metric:
    for replica in replicas:
        family.add_metric([replica.name], float(getattr(replica, name)))
    return family
