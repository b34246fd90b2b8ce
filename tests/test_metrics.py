"""Metrics: Prometheus' text format, with every counter's change in it."""

from collections.abc import Iterator
from functools import partial

from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from streamtok.api.more.exposition import expose
from streamtok.api.more.vllm import AlsoVllm
from streamtok.messages import EngineStats
from streamtok.metrics import SECONDS, Metrics

VIEW = partial(AlsoVllm, model="tiny")


def samples(metrics: Metrics) -> Iterator[tuple[str, dict[str, str], float]]:
    """Read the rendered text back."""
    for family in text_string_to_metric_families(expose(metrics)[1].decode()):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value


def values(metrics: Metrics) -> dict[str, float]:
    """Return the values of the samples without labels."""
    return {name: value for name, labels, value in samples(metrics) if not labels}


def test_counters_add_up() -> None:
    metrics = Metrics(lambda: EngineStats(0, 0))
    metrics.prompt_tokens += 7
    metrics.generated_tokens += 3
    metrics.generated_tokens += 2
    metrics.cancelled += 1
    read = values(metrics)
    assert read["streamtok_prompt_tokens_total"] == 7
    assert read["streamtok_generated_tokens_total"] == 5
    assert read["streamtok_cancelled_total"] == 1


def test_answers_are_counted_by_endpoint_and_status() -> None:
    metrics = Metrics(lambda: EngineStats(0, 0))
    for status in ("200", "200", "503"):
        metrics.requests["/v1/completions", status, ""] += 1
    counts = {
        (labels["endpoint"], labels["status"]): value
        for name, labels, value in samples(metrics)
        if name == "streamtok_requests_total"
    }
    assert counts == {("/v1/completions", "200"): 2, ("/v1/completions", "503"): 1}


def test_gauges_are_read_when_they_are_asked_for() -> None:
    stats = EngineStats(running=1, queued=0)
    metrics = Metrics(lambda: stats)
    assert values(metrics)["streamtok_running_streams"] == 1
    stats = EngineStats(running=2, queued=5)
    read = values(metrics)
    assert (read["streamtok_running_streams"], read["streamtok_queued_requests"]) == (2, 5)


def test_times_fall_into_their_buckets() -> None:
    metrics = Metrics(lambda: EngineStats(0, 0))
    for time_s in (0.0005, 0.02, 0.02, 60.0):
        metrics.first_token.observe(time_s)
    name = "streamtok_time_to_first_token_seconds"
    buckets = {
        labels["le"]: value for key, labels, value in samples(metrics) if key == f"{name}_bucket"
    }
    assert len(buckets) == len(SECONDS) + 1
    assert [buckets[le] for le in ("0.001", "0.01", "0.025", "10.0", "+Inf")] == [1, 1, 3, 3, 4]
    assert values(metrics)[f"{name}_count"] == 4
    assert values(metrics)["streamtok_inter_token_seconds_count"] == 0


def test_two_servers_do_not_share_their_numbers() -> None:
    first, second = (Metrics(lambda: EngineStats(0, 0)) for _ in range(2))
    first.cancelled += 1
    assert values(second)["streamtok_cancelled_total"] == 0


def test_vllms_names_stand_beside_ours() -> None:
    metrics = Metrics(lambda: EngineStats(running=3, queued=2))
    metrics.prompt_tokens += 7
    metrics.generated_tokens += 5
    metrics.first_token.observe(0.02)
    text = expose(metrics, "", VIEW)[1].decode()
    label = {"model_name": "tiny"}
    read = {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels == label
    }
    assert read["vllm:num_requests_running"] == 3
    assert read["vllm:num_requests_waiting"] == 2
    assert read["vllm:prompt_tokens_total"] == 7
    assert read["vllm:generation_tokens_total"] == 5
    assert read["vllm:time_to_first_token_seconds_count"] == 1


def test_openmetrics_is_given_to_who_accepts_it() -> None:
    metrics = Metrics(lambda: EngineStats(0, 0))
    metrics.generated_tokens += 5
    kind, body = expose(metrics, "application/openmetrics-text; version=1.0.0, */*;q=0.1", VIEW)
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")
    families = {family.name for family in openmetrics_families(body.decode())}
    assert {"streamtok_generated_tokens", "vllm:generation_tokens"} <= families
    kind, body = expose(metrics, "text/plain", VIEW)
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    assert b"# EOF" not in body
