"""The most important metrics by vLLM's names, for dashboards that were made for vLLM."""

from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.registry import Collector

VLLM = {  # what vLLM calls the same
    "streamtok_running_streams": "vllm:num_requests_running",
    "streamtok_queued_requests": "vllm:num_requests_waiting",
    "streamtok_prompt_tokens": "vllm:prompt_tokens",
    "streamtok_cached_tokens": "vllm:prompt_tokens_cached",
    "streamtok_generated_tokens": "vllm:generation_tokens",
    "streamtok_time_to_first_token_seconds": "vllm:time_to_first_token_seconds",
    "streamtok_inter_token_seconds": "vllm:inter_token_latency_seconds",
}


class AlsoVllm(Collector):
    """A collector with some of its metrics by vLLM's names too, labelled with the `model`."""

    def __init__(self, collector: Collector, model: str) -> None:
        self._collector = collector
        self._model = model

    def collect(self) -> Iterable[Metric]:
        """Return the metrics, and those that vLLM has."""
        for metric in self._collector.collect():
            yield metric
            if name := VLLM.get(metric.name):
                copy = Metric(name, metric.documentation, metric.type)
                for sample in metric.samples:
                    labels = {**sample.labels, "model_name": self._model}
                    shown = name + sample.name.removeprefix(metric.name)
                    copy.samples.append(sample._replace(name=shown, labels=labels))
                yield copy
