"""Everything but generation: models, health, metrics, usage, and the page at `/`."""

import math
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import files

from streamtok.api.openai import answers
from streamtok.api.openai.answers import ListBody, ModelBody, UsageRecordBody, UsageSumBody
from streamtok.api.openai.types import UsageQuery
from streamtok.api.services import Call, Services
from streamtok.errors import InvalidRequest, NotFound
from streamtok.http.response import Response, json_response
from streamtok.ledger import GROUPS, UsageFilter
from streamtok.metrics import CONTENT_TYPE

PAGE = files("streamtok.api").joinpath("static/index.html").read_bytes()


def _hash(start: bytes, end: bytes) -> str:
    """Return the hash of the page's one element between `start` and `end`, as a CSP source."""
    text = PAGE.partition(start)[2].partition(end)[0]
    return f"'sha256-{b64encode(sha256(text).digest()).decode()}'"


SCRIPT = _hash(b'<script type="module">', b"</script>")
STYLE = _hash(b"<style>", b"</style>")

# The page's own script and style by their hashes, this server, and nothing else from anywhere
PAGE_HEADERS = (
    ("content-type", "text/html; charset=utf-8"),
    (
        "content-security-policy",
        (
            f"default-src 'none'; script-src {SCRIPT}; style-src {STYLE}; img-src data:; "
            "connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
            "require-trusted-types-for 'script'; trusted-types 'none'"
        ),
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-cache"),
)


async def models(services: Services, _: Call) -> Response:
    """`GET /v1/models`: the model that is served."""
    return json_response(answers.encode(ListBody([_model(services)])))


async def model(services: Services, _: Call, name: str) -> Response:
    """`GET /v1/models/{id}`: the model, if that is its name."""
    services.check_model(name)
    return json_response(answers.encode(_model(services)))


async def metrics(services: Services, _: Call) -> Response:
    """`GET /metrics`: counters for Prometheus."""
    return Response(200, (("content-type", CONTENT_TYPE),), services.meter.metrics.render())


async def usage(services: Services, call: Call, request_id: str) -> Response:
    """`GET /v1/usage/{id}`: what one request cost, to the key it came with."""
    record = await services.meter.ledger.get(request_id)
    if record is None or (call.key and record.key != call.key):
        raise NotFound(f"no usage is recorded for {request_id!r}", code="usage_not_found")
    total = record.prompt_tokens + record.generated_tokens
    body = UsageRecordBody(**asdict(record), total_tokens=total)
    return json_response(answers.encode(body))


async def usage_sums(services: Services, call: Call) -> Response:
    """`GET /v1/usage?since=&until=&key=&group_by=`: sums over many requests, of one's own key."""
    query = call.request.query
    if unknown := sorted(query.keys() - set(UsageQuery.__struct_fields__)):
        raise InvalidRequest(
            f"{unknown[0]}: unknown query field; known are since, until, key, group_by",
            param=unknown[0],
        )
    group_by = query.get("group_by")
    if group_by is not None and group_by not in GROUPS:
        raise InvalidRequest(
            f"group_by: expected one of {', '.join(GROUPS)}, found {group_by!r}", param="group_by"
        )
    key = query.get("key", call.key or None)
    where = UsageFilter(_time(query, "since"), _time(query, "until"), key)
    hidden = call.key and key != call.key
    sums = [] if hidden else await services.meter.ledger.sums(where, group_by)
    rows = [UsageSumBody(group_by=group_by, **asdict(row)) for row in sums]
    return json_response(answers.encode(ListBody(rows)))


async def page(_: Services, __: Call) -> Response:
    """`GET /`: a page for people."""
    return Response(200, PAGE_HEADERS, PAGE)


def _model(services: Services) -> ModelBody:
    return ModelBody(services.model, services.created)


def _time(query: Mapping[str, str], name: str) -> float | None:
    """Return a moment given as seconds since 1970 or in ISO 8601 (UTC if it names no zone)."""
    text = query.get(name)
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
