"""What `/health` and `/metrics` say of where the engine runs, and of the ledger's database."""

from collections.abc import Callable, Iterable

from prometheus_client import Metric
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from streamtok.api.more.answers import ReplicaBody
from streamtok.ledger import Database
from streamtok.messages import EngineStats

GAUGES = {
    "ready": "Whether new requests may go to the replica.",
    "running": "Sequences that the replica generates for this server.",
    "queued": "Sequences of this server that wait in the replica.",
}
COUNTERS = {
    "tokens": "Tokens that the replica has sampled for this server.",
    "restarts": "Times that the replica was lost.",
    "resumed": "Sequences that the replica has continued for another one.",
}


def replica_bodies(stats: EngineStats) -> list[ReplicaBody]:
    """Return what `/health` says of each replica."""
    names = ("name", *GAUGES, *COUNTERS)
    return [
        ReplicaBody(**{name: getattr(replica, name) for name in names})
        for replica in stats.replicas  # each is a `streamtok.engine.cluster.stats.ReplicaStats`
    ]


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


LABEL = ("replica",)


def _filled(
    family: GaugeMetricFamily | CounterMetricFamily, name: str, replicas: list[ReplicaBody]
) -> Metric:
    for replica in replicas:
        family.add_metric([replica.name], float(getattr(replica, name)))
    return family
