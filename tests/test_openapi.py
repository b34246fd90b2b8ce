"""The description at `/openapi.json`: it is valid, complete, and true of what is answered."""

import json
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from streamtok.api.more.openapi import document
from streamtok.api.more.routes import ROUTES as PLAIN_ROUTES
from streamtok.api.resume.room import Resumption
from streamtok.config import ServeConfig
from streamtok.ledger import Ledger
from streamtok.testing import RunningServer

ROUTES = Resumption(ServeConfig(), Ledger(":memory:").database).around(PLAIN_ROUTES)
SPECIFICATION: dict[str, Any] = json.loads(document(ROUTES))
SAID = [(method, path) for path, found in SPECIFICATION["paths"].items() for method in found]
JSON, EVENTS, LINES = "application/json", "text/event-stream", "application/x-ndjson"


def operation(method: str, path: str) -> Any:
    return SPECIFICATION["paths"][path][method]


def validator(schema: Any) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": SPECIFICATION["components"]})


def test_it_is_valid() -> None:
    package = pytest.importorskip("openapi_spec_validator")
    package.OpenAPIV31SpecValidator(SPECIFICATION).validate()


def test_its_schemas_are_valid() -> None:
    for schema in SPECIFICATION["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_route_is_in_it_and_nothing_else() -> None:
    routes = [(route.method.lower(), route.path.replace("*", "{id}")) for route in ROUTES]
    assert sorted(routes) == sorted(SAID)
    names = [operation(*said)["operationId"] for said in SAID]
    assert len(set(names)) == len(names)
    for said in SAID:
        assert operation(*said)["summary"].endswith(".")
        assert "401" in operation(*said)["responses"] or said[1] in ("/", "/health")


def test_no_two_types_have_one_name() -> None:
    """Or their schemas would be named after their modules."""
    assert not [name for name in SPECIFICATION["components"]["schemas"] if "." in name]
    assert not [name for name in SPECIFICATION["components"]["schemas"] if "streamtok" in name]


def test_a_server_gives_it(server: RunningServer) -> None:
    answer = httpx.get(f"{server.url}/openapi.json")
    assert answer.headers["content-type"] == JSON
    assert answer.json() == SPECIFICATION


def example(method: str, path: str) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Return the body and the query of the example for an operation."""
    found = operation(method, path)
    body = found.get("requestBody", {}).get("content", {}).get(JSON, {}).get("example")
    return body, {p["name"]: p["example"] for p in found["parameters"] if "example" in p}


@pytest.fixture(scope="module")
def made(server: RunningServer) -> dict[str, str]:
    """Return an id that there is, for each path with one."""
    body, headers = {"input": "x", "max_output_tokens": 1}, {"x-trace": "1"}
    response = httpx.post(f"{server.url}/v1/responses", json=body, headers=headers)
    made = str(response.json()["id"])
    behind = httpx.post(f"{server.url}/v1/responses", json=body | {"background": True})
    asked = {"prompt": "x", "max_tokens": 1, "stream": True, "resumable": True}
    stream = httpx.post(f"{server.url}/v1/completions", json=asked)
    return {
        "/v1/responses/{id}": made,
        "/v1/responses/{id}/input_items": made,
        "/v1/responses/{id}/cancel": behind.json()["id"],
        "/v1/models/{id}": "fireside",
        "/v1/usage/{id}": made,
        "/v1/streams/{id}": stream.headers["x-stream-id"],
        "/v1/traces/{id}": response.headers["x-request-id"],
    }


@pytest.mark.parametrize(("method", "path"), SAID)
def test_an_answer_is_what_it_says(
    server: RunningServer, made: dict[str, str], method: str, path: str
) -> None:
    body, query = example(method, path)
    url = server.url + path.replace("{id}", made.get(path, ""))
    answer = httpx.request(method, url, json=body, params=query)
    assert answer.status_code == 200
    media_type = answer.headers["content-type"].partition(";")[0]
    content = operation(method, path)["responses"]["200"]["content"]
    value = answer.json() if media_type == JSON else answer.text
    validator(content[media_type]["schema"]).validate(value)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        said
        for said in SAID
        if {EVENTS, LINES} <= set(operation(*said)["responses"]["200"]["content"])
    ],
)
def test_an_event_is_what_it_says(server: RunningServer, method: str, path: str) -> None:
    body, query = example(method, path)
    answer = httpx.request(
        method,
        server.url + path,
        json=body and body | {"stream": True},
        params=query,
        headers={"accept": LINES},
    )
    assert answer.headers["content-type"] == LINES
    schema = operation(method, path)["responses"]["200"]["content"][LINES]["schema"]
    for line in answer.text.splitlines():
        validator(schema).validate(json.loads(line))
    event = operation(method, path)["responses"]["200"]["content"][EVENTS]["schema"]
    assert event["properties"]["data"]["anyOf"][1]["contentSchema"] == schema
    validator(event).validate({"event": "message", "data": line})


@pytest.mark.parametrize(("method", "path"), SAID)
def test_who_takes_a_model_says_that_it_may_not_exist(
    server: RunningServer, method: str, path: str
) -> None:
    body, _ = example(method, path)
    if not body:
        return
    answer = httpx.request(method, server.url + path, json=body | {"model": "another"})
    assert str(answer.status_code) in operation(method, path)["responses"]


@pytest.mark.parametrize(
    ("method", "path"), [said for said in SAID if "400" in operation(*said)["responses"]]
)
def test_an_error_is_what_it_says(server: RunningServer, method: str, path: str) -> None:
    query = {} if method == "post" else {"max_tokens": "x", "wrong": "x"}
    url = server.url + path.replace("{id}", "x")
    answer = httpx.request(method, url, content=b"[", params=query)
    assert answer.status_code == 400
    reference = operation(method, path)["responses"]["400"]["$ref"].rpartition("/")[2]
    said = SPECIFICATION["components"]["responses"][reference]
    validator(said["content"][JSON]["schema"]).validate(answer.json())


def test_a_request_is_what_it_says() -> None:
    for said in SAID:
        body, _ = example(*said)
        if body is not None:
            content = operation(*said)["requestBody"]["content"][JSON]
            validator(content["schema"]).validate(body)
            if said[1] != "/v1/responses/input_tokens":  # all of which may be left out
                assert not validator(content["schema"]).is_valid({})
