"""A server's metrics in the text formats of Prometheus and OpenMetrics, all or a view of them.

Read next: `streamtok.api.more.vllm`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from streamtok.api.more.collectors import Counted, WithParts
from streamtok.api.more.vllm import AlsoVllm
from streamtok.api.services import Services
from streamtok.metrics import Metrics

View = Callable[[Collector], Collector]


def expose_server(services: Services, accept: str, *, by_key: bool) -> tuple[str, bytes]:
    """Return what `expose` does, with the metrics that other parts of the server know."""
    database, stats = services.meter.ledger.database, services.engine.stats

    def view(collector: Collector) -> Collector:
        return WithParts(AlsoVllm(collector, services.model), stats, database)

    return expose(services.meter.metrics, accept, view, by_key=by_key)


def expose(
    metrics: Metrics, accept: str = "", view: View | None = None, *, by_key: bool = True
) -> tuple[str, bytes]:
    """Return the content type for `accept`, and all metrics or what a `view` makes of them.

    Unless `by_key`, samples that differ in the API key alone are summed.
    """
    encode, content_type = choose_encoder(accept)
    counted = Counted(metrics)
    shown: Collector = counted if by_key else _WithoutKeys(counted)
    shown = view(shown) if view else shown
    if metrics.worker is not None:
        shown = _Labelled(shown, {"worker": str(metrics.worker)})
    return content_type, encode(shown)


class _WithoutKeys(Collector):
    """A collector whose samples are summed over API keys."""

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
