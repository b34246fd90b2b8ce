"""Everything but generation: models, health, metrics and usage."""

import asyncio
import math
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module

from msgspec import structs

from streamtok.api.anthropic.types import ModelInfo, ModelInfoList
from streamtok.api.input.validation import checked
from streamtok.api.more.answers import (
    Health,
    ListBody,
    ModelBody,
    ModelList,
    ReplicaBody,
    UsageRecordBody,
    UsageSumBody,
    UsageSums,
)
from streamtok.api.more.replicas import replica_bodies
from streamtok.api.more.sums import UsageFilter, sum_usage
from streamtok.api.more.types import UsageQuery
from streamtok.api.openai import answers
from streamtok.api.route import Operation, Route
from streamtok.api.routing import Api
from streamtok.api.services import Call, Services
from streamtok.errors import InvalidRequest, NotFound
from streamtok.http.response import Response, json_response


async def health(api: Api, _: Call) -> Response:
    """`GET /health`: whether the server is ready."""
    body = Health(api.state, _replicas(api))
    return json_response(answers.encode(body), 200 if api.state == "ok" else 503)


def _replicas(api: Api) -> list[ReplicaBody] | None:
    return replica_bodies(api.services.engine.stats()) or None if api.services else None


async def models(services: Services, call: Call) -> Response:
    """`GET /v1/models`: the model that is served, by each of its names."""
    names = [services.model, *(name for name in services.aliases if name != "*")]
    if _is_anthropic(call):
        infos = [_info(services, name) for name in names]
        listed = ModelInfoList(infos, first_id=names[0], last_id=names[-1])
        return json_response(answers.encode(listed))
    return json_response(answers.encode(ListBody([_model(services, name) for name in names])))


async def model(services: Services, call: Call, name: str) -> Response:
    """`GET /v1/models/{id}`: the model, if that is one of its names."""
    services.check_model(name)
    shape = _info if _is_anthropic(call) else _model
    return json_response(answers.encode(shape(services, name)))


async def metrics(services: Services, call: Call) -> Response:
    """`GET /metrics`: counters for Prometheus, or as OpenMetrics where that is accepted.

    Those of each key are for who may see them; others get the sums.
    """
    # What it takes is imported when somebody asks: a start does not wait for it
    exposition = await asyncio.to_thread(import_module, "streamtok.api.more.exposition")
    accept = call.request.header("accept") or ""
    content_type, body = exposition.expose_server(services, accept, by_key=call.sees_all)
    return Response(200, (("content-type", content_type),), body)


async def usage(services: Services, call: Call, request_id: str) -> Response:
    """`GET /v1/usage/{id}`: what one request cost, to the key it came with."""
    record = await services.meter.ledger.get(request_id)
    if record is None or not (call.sees_all or record.key == call.key):
        raise NotFound(f"no usage is recorded for {request_id!r}", code="usage_not_found")
    total = record.prompt_tokens + record.generated_tokens
    body = UsageRecordBody(**structs.asdict(record), total_tokens=total)
    return json_response(answers.encode(body))


async def usage_sums(services: Services, call: Call) -> Response:
    """`GET /v1/usage?since=&until=&key=&group_by=`: sums over many requests, of one's own key."""
    query = checked(call.request.query, UsageQuery, strict=False)
    key = query.key if query.key is not None or call.sees_all else call.key
    where = UsageFilter(_time(query.since, "since"), _time(query.until, "until"), key)
    hidden = not call.sees_all and key != call.key
    sums = [] if hidden else await sum_usage(services.meter.ledger, where, query.group_by)
    rows = [UsageSumBody(group_by=query.group_by, **structs.asdict(row)) for row in sums]
    return json_response(answers.encode(ListBody(rows)))


def _is_anthropic(call: Call) -> bool:
    """Whether the client speaks to Anthropic's API, whose models have another shape."""
    return call.request.header("anthropic-version") is not None


def _model(services: Services, name: str) -> ModelBody:
    return ModelBody(name, services.created)


def _info(services: Services, name: str) -> ModelInfo:
    created = datetime.fromtimestamp(services.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    context = services.engine.context
    return ModelInfo(name, name, created, max_input_tokens=context, max_tokens=context)


def _time(text: str | None, name: str) -> float | None:
    """Return a moment given as seconds since 1970 or in ISO 8601 (UTC if it names no zone)."""
    if text is None:
        return None
    with suppress(ValueError):
        if math.isfinite(seconds := float(text)):
            return seconds
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidRequest(
            f"{name}: expected seconds since 1970 or an ISO 8601 time, found {text!r}", param=name
        ) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


ROUTES = (
    Route("GET", "/health", health, Operation(Health), open=True, early=True),
    Route("GET", "/v1/models", models, Operation(ModelList)),
    Route("GET", "/v1/models/*", model, Operation(ModelBody)),
    Route(
        "GET",
        "/v1/usage",
        usage_sums,
        Operation(UsageSums, query=UsageQuery, example={"group_by": "finish_reason"}),
    ),
    Route("GET", "/v1/usage/*", usage, Operation(UsageRecordBody)),
    Route("GET", "/metrics", metrics, Operation(media_type="text/plain")),
)
