"""OpenAI's Responses API: its events, what is kept, and its official client for Python."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import Response as OpenAIResponse
from openai.types.responses import ResponseStreamEvent, response_create_params
from pydantic import TypeAdapter
from test_anthropic import api_that_says, written
from test_wire import Peer, post

from streamtok.api.access.keys import KeyFile
from streamtok.api.more.routes import ROUTES
from streamtok.api.responses.types import DOCUMENTED, ResponseRequest
from streamtok.api.routing import Api
from streamtok.config import ServeConfig
from streamtok.errors import EngineFailed
from streamtok.http.request import Request
from streamtok.messages import Failed, Started, TokenEvent
from streamtok.testing import (
    FakeClock,
    RunningServer,
    ScriptedEngine,
    chunks,
    make_services,
    running_server,
)

RESPONSES = "/v1/responses"
A = ord("a") - 33  # the byte alphabet begins with "!"
ASK: dict[str, Any] = {"input": "hi", "max_output_tokens": 3}
ANNA, BEN = "sk-anna", "sk-ben"
STORY = "Tell me a story about a fox and a lantern."
EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
SCHEMA = {
    "type": "object",
    "properties": {"sure": {"type": "boolean"}},
    "required": ["sure"],
    "additionalProperties": False,
}
SURE = {"format": {"type": "json_schema", "name": "x", "strict": True, "schema": SCHEMA}}


class Site:
    """The API around a scripted engine that says "abcd"."""

    def __init__(self, folder: Path, keys: KeyFile | None = None, **services: Any) -> None:
        self.engine = ScriptedEngine([A, A + 1, A + 2, A + 3], context=64)
        self.services = make_services(folder, self.engine, FakeClock(), **services)
        self.api = Api(ROUTES, keys)
        self.api.open(self.services)

    async def send(
        self, method: str, target: str, body: Any = None, key: str = ""
    ) -> tuple[int, Any]:
        headers = (("authorization", f"Bearer {key}"),) if key else ()
        data = b"" if body is None else json.dumps(body).encode()
        response = await self.api.handle(Request(method, target, headers, data, "1.1", "test"))
        if isinstance(response.body, bytes):
            return response.status, json.loads(response.body)
        return response.status, [read(chunk) async for chunk in chunks(response)]

    async def ask(self, key: str = "", **body: Any) -> tuple[int, Any]:
        return await self.send("POST", RESPONSES, ASK | body, key)

    def prompt(self, response_id: str) -> str:
        """Return the prompt that a request has become."""
        (sequence,) = self.engine.requests[response_id]
        return self.services.tokenizer.decode(sequence.prompt_ids, special=True)


def read(chunk: bytes) -> Any:
    """Return an event's JSON, whose type is the event's name."""
    name, _, data = chunk.decode().removesuffix("\n\n").partition("\ndata: ")
    event = json.loads(data)
    assert name == f"event: {event['type']}"
    return event


def unnamed(body: dict[str, Any]) -> Any:
    """Return a response without what is another's each time."""
    return json.loads(re.sub(r"_\d+", "_", json.dumps(body)))


@pytest.fixture
async def site(tiny_model: Path) -> AsyncIterator[Site]:
    site = Site(tiny_model)
    yield site
    await site.services.meter.close()


# How an answer is told


async def test_a_stream_is_numbered_and_typed(site: Site) -> None:
    status, events = await site.ask(stream=True)
    assert status == 200
    assert [event["type"] for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * 3,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        EVENTS.validate_json(json.dumps(event), strict=True)
    assert [event["delta"] for event in events[4:7]] == ["a", "b", "c"]
    assert events[7]["text"] == events[8]["part"]["text"] == "abc"
    assert (events[0]["response"]["status"], events[0]["response"]["output"]) == ("in_progress", [])
    last = events[-1]["response"]
    assert last["output"] == [events[9]["item"]]
    assert last["incomplete_details"] == {"reason": "max_output_tokens"}
    assert last["usage"]["total_tokens"] == last["usage"]["input_tokens"] + 3 == 9


async def test_the_oldest_turns_are_dropped_from_what_is_too_long(
    tiny_model: Path,
) -> None:
    site = Site(tiny_model)
    turns: list[Any] = [
        {"role": role, "content": f"{role[0]}{number} "}
        for number in range(9)
        for role in ("user", "assistant")
    ]
    asked = {"input": [*turns, {"role": "user", "content": "now"}], "instructions": "be"}
    status, body = await site.ask(**asked)
    assert status == 400
    assert body["error"]["code"] == "context_length_exceeded"
    status, body = await site.ask(**asked, truncation="auto")
    assert (status, body["truncation"]) == (200, "auto")
    prompt = site.prompt(body["id"])
    first = min(number for number in range(9) if f"u{number}" in prompt)
    assert 0 < first < 9  # as few as can be are dropped, in whole turns
    kept = [f"{role}{number} " for number in range(first, 9) for role in "ua"]
    assert re.findall(r"[ua]\d ", prompt) == kept
    assert "be" in prompt
    assert "now" in prompt
    tokens = len(site.engine.requests[body["id"]][0].prompt_ids)
    assert tokens < 48  # a quarter of the context is free for the answer
    _, counted = await site.send(
        "POST", f"{RESPONSES}/input_tokens", asked | {"truncation": "auto"}
    )
    assert counted["input_tokens"] == tokens


async def test_a_last_turn_that_is_too_long_is_an_error(tiny_model: Path) -> None:
    status, body = await Site(tiny_model).ask(input="x" * 100, truncation="auto")
    assert (status, body["error"]["code"]) == (400, "context_length_exceeded")


async def test_what_fits_is_not_truncated(tiny_model: Path) -> None:
    site = Site(tiny_model)
    turns = [{"role": "user", "content": text} for text in ("one", "two")]
    _, body = await site.ask(input=turns, truncation="auto")
    assert "one" in site.prompt(body["id"])


async def test_a_whole_response_is_the_last_events(site: Site) -> None:
    _, events = await site.ask(stream=True)
    _, whole = await site.ask()
    streamed = events[-1]["response"]
    assert unnamed(whole) == unnamed(streamed)
    OpenAIResponse.model_validate_json(json.dumps(whole), strict=True)
    assert await site.send("GET", f"{RESPONSES}/{whole['id']}") == (200, whole)


async def test_what_was_asked_is_told_again(site: Site) -> None:
    given = {
        "instructions": "be",
        "metadata": {"a": "b"},
        "temperature": 0.25,
        "user": "u",
        "store": False,
    }
    _, whole = await site.ask(**given)
    assert {name: whole[name] for name in given} == given


async def test_a_stream_that_fails_says_so(tiny_model: Path) -> None:
    peer = Peer(tiny_model, "", held=True)
    peer.stream.feed(post(RESPONSES, ASK | {"stream": True}))
    await peer.engine.submitted()
    for made in (Started(0), TokenEvent(0, A), Failed(0, EngineFailed("it broke"), 1)):
        peer.engine.emit("resp_1", made)
    sent = (await peer.converse()).rpartition(b"event: ")[2].removesuffix(b"\r\n0\r\n\r\n")
    event = read(b"event: " + sent)
    EVENTS.validate_json(json.dumps(event), strict=True)
    assert event["type"] == "response.failed"
    assert event["response"]["status"] == "failed"
    assert event["response"]["error"] == {"code": "server_error", "message": "it broke"}
    assert event["response"]["output"][0]["content"][0]["text"] == "a"


async def test_lengths_can_be_hidden(site: Site) -> None:
    options = {"include_obfuscation": True}
    headers = (("accept", "application/x-ndjson"),)
    body = json.dumps(ASK | {"stream": True, "stream_options": options}).encode()
    response = await site.api.handle(Request("POST", RESPONSES, headers, body, "1.1", "test"))
    assert not isinstance(response.body, bytes)
    deltas = [line async for line in chunks(response) if b"_text.delta" in line]
    assert len(deltas) == 3
    assert all(len(line) % 64 == 1 and b'"obfuscation":"' in line for line in deltas)


# What is asked for


@pytest.mark.parametrize(
    ("body", "prompt"),
    [
        ({}, "<|user|>hi<|end|>"),
        ({"instructions": "be"}, "<|system|>be<|end|><|user|>hi<|end|>"),
        ({"input": [{"role": "developer", "content": "x"}]}, "<|system|>x<|end|>"),
        (
            {
                "input": [
                    {"role": "user", "content": [{"type": "input_text", "text": "x"}]},
                    {
                        "type": "message",
                        "id": "msg_1",
                        "status": "completed",
                        "role": "assistant",
                        "content": [
                            {"type": "output_text", "text": "y", "annotations": []},
                            {"type": "refusal", "refusal": "z"},
                        ],
                    },
                ]
            },
            "<|user|>x<|end|><|assistant|>yz<|end|>",
        ),
    ],
)
async def test_input_becomes_a_chat(site: Site, body: dict[str, Any], prompt: str) -> None:
    status, answer = await site.ask(**body)
    assert status == 200
    assert site.prompt(answer["id"]) == f"<|endoftext|>{prompt}<|assistant|>"


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"input": None}, "input", "must be a string or an array (got null)"),
        ({"input": []}, "input", "at least 1 item (got 0)"),
        (
            {"input": [{"role": "king", "content": "x"}]},
            "input[0].role",
            "must be 'assistant', 'developer'",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content[0].type",
            "'input_text', 'output_text' or 'refusal'",
        ),
        ({"input": [{"type": "item_reference"}]}, "input[0].type", "'function_call'"),
        ({"input": [{"content": "x"}]}, "input[0].role", "a message needs it"),
        ({"input": [{"type": "function_call", "name": "x"}]}, "input[0].call_id", "needs it"),
        ({"input": "x" * 64}, "input", "the prompt has 68 tokens"),
        ({"max_output_tokens": 0}, "max_output_tokens", "must be at least 1 (got 0)"),
        ({"stream_options": {}}, "stream_options", "where stream is true"),
        ({"metadata": {"a": 1}}, "metadata", "must be a string (got 1)"),
        ({"text": {"format": {"type": "x"}}}, "text.format.type", "json_schema"),
        ({"model": "gpt-9"}, "model", "does not exist"),
        ({"previous_response_id": "resp_9"}, "previous_response_id", "'resp_9'"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "must be 'function'"),
        ({"tool_choice": "required"}, "tool_choice", "no tools"),
    ],
)
async def test_what_is_wrong_is_named(
    site: Site, body: dict[str, Any], param: str, said: str
) -> None:
    status, answer = await site.ask(**body)
    assert status == (404 if param == "model" else 400)
    assert answer["error"]["param"] == param
    assert said in answer["error"]["message"]


@pytest.mark.parametrize("name", DOCUMENTED.refused)
async def test_what_asks_for_nothing_is_accepted(site: Site, name: str) -> None:
    for harmless in DOCUMENTED.refused[name]:
        assert (await site.ask(**{name: harmless}))[0] == 200
    status, answer = await site.ask(**{name: {"some": "value"}})
    assert (status, answer["error"]["param"]) == (400, name)


def test_every_documented_field_is_known() -> None:
    fields = {"stream", *response_create_params.ResponseCreateParamsBase.__annotations__}
    known = {*DOCUMENTED.refused, *DOCUMENTED.hints, *ResponseRequest.__struct_fields__}
    assert fields <= known


# What is kept


async def test_a_request_goes_on_from_a_response(site: Site) -> None:
    _, first = await site.ask(instructions="be")
    _, second = await site.ask(input="more", previous_response_id=first["id"])
    assert second["previous_response_id"] == first["id"]
    _, third = await site.ask(input="on", previous_response_id=second["id"], instructions="so")
    talk = "<|user|>hi<|end|><|assistant|>abc<|end|><|user|>more<|end|><|assistant|>abc<|end|>"
    assert site.prompt(third["id"]) == (
        f"<|endoftext|><|system|>so<|end|>{talk}<|user|>on<|end|><|assistant|>"
    )


async def test_what_is_kept_can_be_forgotten(site: Site) -> None:
    _, first = await site.ask()
    target = f"{RESPONSES}/{first['id']}"
    assert await site.send("GET", target) == (200, first)
    assert (await site.send("GET", f"{target}?stream=false"))[0] == 200
    status, answer = await site.send("GET", f"{target}?stream=true")
    assert (status, answer["error"]["param"]) == (400, "stream")
    gone = {"id": first["id"], "object": "response", "deleted": True}
    assert await site.send("DELETE", target) == (200, gone)
    for method in ("GET", "DELETE"):
        status, answer = await site.send(method, target)
        assert (status, answer["error"]["code"]) == (404, "response_not_found")
    status, answer = await site.ask(previous_response_id=first["id"])
    assert (status, answer["error"]["code"]) == (400, "previous_response_not_found")
    assert (await site.send("PUT", target))[0] == 405


async def test_what_is_not_to_be_kept_is_not(site: Site) -> None:
    _, answer = await site.ask(store=False)
    assert answer["store"] is False
    assert (await site.send("GET", f"{RESPONSES}/{answer['id']}"))[0] == 404


async def test_a_server_may_keep_nothing(tiny_model: Path) -> None:
    site = Site(tiny_model, stored_responses=0)
    _, answer = await site.ask()
    assert answer["store"] is False
    status, answer = await site.ask(store=True)
    assert (status, answer["error"]["param"]) == (400, "store")
    await site.services.meter.close()


async def test_what_cannot_be_kept_is_said_not_to_be(site: Site) -> None:
    database = site.services.meter.ledger.database
    await database.run(("ALTER TABLE response RENAME TO moved", ()))
    assert (await site.ask())[1]["store"] is False
    _, events = await site.ask(stream=True)
    assert events[-1]["response"]["store"] is False


async def test_a_response_is_its_keys_alone(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    lines = (f"{name}:{sha256(f'sk-{name}'.encode()).hexdigest()}" for name in ("anna", "ben"))
    path.write_text("\n".join(lines))
    site = Site(tiny_model, KeyFile(path))
    _, answer = await site.ask(ANNA)
    target = f"{RESPONSES}/{answer['id']}"
    assert (await site.send("GET", target, key=BEN))[0] == 404
    assert (await site.send("DELETE", target, key=BEN))[0] == 404
    assert (await site.ask(BEN, previous_response_id=answer["id"]))[0] == 400
    assert (await site.ask(ANNA, previous_response_id=answer["id"]))[0] == 200
    assert (await site.send("GET", target, key=ANNA))[0] == 200
    await site.services.meter.close()


def test_what_is_kept_outlives_the_server(tiny_model: Path, tmp_path: Path) -> None:
    config = ServeConfig(port=0, ledger=str(tmp_path / "books"), model=str(tiny_model))
    with running_server(config) as server:
        first = httpx.post(f"{server.url}{RESPONSES}", json=ASK).json()
    with running_server(config) as server:
        assert httpx.get(f"{server.url}{RESPONSES}/{first['id']}").json() == first


# The official client


@pytest.fixture
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_the_official_client_streams_what_it_gets_as_a_whole(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"model": "fireside", "input": "Who are you?", "temperature": 0}
    whole = client.responses.create(**options)
    with client.responses.stream(**options) as stream:
        text = "".join(event.delta for event in stream if event.type.endswith("text.delta"))
        final = stream.get_final_response()
    assert text == final.output_text == whole.output_text
    assert final.status == whole.status == "completed"
    events = list(client.responses.create(**options, max_output_tokens=2, stream=True))
    assert events[-1].type == "response.incomplete"
    assert client.responses.retrieve(whole.id).output_text == text


def test_the_official_client_goes_on_and_forgets(client: openai.OpenAI) -> None:
    first = client.responses.create(model="fireside", input="Who are you?", temperature=0)
    assert first.status == "completed"
    second = client.responses.create(
        model="fireside", input="Why?", previous_response_id=first.id, temperature=0
    )
    told = client.responses.create(
        model="fireside",
        input=[
            {"role": "user", "content": "Who are you?"},
            *(item.to_dict() for item in first.output),
            {"role": "user", "content": "Why?"},
        ],
        temperature=0,
    )
    assert second.output_text == told.output_text
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="fireside", input="x", previous_response_id=first.id)
    assert caught.value.param == "previous_response_id"


def test_the_official_client_gets_what_a_schema_describes(client: openai.OpenAI) -> None:
    pytest.importorskip("llguidance")
    answer = client.responses.create(
        model="fireside", input="Are you sure?", max_output_tokens=40, text=SURE
    )
    assert isinstance(json.loads(answer.output_text)["sure"], bool)
    assert answer.text is not None
    assert answer.text.to_dict()["format"] == SURE["format"] | {"description": None}


def test_leaving_its_stream_ends_the_generation(
    server: RunningServer, client: openai.OpenAI
) -> None:
    with client.responses.stream(model="fireside", input=STORY, max_output_tokens=900) as stream:
        made = next(iter(stream))
    assert made.type == "response.created"
    for _ in range(10_000):  # each question is a round trip to the server
        found = httpx.get(f"{server.url}/v1/usage/{made.response.id}")
        if found.status_code == 200:
            break
    assert found.json()["finish_reason"] == "cancelled"


# Functions

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER: Any = {"type": "function", "name": "weather", "parameters": CITY, "strict": True}


@pytest.mark.parametrize(
    ("content", "kinds"),
    [
        ("so" + written("Oslo"), ["message", "function_call"]),
        (written("Oslo") + written("Rome"), ["function_call", "function_call"]),
        ("so", ["message"]),
    ],
)
async def test_calls_are_items_of_their_own(
    tiny_model: Path, content: str, kinds: list[str]
) -> None:
    api, engine, services = api_that_says(tiny_model, content)
    body = {"input": "hi", "tools": [WEATHER], "max_output_tokens": 300}
    site = Site.__new__(Site)
    site.api, site.engine, site.services = api, engine, services
    _, whole = await site.send("POST", RESPONSES, body)
    _, events = await site.send("POST", RESPONSES, body | {"stream": True})
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        EVENTS.validate_json(json.dumps(event), strict=True)
    OpenAIResponse.model_validate_json(json.dumps(whole), strict=True)
    assert unnamed(events[-1]["response"]) == unnamed(whole)
    assert whole["status"] == "completed"
    assert [item["type"] for item in whole["output"]] == kinds
    done = [event for event in events if event["type"] == "response.output_item.done"]
    assert [event["item"] for event in done] == events[-1]["response"]["output"]
    assert [event["output_index"] for event in done] == list(range(len(kinds)))
    for index, item in enumerate(events[-1]["response"]["output"]):
        mine = [event for event in events if event.get("output_index") == index]
        made = "".join(event.get("delta", "") for event in mine)
        assert made == item.get("arguments", "so")
        assert {event.get("item_id", item["id"]) for event in mine} == {item["id"]}
    results = [
        {"type": "function_call_output", "call_id": item["call_id"], "output": "rain"}
        for item in whole["output"]
        if item["type"] == "function_call"
    ]
    then = {"previous_response_id": whole["id"], "input": results or "more", "tools": [WEATHER]}
    _, kept = await site.send("POST", RESPONSES, body | then)
    told = {"input": [{"role": "user", "content": "hi"}, *whole["output"], *results]}
    if not results:
        told["input"].append({"role": "user", "content": "more"})
    _, by_hand = await site.send("POST", RESPONSES, body | told)
    assert engine.requests[kept["id"]][0].prompt_ids == engine.requests[by_hand["id"]][0].prompt_ids
    await services.meter.close()


def test_the_official_client_has_a_function_called(client: openai.OpenAI) -> None:
    pytest.importorskip("llguidance")
    options: dict[str, Any] = {"model": "fireside", "input": STORY, "tools": [WEATHER]}
    options |= {"tool_choice": {"type": "function", "name": "weather"}}
    (call,) = client.responses.create(**options).output
    assert call.type == "function_call"
    assert json.loads(call.arguments)["city"] in ("Oslo", "Rome")
    with client.responses.stream(**options) as stream:
        final = stream.get_final_response()
    assert final.output[0].type == "function_call"
    result = {"type": "function_call_output", "call_id": final.output[0].call_id, "output": "rain"}
    then: dict[str, Any] = {"previous_response_id": final.id, "input": [result]}
    answer = client.responses.create(model="fireside", max_output_tokens=30, **then)
    assert answer.previous_response_id == final.id
