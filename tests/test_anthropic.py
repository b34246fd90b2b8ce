"""Anthropic's Messages API: exact events, its errors, and its official client for Python."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from msgspec.structs import replace
from test_wire import CHUNKED, HEAD, Peer, chunk

from streamtok.api.access.keys import KeyFile
from streamtok.api.anthropic.history import conversation
from streamtok.api.anthropic.types import DOCUMENTED, CountRequest, MessageRequest
from streamtok.api.input.validation import convert
from streamtok.api.more.routes import ROUTES
from streamtok.api.routing import Api
from streamtok.api.services import Services
from streamtok.engine.extras.grammars import Grammars, Vocabulary
from streamtok.errors import EngineFailed
from streamtok.http.request import Request
from streamtok.messages import Failed, Finished, Started, TokenEvent
from streamtok.testing import FakeClock, RunningServer, ScriptedEngine, chunks, make_services
from streamtok.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from anthropic import Anthropic

MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"
HI = [{"role": "user", "content": "hi"}]
ASK: dict[str, Any] = {"messages": HI, "max_tokens": 3}
A = ord("a") - 33  # the byte alphabet begins with "!"
STORY: Any = [{"role": "user", "content": "Tell me a story about a fox and a lantern."}]
GREEDY = {"temperature": 0}  # which the official client has no parameter for any more
FIRE: dict[str, Any] = {"model": "fireside", "messages": STORY}
OFFICIAL = FIRE | {"extra_body": GREEDY}
HEAD_OF_MESSAGE = HEAD.replace(b"X-Request-Id", b"Request-Id: req_1\r\nX-Request-Id")


def post(body: dict[str, Any], *headers: str) -> bytes:
    text = json.dumps(body)
    length = f"Content-Length: {len(text)}"
    lines = ("POST /v1/messages HTTP/1.1", "Host: localhost", *headers, length, "", text)
    return "\r\n".join(lines).encode()


def event(name: str, data: str) -> bytes:
    fields = f",{data}" if data else ""
    return chunk(f'event: {name}\ndata: {{"type":"{name}"{fields}}}\n\n'.encode())


def usage(spent: int, made: int) -> str:
    cached = '"cache_read_input_tokens":0,"cache_creation_input_tokens":0'
    return f'"usage":{{"input_tokens":{spent},"output_tokens":{made},{cached}}}'


def start(number: int, spent: int) -> bytes:
    body = f'"type":"message","id":"msg_{number}","model":"tiny",{usage(spent, 0)}'
    rest = '"role":"assistant","content":[],"stop_reason":null,"stop_sequence":null'
    return event("message_start", f'"message":{{{body},{rest}}}')


def text(letters: str) -> bytes:
    delta = f'"index":0,"delta":{{"type":"text_delta","text":"{letters}"}}'
    return event("content_block_delta", delta)


BLOCK = event("content_block_start", '"index":0,"content_block":{"type":"text","text":""}') + event(
    "ping", ""
)


@pytest.fixture
def peer(tiny_model: Path) -> Callable[..., Peer]:
    return lambda text, **options: Peer(tiny_model, text, **options)


# Streams, byte for byte


async def test_a_stream_is_told_in_events_of_anthropics(peer: Callable[..., Peer]) -> None:
    reason = '"delta":{"stop_reason":"max_tokens","stop_sequence":null}'
    expected = (
        HEAD_OF_MESSAGE
        + CHUNKED
        + start(1, 6)
        + BLOCK
        + text("a")
        + text("b")
        + text("c")
        + event("content_block_stop", '"index":0')
        + event("message_delta", f"{reason},{usage(6, 3)}")
        + event("message_stop", "")
        + b"0\r\n\r\n"
    )
    request = post(ASK | {"stream": True})
    assert await peer("abcdef").converse(request) == expected
    assert await peer("abcdef").converse(*(request[i : i + 1] for i in range(len(request)))) == (
        expected
    )


async def test_lines_and_bare_text_are_framings_too(peer: Callable[..., Peer]) -> None:
    request = post(ASK | {"stream": True}, "Accept: application/x-ndjson")
    _, _, body = (await peer("abc").converse(request)).partition(b"\r\n\r\n")
    lines = [json.loads(line) for line in body.split(b"\r\n")[1:-3:2]]
    assert lines[0]["type"] == "message_start"
    assert lines[-1] == {"type": "message_stop"}
    request = post(ASK | {"stream": True}, "Accept: text/plain")
    assert (await peer("abc").converse(request)).endswith(
        chunk(b"a") + chunk(b"b") + chunk(b"c") + b"0\r\n\r\n"
    )


async def test_a_stream_that_fails_ends_with_an_error_event(peer: Callable[..., Peer]) -> None:
    client = peer("", held=True)
    client.stream.feed(post(ASK | {"stream": True}))
    await client.engine.submitted()
    for made in (Started(0), TokenEvent(0, A), Failed(0, EngineFailed("it broke"), 1)):
        client.engine.emit("msg_1", made)
    error = event("error", '"error":{"type":"api_error","message":"it broke"}')
    assert (await client.converse()).endswith(text("a") + error + b"0\r\n\r\n")


# What is asked for


@pytest.fixture
async def engine() -> ScriptedEngine:
    return ScriptedEngine([A, A + 1, A + 2, A + 3], context=64)


@pytest.fixture
async def api(tiny_model: Path, engine: ScriptedEngine) -> AsyncIterator[Api]:
    services = make_services(tiny_model, engine, FakeClock())
    api = Api(ROUTES, new_request_id=lambda: "req_1")
    api.open(services)
    yield api
    await services.meter.close()


async def ask(api: Api, body: Any, path: str = MESSAGES, **headers: str) -> tuple[int, Any]:
    fields = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    data = json.dumps(body).encode()
    response = await api.handle(Request("POST", path, fields, data, "1.1", "test"))
    assert isinstance(response.body, bytes)
    assert ("request-id", "req_1") in response.headers
    return response.status, json.loads(response.body)


async def test_a_whole_message(api: Api) -> None:
    assert await ask(api, ASK) == (
        200,
        {
            "type": "message",
            "id": "msg_1",
            "model": "tiny",
            "usage": {
                "input_tokens": 6,
                "output_tokens": 3,
                "cache_read_input_tokens": 0,
                "cache_creation_input_tokens": 0,
            },
            "role": "assistant",
            "content": [{"type": "text", "text": "abc"}],
            "stop_reason": "max_tokens",
            "stop_sequence": None,
        },
    )


async def prompt_of(api: Api, engine: ScriptedEngine, body: dict[str, Any]) -> str:
    """Return the prompt that a request becomes."""
    status, answer = await ask(api, ASK | body)
    assert status == 200, answer
    (sequence,) = engine.requests[answer["id"]]
    assert api.services is not None
    return api.services.tokenizer.decode(sequence.prompt_ids, special=True)


BLOCKS = [
    {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}},
    {"type": "text", "text": "y"},
]


@pytest.mark.parametrize(
    ("body", "prompt"),
    [
        ({}, "<|user|>hi<|end|><|assistant|>"),
        ({"system": "be"}, "<|system|>be<|end|><|user|>hi<|end|><|assistant|>"),
        ({"system": BLOCKS}, "<|system|>x\ny<|end|><|user|>hi<|end|><|assistant|>"),
        ({"system": ""}, "<|user|>hi<|end|><|assistant|>"),
        (
            {"messages": [*HI, {"role": "user", "content": BLOCKS}]},
            "<|user|>hi\nx\ny<|end|><|assistant|>",
        ),
        (
            {"messages": [*HI, {"role": "assistant", "content": "yo"}, *HI]},
            "<|user|>hi<|end|><|assistant|>yo<|end|><|user|>hi<|end|><|assistant|>",
        ),
        (
            {"messages": [*HI, {"role": "assistant", "content": "It is"}]},
            "<|user|>hi<|end|><|assistant|>It is",
        ),
        ({"messages": [{"role": "assistant", "content": "Once"}]}, "<|assistant|>Once"),
    ],
)
async def test_a_request_becomes_a_chat_and_is_counted_as_one(
    api: Api, engine: ScriptedEngine, body: dict[str, Any], prompt: str
) -> None:
    assert await prompt_of(api, engine, body) == "<|endoftext|>" + prompt
    counted = {name: value for name, value in (ASK | body).items() if name != "max_tokens"}
    (sequence,) = engine.requests["msg_1"]
    assert await ask(api, counted, COUNT) == (200, {"input_tokens": len(sequence.prompt_ids)})


@pytest.mark.parametrize(
    ("body", "reason", "sequence", "said"),
    [
        ({}, "max_tokens", None, "abc"),
        ({"max_tokens": 9, "stop_sequences": ["x", "c"]}, "stop_sequence", "c", "ab"),
        ({"max_tokens": 9, "stop_sequences": ["a"]}, "stop_sequence", "a", ""),
        (
            {"max_tokens": 99, "messages": [{"role": "user", "content": "x" * 58}]},
            "model_context_window_exceeded",
            None,
            "ab",
        ),
    ],
)
async def test_why_a_message_ended(
    api: Api, body: dict[str, Any], reason: str, sequence: str | None, said: str
) -> None:
    status, answer = await ask(api, ASK | body)
    assert status == 200
    assert (answer["stop_reason"], answer["stop_sequence"]) == (reason, sequence)
    assert "".join(block["text"] for block in answer["content"]) == said


BAD: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": None}, "max_tokens must be an integer (got null)"),
    ({"max_tokens": 0}, "max_tokens must be at least 1 (got 0)"),
    ({"temperature": 1.5}, "temperature must be between 0 and 1 (got 1.5)"),
    ({"stop_sequences": [""]}, "stop_sequences[0] must not be empty"),
    ({"stop_sequences": ["x"] * 17}, "stop_sequences must have at most 16 items"),
    ({"messages": []}, "messages must have at least 1 item"),
    ({"messages": [{"role": "king", "content": "x"}]}, "must be 'assistant', 'system' or"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
        "'tool_use' or 'tool_result' (got 'image')",
    ),
    (
        {"messages": [*HI, {"role": "assistant", "content": "x "}]},
        "messages[1].content: what the answer is to begin with cannot end with white space",
    ),
    ({"messages": [{"role": "user", "content": "x" * 64}]}, "the prompt has 68 tokens"),
    ({"output_config": {"formats": {}}}, "output_config: unknown field `formats`"),
    ({"mcp_servers": [{"url": "x"}]}, "mcp_servers is not supported"),
]


@pytest.mark.parametrize(("body", "said"), BAD)
async def test_what_is_wrong_is_named_in_anthropics_form(
    api: Api, body: dict[str, Any], said: str
) -> None:
    status, answer = await ask(api, ASK | body)
    assert status == 400
    assert answer.keys() == {"type", "error"}
    assert answer["type"] == "error"
    assert answer["error"].keys() == {"type", "message"}
    assert answer["error"]["type"] == "invalid_request_error"
    assert said in answer["error"]["message"]


@pytest.mark.parametrize("name", DOCUMENTED.refused)
async def test_what_asks_for_nothing_is_accepted(api: Api, name: str) -> None:
    for harmless in DOCUMENTED.refused[name]:
        assert (await ask(api, ASK | {name: harmless}))[0] == 200
    assert (await ask(api, ASK | {name: {"some": "value"}}))[0] == 400


async def test_every_documented_field_is_known() -> None:
    pytest.importorskip("anthropic")
    from anthropic.types import message_count_tokens_params, message_create_params

    known = {*DOCUMENTED.refused, *DOCUMENTED.hints}
    fields = message_create_params.MessageCreateParamsBase.__annotations__
    assert set(fields) <= {*MessageRequest.__struct_fields__, *known}
    fields = message_count_tokens_params.MessageCountTokensParams.__annotations__
    assert set(fields) <= {*CountRequest.__struct_fields__, *known}


@pytest.mark.parametrize(
    ("target", "body", "status", "kind"),
    [
        (MESSAGES, ASK | {"model": "claude-x"}, 404, "not_found_error"),
        (COUNT, {"messages": HI, "model": "claude-x"}, 404, "not_found_error"),
        (COUNT, {"messages": []}, 400, "invalid_request_error"),
    ],
)
async def test_other_errors_have_its_form_too(
    api: Api, target: str, body: dict[str, Any], status: int, kind: str
) -> None:
    found, answer = await ask(api, body, target)
    assert (found, answer["error"]["type"]) == (status, kind)


async def test_a_method_that_is_not_allowed(api: Api) -> None:
    response = await api.handle(Request("GET", MESSAGES, (), b"", "1.1", "test"))
    assert response.status == 405
    assert isinstance(response.body, bytes)
    assert json.loads(response.body)["type"] == "error"


async def test_a_key_may_come_as_anthropics_clients_send_it(
    tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "keys"
    path.write_text(f"anna:{sha256(b'sk-anna').hexdigest()}\n")
    api = Api(ROUTES, KeyFile(path), new_request_id=lambda: "req_1")
    services = make_services(tiny_model, ScriptedEngine([A]), FakeClock())
    api.open(services)
    for headers, status in (
        ({"x_api_key": "sk-anna"}, 200),
        ({"authorization": "Bearer sk-anna"}, 200),
        ({"authorization": "Bearer sk-anna", "x_api_key": "sk-wrong"}, 200),
        ({"x_api_key": "sk-wrong"}, 401),
        ({"authorization": "Bearer sk-wrong", "x_api_key": "sk-anna"}, 401),
        ({}, 401),
    ):
        found, answer = await ask(api, ASK, **headers)
        assert found == status
        assert status == 200 or answer["error"]["type"] == "authentication_error"
    await services.meter.settled()
    record = await services.meter.ledger.get("msg_1")
    assert record is not None
    assert (record.key, record.endpoint) == ("anna", MESSAGES)
    await services.meter.close()


# The official client


@pytest.fixture
def client(server: RunningServer) -> Iterator["Anthropic"]:
    anthropic = pytest.importorskip("anthropic")
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        yield client


def test_the_official_client_streams_what_it_gets_as_a_whole(client: "Anthropic") -> None:
    options = OFFICIAL | {
        "system": "You tell stories. " * 8,
        "max_tokens": 60,
        "stop_sequences": ["."],
    }
    whole = client.messages.create(**options)
    with client.messages.stream(**options) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert whole.content[0].type == "text"
    assert text == whole.content[0].text
    assert [block.to_dict() for block in final.content] == [b.to_dict() for b in whole.content]
    assert final.stop_reason == whole.stop_reason == "stop_sequence"
    assert final.stop_sequence == whole.stop_sequence == "."
    assert final.usage.output_tokens == whole.usage.output_tokens
    read = final.usage.cache_read_input_tokens
    assert read
    asked: Any = {name: options[name] for name in ("model", "messages", "system")}
    counted = client.messages.count_tokens(**asked).input_tokens
    assert final.usage.input_tokens + read == counted
    assert whole._request_id


def test_every_event_is_what_the_clients_types_say(
    server: RunningServer, client: "Anthropic"
) -> None:
    from anthropic.types import Message, RawMessageStreamEvent
    from pydantic import TypeAdapter

    body = FIRE | GREEDY | {"max_tokens": 4}
    answer = httpx.post(f"{server.url}/v1/messages", json=body).content
    TypeAdapter(Message).validate_json(answer, strict=True)
    stream = httpx.post(f"{server.url}/v1/messages", json=body | {"stream": True}).text
    adapter: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
    kinds = []
    for block in stream.removesuffix("\n\n").split("\n\n"):
        name, _, data = block.partition("\ndata: ")
        kinds.append(json.loads(data)["type"])
        assert name == f"event: {kinds[-1]}"
        if kinds[-1] != "ping":
            adapter.validate_json(data, strict=True)
    assert kinds[:4] == ["message_start", "content_block_start", "ping", "content_block_delta"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_the_official_client_goes_on_from_what_is_begun(client: "Anthropic") -> None:
    begun = {"role": "assistant", "content": "The fox"}
    answer = client.messages.create(
        model="fireside", messages=[*STORY, begun], max_tokens=5, extra_body=GREEDY
    )
    assert answer.content[0].type == "text"
    assert not answer.content[0].text.startswith("The fox")


def test_its_errors_are_the_official_clients(client: "Anthropic") -> None:
    import anthropic

    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        client.messages.create(**OFFICIAL, max_tokens=-1)
    with pytest.raises(anthropic.NotFoundError) as caught:
        client.messages.create(**OFFICIAL | {"model": "claude-x"}, max_tokens=1)
    assert caught.value.request_id


def test_leaving_its_stream_ends_the_generation(server: RunningServer, client: "Anthropic") -> None:
    with client.messages.stream(**OFFICIAL, max_tokens=900) as stream:
        next(iter(stream.text_stream))
        answer = stream.current_message_snapshot.id
    for _ in range(10_000):  # each question is a round trip to the server
        found = httpx.get(f"{server.url}/v1/usage/{answer}")
        if found.status_code == 200:
            break
    assert found.json()["finish_reason"] == "cancelled"


# Tools

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {"name": "weather", "input_schema": CITY, "strict": True}
CALL: Any = {"type": "tool_use", "id": "toolu_7", "name": "weather", "input": {"city": "Oslo"}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_7", "content": "rain"}


def written(city: str) -> str:
    """Return a call as the model writes it."""
    arguments = json.dumps({"city": city})
    return f'<tool_call>{{"name": "weather", "arguments": {arguments}}}</tool_call>'


@pytest.mark.parametrize(
    ("content", "reason", "events"),
    [
        ("so" + written("Oslo"), "tool_use", 2),
        (written("Oslo") + written("Rome"), "tool_use", 2),
        ("so", "end_turn", 1),
    ],
)
async def test_calls_are_blocks_of_their_own(
    tiny_model: Path, content: str, reason: str, events: int
) -> None:
    api, _, services = api_that_says(tiny_model, content)
    body = ASK | {"tools": [WEATHER], "max_tokens": 300}
    _, whole = await ask(api, body)
    data = json.dumps(body | {"stream": True}).encode()
    response = await api.handle(Request("POST", MESSAGES, (), data, "1.1", "test"))
    assert not isinstance(response.body, bytes)
    told = [json.loads(chunk.partition(b"data: ")[2]) async for chunk in chunks(response)]
    blocks: list[dict[str, Any]] = []
    inputs: dict[int, str] = {}
    for one in told:
        if one["type"] == "content_block_start":
            assert one["index"] == len(blocks)
            blocks.append(one["content_block"])
        elif one["type"] == "content_block_delta":
            assert one["index"] == len(blocks) - 1
            if one["delta"]["type"] == "text_delta":
                blocks[-1]["text"] += one["delta"]["text"]
            else:
                inputs[one["index"]] = inputs.get(one["index"], "") + one["delta"]["partial_json"]
    stops = [one["index"] for one in told if one["type"] == "content_block_stop"]
    assert stops == list(range(events)) == list(range(len(blocks)))
    for index, text in inputs.items():
        assert blocks[index]["input"] == {}
        blocks[index]["input"] = json.loads(text)
    assert [block | {"id": 0} for block in blocks] == [
        block | {"id": 0} for block in whole["content"]
    ]
    assert told[-2]["delta"]["stop_reason"] == whole["stop_reason"] == reason
    await services.meter.close()


class EndingEngine(ScriptedEngine):
    """One whose texts end by themselves."""

    def emit(self, request_id: str, event: Any) -> None:
        if isinstance(event, Finished):
            event = replace(event, reason="stop")
        super().emit(request_id, event)


def api_that_says(folder: Path, content: str) -> tuple[Api, ScriptedEngine, Services]:
    """Return an API whose texts are all `content`, which may hold calls."""
    pytest.importorskip("llguidance")
    tokenizer = Tokenizer(folder)
    vocabulary = Vocabulary(tokenizer.backend.to_str(), 261, tokenizer.stop_ids)
    engine = EndingEngine(tokenizer.encode(content, special=False), context=4096)
    services = make_services(folder, engine, FakeClock(), grammars=Grammars(vocabulary))
    api = Api(ROUTES, new_request_id=lambda: "req_1")
    api.open(services)
    return api, engine, services


async def test_turns_with_calls_become_messages_with_calls() -> None:
    turns = [
        *HI,
        {"role": "assistant", "content": [{"type": "text", "text": "so"}, CALL]},
        {"role": "user", "content": [RESULT, {"type": "text", "text": "and?"}]},
    ]
    fields = convert({"messages": turns, "max_tokens": 1}, MessageRequest, DOCUMENTED)[0]
    chat = conversation(fields)
    messages = chat.messages
    assert chat.begun == ""
    assert [message.role for message in messages] == ["user", "assistant", "tool", "user"]
    assert messages[1].content == "so"
    assert messages[1].tool_calls[0].arguments == '{"city":"Oslo"}'
    assert (messages[2].content, messages[2].tool_call_id) == ("rain", "toolu_7")
    assert messages[3].content == "and?"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"tools": [{"name": "x"}]}, "tools[0]: missing required field `input_schema`"),
        ({"tools": [WEATHER | {"type": "bash_20250124"}]}, "tools[0].type must be 'custom'"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1]"),
        ({"tool_choice": {"type": "any"}}, "there are no tools to choose from"),
        ({"tool_choice": {"type": "x"}}, "must be 'auto', 'any', 'tool' or 'none'"),
        ({"messages": [{"role": "user", "content": [CALL]}]}, "not of the user"),
        ({"messages": [{"role": "assistant", "content": [RESULT]}]}, "not of the assistant"),
        ({"messages": [*HI, {"role": "assistant", "content": [CALL]}]}, "followed by its result"),
    ],
)
async def test_what_is_wrong_with_tools_is_named(api: Api, body: dict[str, Any], said: str) -> None:
    status, answer = await ask(api, ASK | body)
    assert status == 400
    assert said in answer["error"]["message"]


def test_the_official_client_has_a_tool_called(client: "Anthropic") -> None:
    pytest.importorskip("llguidance")
    options: Any = {"model": "fireside", "messages": STORY, "tools": [WEATHER], "max_tokens": 80}
    options["tool_choice"] = {"type": "tool", "name": "weather"}
    (call,) = client.messages.create(**options).content
    assert call.type == "tool_use"
    assert call.input["city"] in ("Oslo", "Rome")
    with client.messages.stream(**options | {"tool_choice": {"type": "any"}}) as stream:
        final = stream.get_final_message()
    assert final.content[-1].type == "tool_use"
    result = RESULT | {"tool_use_id": call.id}
    talk = [*STORY, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    next_one = client.messages.create(
        **options | {"messages": talk, "tool_choice": {"type": "none"}}
    )
    assert next_one.stop_reason in ("end_turn", "max_tokens")
    counted = client.messages.count_tokens(model="fireside", messages=talk, tools=[WEATHER])
    assert counted.input_tokens > next_one.usage.input_tokens
