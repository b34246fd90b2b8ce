"""Requests as OpenTelemetry spans, by the SDK's own exporter in memory."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from processes import serving

from streamtok.api.access.keys import new_key
from streamtok.config import ServeConfig
from streamtok.observe import spans
from streamtok.observe.spans import Spans, open_spans
from streamtok.settings import span_exporter
from streamtok.testing import running_server

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
BODY = {"prompt": "hi", "max_tokens": 3, "seed": 7, "temperature": 0, "ignore_eos": True}


class Exported:
    """A server whose spans stay in memory."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._exporter = InMemorySpanExporter()
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "memory")
        monkeypatch.setattr(spans, "open_spans", self._open)

    def _open(self, name: str) -> Spans:
        assert name == "memory"
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        return Spans(provider)

    def of(self, *requests: dict[str, Any], **settings: Any) -> tuple[ReadableSpan, ...]:
        """Return the spans of some requests, each given as what httpx takes."""
        config = ServeConfig(model=str(self._folder), port=0, ledger=":memory:", **settings)
        with running_server(config) as server, httpx.Client(base_url=server.url) as client:
            for request in requests:
                client.request(**{"method": "POST", "url": "/v1/completions", **request})
        return self._exporter.get_finished_spans()


@pytest.fixture
def exported(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Exported:
    return Exported(tiny_model, monkeypatch)


def test_a_span_has_the_steps_and_the_conventions_attributes(exported: Exported) -> None:
    stream, whole = exported.of({"json": BODY | {"stream": True}}, {"json": BODY | {"n": 2}})
    assert stream.name == "text_completion tiny"
    assert stream.kind is SpanKind.SERVER
    assert stream.status.status_code is StatusCode.UNSET
    attributes = dict(stream.attributes or {})
    assert attributes.pop("gen_ai.response.id").startswith("cmpl-")
    assert attributes == {
        "http.request.method": "POST",
        "http.request.body.size": attributes["http.request.body.size"],
        "http.response.status_code": 200,
        "network.protocol.version": "1.1",
        "url.path": "/v1/completions",
        "url.scheme": "http",
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "streamtok",
        "gen_ai.request.model": "tiny",
        "gen_ai.request.max_tokens": 3,
        "gen_ai.request.temperature": 0.0,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.request.seed": 7,
        "gen_ai.request.choice.count": 1,
        "gen_ai.response.model": "tiny",
        "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 3,
    }
    names = [event.name for event in stream.events]
    expected = ["parse", "admit", "tokenize", "queue", "start", "prefill", "first token", "end"]
    assert names == [*expected, "finish"]
    times = [event.timestamp for event in stream.events]
    assert stream.start_time is not None
    assert stream.end_time is not None
    assert [stream.start_time, *times, stream.end_time] == sorted(
        [stream.start_time, *times, stream.end_time]
    )
    assert (whole.attributes or {})["gen_ai.response.finish_reasons"] == ("length", "length")
    assert (whole.attributes or {})["gen_ai.usage.output_tokens"] == 6


def test_a_request_joins_the_trace_that_it_names(exported: Exported) -> None:
    header = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}
    chosen, unchosen, broken = exported.of(
        {"json": BODY, "headers": header},
        {"json": BODY},
        {"json": BODY, "headers": {"traceparent": "00-nonsense"}},
    )
    assert chosen.parent is not None
    assert f"{chosen.context.trace_id:032x}" == TRACE
    assert f"{chosen.parent.span_id:016x}" == PARENT
    assert chosen.context.trace_state["vendor"] == "1"
    assert unchosen.parent is broken.parent is None
    assert f"{unchosen.context.trace_id:032x}" != TRACE


def test_what_the_caller_has_not_chosen_is_not_exported(exported: Exported) -> None:
    header = {"traceparent": f"00-{TRACE}-{PARENT}-00"}  # the flag "sampled" is not set
    assert exported.of({"json": BODY, "headers": header}) == ()


def test_other_requests_and_failures_have_spans_too(exported: Exported, tmp_path: Path) -> None:
    key, line = new_key("alice")
    (tmp_path / "keys").write_text(line)
    found = exported.of(
        {"method": "GET", "url": "/health?x=1"},
        {"json": BODY},
        {
            "json": BODY | {"stream": True},
            "headers": {"authorization": f"Bearer {key}", "x-fault": "error;at=2"},
        },
        api_keys=str(tmp_path / "keys"),
        faults=True,
    )
    health, refused, failed = found
    assert health.name == "GET /health"
    assert "gen_ai.operation.name" not in (health.attributes or {})
    assert (refused.attributes or {})["http.response.status_code"] == 401
    assert refused.status.status_code is StatusCode.UNSET
    assert key not in repr([(s.attributes, s.events) for s in found])
    assert failed.status.status_code is StatusCode.UNSET  # the server did as it was asked


def test_a_broken_answer_is_an_error(exported: Exported) -> None:
    (span,) = exported.of(
        {"json": BODY, "headers": {"x-fault": "status;code=503"}},
        faults=True,
    )
    assert (span.attributes or {})["error.type"] == "503"
    assert span.status.status_code is StatusCode.ERROR


@pytest.mark.parametrize(
    ("variables", "exporter"),
    [
        ({}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, "otlp"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318"}, "otlp"),
        ({"OTEL_TRACES_EXPORTER": "console"}, "console"),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, ""),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"}, ""),
    ],
)
def test_the_standard_variables_turn_it_on(
    variables: dict[str, str], exporter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TRACES_EXPORTER", "EXPORTER_OTLP_ENDPOINT", "EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(f"OTEL_{name}", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert span_exporter() == exporter


def test_a_missing_exporter_is_said_and_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    assert open_spans("no-such-exporter") is None
    assert "pip install 'streamtok[otel]'" in caplog.text


def test_serve_exports_by_what_is_installed(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")  # comes with the SDK
    with serving("--model", str(tiny_model), "--port", "0") as running:
        assert httpx.get(f"{running.url}/health").status_code == 200
        running.process.terminate()
        output, _ = running.process.communicate(timeout=60)
    assert '"name": "GET /health"' in output
    assert '"service.name": "streamtok"' in output
