"""Requests as OpenTelemetry spans: one span each, with its steps as events.

Attributes follow the semantic conventions for HTTP servers and for generative AI (1.37). A request
with a `traceparent` (W3C Trace Context) becomes a part of that trace. Needs the extra `otel`. What
is exported, where to, and how much of it, is said by the variables OTEL_*, which the SDK reads.
"""

import logging
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from msgspec import Struct

from streamtok import __version__
from streamtok.observe.trace import Bytes, Closed, Record, Step

try:
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    HAS_SDK = True
except ImportError:
    HAS_SDK = False

log = logging.getLogger(__name__)

OPERATIONS = {"/v1/completions": "text_completion", "/v1/generate": "text_completion"}
REQUEST = {  # a fact of the step `queue` -> its attribute
    "model": "gen_ai.request.model",
    "max_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "seed": "gen_ai.request.seed",
    "choices": "gen_ai.request.choice.count",
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "id": "gen_ai.response.id",
}
EXPORTERS = {"otlp": "otlp_proto_http"}  # as in OTEL_TRACES_EXPORTER -> as it is registered


class _Open(Struct):
    """A request that goes on: when it began, and what is counted."""

    begun_s: float
    span: "Span | None" = None
    tokens: int = 0
    reasons: tuple[str, ...] = ()
    error: str | None = None


class Spans:
    """Makes spans of records."""

    def __init__(self, provider: "TracerProvider") -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("streamtok", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._open: dict[str, _Open] = {}

    def take(self, record: Record) -> None:
        """Add what `record` tells."""
        if isinstance(record, Closed):
            self._open.pop(record.connection, None)
        elif isinstance(record, Bytes | Step):
            request = self._open.setdefault(record.connection, _Open(record.at_s))
            if isinstance(record, Step):
                self._step(request, record)

    def close(self) -> None:
        """Export what is left."""
        self._provider.shutdown()

    def _step(self, request: _Open, step: Step) -> None:
        if step.name == "parse":
            request.span = self._begin(request, step.facts)
        if request.span is None:
            if step.name == "finish":  # it was no request
                del self._open[step.connection]
            return
        if step.name == "token":
            request.tokens += 1
        elif step.name == "queue":
            _name(request.span, step.facts)
        elif step.name == "end":
            request.reasons += (step.facts["reason"],)
            request.error = request.error or step.facts.get("error")
        if step.name != "chunk" and (step.name != "token" or request.tokens == 1):
            name = "first token" if step.name == "token" else step.name
            request.span.add_event(name, _plain(step.facts), _ns(step.at_s))
        if step.name == "finish":
            _end(request, request.span, step)
            del self._open[step.connection]

    def _begin(self, request: _Open, facts: Mapping[str, Any]) -> "Span":
        context = {name: facts[name] for name in ("traceparent", "tracestate") if name in facts}
        return self._tracer.start_span(
            f"{facts['method']} {facts['target'].partition('?')[0]}",
            self._propagator.extract(context),
            SpanKind.SERVER,
            {
                "http.request.method": facts["method"],
                "url.path": facts["target"].partition("?")[0],
                "url.scheme": "http",
                "network.protocol.version": facts["version"],
                "http.request.body.size": facts["body_bytes"],
            },
            start_time=_ns(request.begun_s),
        )


def _name(span: "Span", facts: Mapping[str, Any]) -> None:
    """Say what is asked of the model, in the span's name too."""
    operation = OPERATIONS.get(facts["endpoint"], "chat")
    span.update_name(f"{operation} {facts['model']}")
    span.set_attributes({REQUEST[name]: facts[name] for name in REQUEST})
    span.set_attribute("gen_ai.operation.name", operation)
    span.set_attribute("gen_ai.provider.name", "streamtok")
    span.set_attribute("gen_ai.response.model", facts["model"])


def _end(request: _Open, span: "Span", step: Step) -> None:
    status, outcome = step.facts["status"], step.facts["outcome"]
    if status is not None:
        span.set_attribute("http.response.status_code", status)
    if request.tokens:
        span.set_attribute("gen_ai.usage.output_tokens", request.tokens)
    if request.reasons:
        span.set_attribute("gen_ai.response.finish_reasons", request.reasons)
    error = request.error or (outcome if outcome != "complete" else None)
    if error is None and status is not None and status >= 500:
        error = str(status)
    if error is not None:
        span.set_attribute("error.type", error)
        span.set_status(Status(StatusCode.ERROR))
    span.end(_ns(step.at_s))


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None}


def _ns(at_s: float) -> int:
    return int(at_s * 1e9)


def open_spans(exporter: str) -> Spans | None:
    """Return what exports spans by the exporter of that name; None where it is not installed."""
    found = entry_points(
        group="opentelemetry_traces_exporter", name=EXPORTERS.get(exporter, exporter)
    )
    if not HAS_SDK or not found:
        log.warning(
            "OpenTelemetry's variables ask for the exporter %r, which is not installed: "
            "pip install 'streamtok[otel]'",
            exporter,
        )
        return None
    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "streamtok"}))
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(next(iter(found)).load()()))
    return Spans(provider)
