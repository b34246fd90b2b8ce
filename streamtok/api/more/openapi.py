"""What this server answers, as OpenAPI 3.1: made from the types of its JSON and from its routes.

Types say what their fields are, docstrings what they mean; here stands only which route takes and
gives what, with an example. Read next: `streamtok.api.routing`, which answers with this.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from streamtok import __version__, errors
from streamtok.api.anthropic import types as anthropic
from streamtok.api.more import types as more
from streamtok.api.openai import answers
from streamtok.api.openai import types as requests
from streamtok.api.responses import answers as response_answers
from streamtok.api.responses import types as responses
from streamtok.api.route import Route
from streamtok.api.validation import EXTRA
from streamtok.errors import RequestError

HI = [{"role": "user", "content": "Who are you?"}]
JSON, EVENTS, LINES, PLAIN = (
    "application/json",
    "text/event-stream",
    "application/x-ndjson",
    "text/plain",
)
TEXT = {"type": "string"}
IDENTIFIER = {"name": "id", "in": "path", "required": True, "schema": TEXT}


@dataclass(frozen=True, slots=True)
class Operation:
    """What a route takes and gives: types of JSON, or text of a `media_type`.

    `event` is what an event of a stream is, where there can be one. `summary` stands in place of
    the docstring of an endpoint that has none.
    """

    answer: Any = None
    body: Any = None
    query: Any = None
    event: Any = None
    media_type: str = JSON
    example: Mapping[str, Any] | None = None
    summary: str = ""


OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("POST", "/v1/chat/completions"): Operation(
        answers.ChatCompletion,
        requests.ChatRequest,
        event=answers.ChatCompletionChunk,
        example={"messages": HI, "max_tokens": 8},
    ),
    ("POST", "/v1/completions"): Operation(
        answers.Completion,
        requests.CompletionRequest,
        event=answers.Completion,
        example={"prompt": "Once upon a time", "max_tokens": 8},
    ),
    ("GET", "/v1/generate"): Operation(
        query=more.LinkQuery,
        event=answers.Completion,
        media_type=PLAIN,
        example={"prompt": "Once upon a time", "max_tokens": 8},
    ),
    ("POST", "/v1/responses"): Operation(
        response_answers.ResponseBody,
        responses.ResponseRequest,
        event=response_answers.Event,
        example={"input": "Who are you?", "max_output_tokens": 8},
    ),
    ("POST", "/v1/responses/input_tokens"): Operation(
        response_answers.InputTokens,
        responses.InputTokensRequest,
        example={"input": "Who are you?"},
    ),
    ("GET", "/v1/responses/*/input_items"): Operation(
        response_answers.InputItemList, query=responses.InputItemsQuery
    ),
    ("GET", "/v1/responses/*"): Operation(response_answers.ResponseBody),
    ("DELETE", "/v1/responses/*"): Operation(response_answers.ResponseDeleted),
    ("POST", "/v1/messages"): Operation(
        anthropic.MessageBody,
        anthropic.MessageRequest,
        event=anthropic.Event,
        example={"messages": HI, "max_tokens": 8},
    ),
    ("POST", "/v1/messages/count_tokens"): Operation(
        anthropic.TokenCount, anthropic.CountRequest, example={"messages": HI}
    ),
    ("POST", "/v1/embeddings"): Operation(
        answers.Embeddings, requests.EmbeddingRequest, example={"input": "Once upon a time"}
    ),
    ("POST", "/tokenize"): Operation(
        answers.Tokens,
        more.TokenizeRequest,
        example={"content": "Once upon a time", "with_pieces": True},
    ),
    ("POST", "/detokenize"): Operation(
        answers.Detokenized, more.DetokenizeRequest, example={"tokens": [1, 2]}
    ),
    ("POST", "/apply-template"): Operation(
        answers.Prompt, more.TemplateRequest, example={"messages": HI}
    ),
    ("GET", "/props"): Operation(answers.Props),
    ("GET", "/v1/models"): Operation(answers.ModelList),
    ("GET", "/v1/models/*"): Operation(answers.ModelBody),
    ("GET", "/v1/usage"): Operation(
        answers.UsageSums,
        query=more.UsageQuery,
        example={"group_by": "finish_reason"},
    ),
    ("GET", "/v1/usage/*"): Operation(answers.UsageRecordBody),
    ("GET", "/v1/traces/*"): Operation(media_type=LINES),
    ("GET", "/health"): Operation(answers.Health, summary="Whether the server is ready."),
    ("GET", "/metrics"): Operation(media_type=PLAIN),
    ("GET", "/openapi.json"): Operation(dict[str, Any], summary="This description."),
    ("GET", "/"): Operation(media_type="text/html"),
}


def document(routes: Sequence[Route]) -> bytes:
    """Return the description of `routes` as JSON text."""
    known = [(route, OPERATIONS[route.method, route.path]) for route in routes]
    types = [answers.ErrorResponse, anthropic.ErrorEvent]
    for _, operation in known:
        named = (operation.answer, operation.body, operation.query, operation.event)
        types += [kind for kind in named if kind is not None]
    schemas, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    for schema in components.values():
        schema.get("properties", {}).pop(EXTRA, None)  # that is no field of the JSON
    maker = _Maker({id(kind): schema for kind, schema in zip(types, schemas, strict=True)})
    paths: dict[str, dict[str, Any]] = {}
    for route, operation in known:
        path = paths.setdefault(route.path.replace("*", "{id}"), {})
        path[route.method.lower()] = maker.operation(route, operation, components)
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
                "responses": dict(maker.responses()),
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

    def operation(
        self, route: Route, operation: Operation, components: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return what there is to say of a route."""
        said = re.sub(r"^`[^`]*`:? ?", "", (route.endpoint.__doc__ or "").partition("\n")[0])
        name = f"{route.method} {route.path.replace('*', 'id')}".lower()
        made: dict[str, Any] = {
            "operationId": re.sub(r"[^a-z0-9]+", "_", name).strip("_"),
            "summary": operation.summary or said[:1].upper() + said[1:],
            "parameters": list(self._parameters(route, operation, components)),
            "responses": self._answers(route, operation),
            # Keys are needed where the server has a file of them.
            "security": [{}] if route.open else [{}, {"bearer": []}, {"key": []}],
        }
        if operation.body is not None:
            content = {"schema": self._schema(operation.body), "example": operation.example}
            made["requestBody"] = {"required": True, "content": {JSON: content}}
        return made

    def responses(self) -> Iterator[tuple[str, Any]]:
        """Yield the answers that are errors, by name, in each of two forms."""
        for kind in ERRORS:
            for prefix, body in (("", answers.ErrorResponse), ("Anthropic", anthropic.ErrorEvent)):
                said = {
                    "description": (kind.__doc__ or "").partition(": ")[2].partition("\n")[0],
                    "content": {JSON: {"schema": self._schema(body)}},
                }
                yield prefix + kind.__name__, said

    def _schema(self, kind: Any) -> Any:
        return self._schemas[id(kind)]

    def _parameters(
        self, route: Route, operation: Operation, components: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
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

    def _answers(self, route: Route, operation: Operation) -> dict[str, Any]:
        schema = TEXT if operation.answer is None else self._schema(operation.answer)
        content = {operation.media_type: {"schema": schema}}
        if operation.event is not None:
            line = self._schema(operation.event)
            kinds = {EVENTS: _event(line), LINES: line, PLAIN: TEXT}
            content |= {kind: {"schema": schema} for kind, schema in kinds.items()}
        prefix = (
            "Anthropic"
            if operation.body in (anthropic.MessageRequest, anthropic.CountRequest)
            else ""
        )
        failures = {
            str(kind.status): {"$ref": f"#/components/responses/{prefix}{kind.__name__}"}
            for kind in sorted(_errors(route, operation), key=lambda kind: kind.status)
        }
        return {"200": {"description": "The answer.", "content": content}} | failures


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


def _errors(route: Route, operation: Operation) -> Iterator[type[RequestError]]:
    """Yield what may go wrong with a route's requests."""
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
