"""`GET /openapi.json`: what this server answers, as OpenAPI 3.1.

Made from the routes with their operations, from the types of their JSON, and from docstrings.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec

from streamtok import __version__, errors
from streamtok.api.input.validation import EXTRA
from streamtok.api.openai import answers
from streamtok.api.route import ErrorFormat, Operation, Route
from streamtok.api.routing import Api
from streamtok.api.services import Call
from streamtok.errors import RequestError
from streamtok.http.response import Response, json_response

JSON, EVENTS, LINES, PLAIN = (
    "application/json",
    "text/event-stream",
    "application/x-ndjson",
    "text/plain",
)
TEXT = {"type": "string"}
IDENTIFIER = {"name": "id", "in": "path", "required": True, "schema": TEXT}


async def describe(api: Api, _: Call) -> Response:
    """`GET /openapi.json`: this description."""
    return json_response(document(api.routes))


@cache
def document(routes: Sequence[Route]) -> bytes:
    """Return the description of `routes` as JSON text."""
    formats = list(dict.fromkeys(route.errors for route in routes))
    types = [form.body for form in formats]
    for operation in (route.operation for route in routes):
        named = (operation.answer, operation.body, operation.query, operation.event)
        types += [kind for kind in named if kind is not None]
    schemas, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    for schema in components.values():
        schema.get("properties", {}).pop(EXTRA, None)  # that is no field of the JSON
    maker = _Maker({id(kind): schema for kind, schema in zip(types, schemas, strict=True)})
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = paths.setdefault(route.path.replace("*", "{id}"), {})
        path[route.method.lower()] = maker.operation(route, components)
    return answers.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "streamtok",
                "version": __version__,
                "description": "A language model's tokens, streamed the moment they are made.",
                "license": {"name": "MIT", "identifier": "MIT"},
            },
            "servers": [{"url": "/"}],
            "paths": paths,
            "components": {
                "schemas": components,
                "responses": dict(maker.responses(formats)),
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer"},
                    "key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
                },
            },
        }
    )


class _Maker:
    """Makes the parts of a document, with `schemas` by the identity of types."""

    def __init__(self, schemas: Mapping[int, Any]) -> None:
        self._schemas = schemas

    def operation(self, route: Route, components: Mapping[str, Any]) -> dict[str, Any]:
        """Return a route's "operation object"."""
        operation = route.operation
        said = re.sub(r"^`[^`]*`:? ?", "", (route.endpoint.__doc__ or "").partition("\n")[0])
        name = f"{route.method} {route.path.replace('*', 'id')}".lower()
        made: dict[str, Any] = {
            "operationId": re.sub(r"[^a-z0-9]+", "_", name).strip("_"),
            "summary": said[:1].upper() + said[1:],
            "parameters": list(self._parameters(route, components)),
            "responses": self._answers(route),
            # Keys are needed where the server has a file of them.
            "security": [{}] if route.open else [{}, {"bearer": []}, {"key": []}],
        }
        if operation.body is not None:
            content = {"schema": self._schema(operation.body), "example": operation.example}
            made["requestBody"] = {"required": True, "content": {JSON: content}}
        return made

    def responses(self, formats: Iterable[ErrorFormat]) -> Iterator[tuple[str, Any]]:
        """Yield the answers that are errors, by name, in each of the `formats`."""
        for kind in ERRORS:
            for form in formats:
                said = {
                    "description": (kind.__doc__ or "").partition(": ")[2].partition("\n")[0],
                    "content": {JSON: {"schema": self._schema(form.body)}},
                }
                yield _response_name(kind, form), said

    def _schema(self, kind: Any) -> Any:
        return self._schemas[id(kind)]

    def _parameters(self, route: Route, components: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        operation = route.operation
        if "*" in route.path:
            yield IDENTIFIER
        if operation.query is None:
            return
        query = components[operation.query.__name__]
        examples = operation.example or {}
        for name, schema in query["properties"].items():
            parameter = {"name": name, "in": "query", "schema": schema}
            parameter["required"] = name in query["required"]
            yield parameter | ({"example": examples[name]} if name in examples else {})

    def _answers(self, route: Route) -> dict[str, Any]:
        operation = route.operation
        schema = TEXT if operation.answer is None else self._schema(operation.answer)
        content = {operation.media_type: {"schema": schema}}
        if operation.event is not None:
            line = self._schema(operation.event)
            kinds = {EVENTS: _event(line), LINES: line, PLAIN: TEXT}
            content |= {kind: {"schema": schema} for kind, schema in kinds.items()}
        failures = {
            str(kind.status): {
                "$ref": f"#/components/responses/{_response_name(kind, route.errors)}"
            }
            for kind in sorted(_errors(route), key=lambda kind: kind.status)
        }
        return {"200": {"description": "The answer.", "content": content}} | failures


def _response_name(kind: type[RequestError], form: ErrorFormat) -> str:
    return form.name + kind.__name__


def _event(data: Any) -> dict[str, Any]:
    """Return the schema of an event whose data is JSON or the mark of the end (OpenAPI 3.2)."""
    text = TEXT | {"contentMediaType": JSON, "contentSchema": data}
    known = {"event": TEXT, "data": {"anyOf": [{"const": "[DONE]"}, text]}}
    return {"type": "object", "required": ["data"], "properties": known}


ERRORS: Sequence[type[RequestError]] = (
    errors.InvalidRequest,
    errors.Unauthorized,
    errors.NotFound,
    errors.NotAcceptable,
    errors.RequestTimeout,
    errors.BodyTooLarge,
    errors.Unsupported,
    errors.RateLimited,
    errors.EngineFailed,
    errors.Unavailable,
)


def _errors(route: Route) -> Iterator[type[RequestError]]:
    """Yield what may go wrong with a route's requests."""
    operation = route.operation
    if operation.body or operation.query or operation.event:
        yield errors.InvalidRequest
    if not route.open:
        yield errors.Unauthorized
    takes_model = operation.body and "model" in operation.body.__struct_fields__
    if "*" in route.path or route.limited or takes_model:
        yield errors.NotFound
    if operation.body:
        yield from (errors.RequestTimeout, errors.BodyTooLarge, errors.Unsupported)
    if route.limited:
        yield errors.RateLimited
    if operation.event:
        yield from (errors.NotAcceptable, errors.EngineFailed)
    yield errors.Unavailable


ROUTES = (Route("GET", "/openapi.json", describe, Operation(dict[str, Any]), early=True),)
