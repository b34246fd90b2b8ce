"""Functions that a model may call: streamed and whole, by hand and by OpenAI's client."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from jsonschema import Draft202012Validator
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel, Field
from test_conformance import answer, conform
from test_structured import CHAT, HI, schema_format

from streamtok.api.more.routes import ROUTES
from streamtok.api.routing import Api
from streamtok.config import EngineConfig
from streamtok.engine.extras.grammars import Grammars, Vocabulary
from streamtok.http.request import Request
from streamtok.messages import Finished, Started, TokenEvent
from streamtok.model.load import load
from streamtok.testing import (
    FakeClock,
    RunningServer,
    ScriptedEngine,
    local_engine,
    make_services,
    write_model,
)
from streamtok.text.tokenizer import Tokenizer
from streamtok.text.tool_calls.reader import CLOSE, OPEN

CITY = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Oslo", "Rome"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": CITY, "strict": True}}
NOW = {"type": "function", "function": {"name": "now", "description": "What time it is."}}
ASK: dict[str, Any] = {"messages": HI, "tools": [WEATHER, NOW], "seed": 3}
ONE = f'{OPEN}{{"name": "now", "arguments": {{}}}}{CLOSE}'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with room for a description of tools in bytes."""
    return write_model(
        tmp_path_factory.mktemp("models") / "tiny", seed=3, max_position_embeddings=2048
    )


def grammars_of(folder: Path) -> Grammars:
    tokenizer = Tokenizer(folder)
    return Grammars(Vocabulary(tokenizer.backend.to_str(), 261, tokenizer.stop_ids))


@pytest.fixture
async def api(folder: Path) -> AsyncIterator[Api]:
    grammars = grammars_of(folder)
    config = EngineConfig(max_streams=8, max_queue=40, step_tokens=64)
    engine = local_engine(load(folder), config, grammars)
    services = make_services(folder, engine, FakeClock(), grammars=grammars)
    api = Api(ROUTES)
    api.open(services)
    yield api
    await engine.close()
    await services.meter.close()


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def check_call(call: dict[str, Any]) -> None:
    arguments = json.loads(call["function"]["arguments"])
    if call["function"]["name"] == "weather":
        Draft202012Validator(CITY).validate(arguments)
    else:
        assert (call["function"]["name"], arguments) == ("now", {})


def put_together(events: list[dict[str, Any]], index: int) -> tuple[dict[str, Any], str]:
    """Return the message that the chunks of a choice make, and its finish reason."""
    parts = [c for e in events for c in e["choices"] if c["index"] == index]
    message: dict[str, Any] = {"content": None, "tool_calls": []}
    assert parts[0]["delta"] == {"role": "assistant", "content": None}
    assert parts[-1]["delta"] == {}
    for part in parts[1:-1]:
        assert part["finish_reason"] is None
        if (content := part["delta"].get("content")) is not None:
            message["content"] = (message["content"] or "") + content
        for call in part["delta"].get("tool_calls", ()):
            if call["index"] == len(message["tool_calls"]):  # the first of a call says what it is
                assert call["type"] == "function"
                message["tool_calls"].append(
                    {"id": call["id"], "name": call["function"]["name"], "arguments": ""}
                )
            else:
                assert call.keys() == {"index", "function"}
                assert call["function"].keys() == {"arguments"}
            assert call["index"] == len(message["tool_calls"]) - 1
            message["tool_calls"][-1]["arguments"] += call["function"]["arguments"]
    return message, parts[-1]["finish_reason"]


@pytest.mark.parametrize(
    "choice",
    [
        {"tool_choice": "required", "parallel_tool_calls": False},
        {"tool_choice": named("weather")},
        {"tool_choice": named("now"), "logprobs": True},
        {
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [named("weather")]},
            },
            "parallel_tool_calls": False,
        },
    ],
    ids=str,
)
@pytest.mark.parametrize("temperature", [0, 1.5])
async def test_a_required_call_is_valid_streamed_and_whole(
    api: Api, choice: dict[str, Any], temperature: float
) -> None:
    body = ASK | choice | {"n": 2, "temperature": temperature}
    whole = await answer(api, CHAT, body)
    conform(ChatCompletion, whole)
    with_usage = {"stream_options": {"include_usage": True}}
    events = await answer(api, CHAT, body | {"stream": True} | with_usage)
    for event in events:
        conform(ChatCompletionChunk, event)
    usage = events.pop()["usage"]
    assert usage | {"prompt_tokens_details": None} == whole["usage"] | {
        "prompt_tokens_details": None  # how much was computed before
    }
    for made in whole["choices"]:
        assert (made["finish_reason"], made["message"]["content"]) == ("tool_calls", None)
        (call,) = made["message"]["tool_calls"]
        check_call(call)
        message, reason = put_together(events, made["index"])
        assert (reason, message["content"]) == ("tool_calls", None)
        (streamed,) = message["tool_calls"]
        assert streamed["id"].startswith("call_")
        assert streamed["id"] != call["id"]
        assert {k: streamed[k] for k in ("name", "arguments")} == call["function"]
        if choice.get("logprobs"):
            parts = [c for e in events for c in e["choices"] if c["index"] == made["index"]]
            scores = [s for part in parts if part["logprobs"] for s in part["logprobs"]["content"]]
            assert scores == made["logprobs"]["content"]
            assert "".join(score["token"] for score in scores).startswith(OPEN)


async def test_arguments_come_a_token_a_chunk(api: Api) -> None:
    body = ASK | {"tool_choice": named("weather"), "stream": True}
    events = await answer(api, CHAT, body)
    message, _ = put_together(events, 0)
    fragments = [
        call["function"]["arguments"]
        for event in events[1:]
        for call in event["choices"][0]["delta"].get("tool_calls", ())
    ]
    assert fragments[0] == ""  # with the name
    assert fragments[1:] == list(message["tool_calls"][0]["arguments"])  # a token is a byte here
    assert len(events) == 1 + len(fragments) + 1


async def test_several_calls_are_counted(api: Api) -> None:
    body = ASK | {"tool_choice": "required", "n": 4, "max_tokens": 400}
    whole = await answer(api, CHAT, body)
    events = await answer(api, CHAT, body | {"stream": True})
    counts = []
    for made in whole["choices"]:
        calls = made["message"]["tool_calls"]
        for call in calls if made["finish_reason"] == "tool_calls" else calls[:-1]:
            check_call(call)
        assert made["finish_reason"] in ("tool_calls", "length")
        message, _ = put_together(events, made["index"])
        assert [call["name"] for call in message["tool_calls"]] == [
            call["function"]["name"] for call in calls
        ]
        counts.append(len(calls))
    assert max(counts) > 1


async def test_a_call_that_is_cut_says_so(api: Api) -> None:
    body = ASK | {"tool_choice": named("weather")}
    for most in (5, 60):
        (made,) = (await answer(api, CHAT, body | {"max_tokens": most}))["choices"]
        assert made["finish_reason"] == "length"
        calls = made["message"].get("tool_calls", [])
        assert len(calls) == (most > 50)  # not before its name is known
    assert '{"city": "Oslo", "days": 1}'.startswith(calls[0]["function"]["arguments"][:9])
    assert made["message"]["content"] is None


async def test_answers_are_the_same_among_others(api: Api) -> None:
    bodies = [
        ASK | {"tool_choice": "required", "parallel_tool_calls": False},
        ASK | {"tool_choice": named("now"), "n": 2},
        ASK | {"max_tokens": 40},
        {"messages": HI, "max_tokens": 40, "seed": 1},
    ]

    def without_ids(made: dict[str, Any]) -> list[Any]:
        for choice in made["choices"]:
            for call in choice["message"].get("tool_calls", ()):
                assert call.pop("id")
        return list(made["choices"])

    alone = [without_ids(await answer(api, CHAT, body)) for body in bodies]
    together = await asyncio.gather(*(answer(api, CHAT, body) for body in bodies))
    assert [without_ids(made) for made in together] == alone


async def test_stop_strings_do_not_cut_calls(api: Api) -> None:
    body = ASK | {"tool_choice": named("weather"), "stop": ["city", '"', "<"]}
    (made,) = (await answer(api, CHAT, body))["choices"]
    check_call(made["message"]["tool_calls"][0])


async def test_none_of_the_tools_is_as_without_tools(api: Api) -> None:
    plain = await answer(api, CHAT, {"messages": HI, "seed": 3, "max_tokens": 5})
    for asked in (ASK | {"tool_choice": "none"}, {"messages": HI, "seed": 3, "tools": []}):
        made = await answer(api, CHAT, asked | {"max_tokens": 5})
        assert (made["choices"], made["usage"]["prompt_tokens"]) == (
            plain["choices"],
            plain["usage"]["prompt_tokens"],
        )


# What a model says that need not call


async def said(folder: Path, text: str, body: dict[str, Any], cut: bool = False) -> Any:
    """Return the chunks, and the whole answer, of a model that says `text`."""
    got = []
    for stream in (True, False):
        engine = ScriptedEngine([], held=True, context=2048)
        services = make_services(folder, engine, FakeClock(), grammars=grammars_of(folder))
        api = Api(ROUTES)
        api.open(services)
        asking = asyncio.create_task(answer(api, CHAT, ASK | body | {"stream": stream}))
        await engine.submitted()
        ids = services.tokenizer.encode(text, special=False)
        engine.emit("chatcmpl-1", Started(0))
        for token in ids:
            engine.emit("chatcmpl-1", TokenEvent(0, token))
        end = Finished(0, "length", len(ids))
        if not cut:
            end = Finished(0, "stop", len(ids) + 1, TokenEvent(0, 260))
        engine.emit("chatcmpl-1", end)
        got.append(await asking)
        await services.meter.close()
    return got


@pytest.mark.parametrize(
    ("text", "content", "names", "reason"),
    [
        ("hi there", "hi there", [], "stop"),
        ("", "", [], "stop"),
        ("a < b <tool> c", "a < b <tool> c", [], "stop"),
        (f"Let me see. {ONE}", "Let me see. ", ["now"], "tool_calls"),
        (f"{ONE}\n{ONE}", None, ["now", "now"], "tool_calls"),
    ],
)
async def test_content_and_calls_are_told_apart(
    folder: Path, text: str, content: str | None, names: list[str], reason: str
) -> None:
    events, whole = await said(folder, text, {})
    (made,) = whole["choices"]
    assert (made["message"]["content"], made["finish_reason"]) == (content, reason)
    calls = made["message"].get("tool_calls", [])
    assert [call["function"]["name"] for call in calls] == names
    assert ("tool_calls" in made["message"]) == bool(names)
    message, streamed = put_together(events, 0)
    assert ((message["content"] or ""), streamed) == (content or "", reason)
    assert [call["name"] for call in message["tool_calls"]] == names
    assert whole["usage"]["completion_tokens"] == len(text) + 1
    conform(ChatCompletion, whole)


@pytest.mark.parametrize("length", range(1, len(OPEN)))
async def test_half_a_tag_is_never_content(folder: Path, length: int) -> None:
    events, whole = await said(folder, f"so {OPEN[:length]}", {}, cut=True)
    assert whole["choices"][0]["message"]["content"] == "so "
    message, reason = put_together(events, 0)
    assert (message["content"], reason) == ("so ", "length")
    assert whole["usage"]["completion_tokens"] == 3 + length


async def test_a_stop_string_ends_the_content(folder: Path) -> None:
    events, whole = await said(folder, f"abc STOP {ONE}", {"stop": "STOP"})
    assert whole["choices"][0]["message"] == {
        "role": "assistant",
        "content": "abc ",
        "refusal": None,
    }
    assert put_together(events, 0)[1] == whole["choices"][0]["finish_reason"] == "stop"
    events, whole = await said(folder, f"abc ST{ONE}", {"stop": "STOP"})
    assert whole["choices"][0]["message"]["content"] == "abc ST"
    assert put_together(events, 0)[0]["content"] == "abc ST"


# What is refused


async def refusal(api: Api, body: dict[str, Any], accept: str = "") -> dict[str, Any]:
    headers = (("accept", accept),) if accept else ()
    data = json.dumps(ASK | body).encode()
    response = await api.handle(Request("POST", CHAT, headers, data, "1.1", "t"))
    assert response.status == 400
    assert isinstance(response.body, bytes)
    error: dict[str, Any] = json.loads(response.body)["error"]
    return error


def tool(**function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f"} | function}


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"tools": [{"type": "custom", "custom": {}}]}, "tools[0].type", "must be 'function'"),
        ({"tools": [tool(name="no spaces")]}, "tools[0].function.name", "1 to 64 letters"),
        ({"tools": [tool(), tool()]}, "tools[1].function.name", "another"),
        ({"tools": [tool()] * 129}, "tools", "at most 128 items (got 129)"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice", "no tools"),
        ({"tool_choice": named("other")}, "tool_choice.function.name", "'other' is not among"),
        ({"tool_choice": {"type": "custom"}}, "tool_choice.type", "must be 'function' or"),
        ({"tool_choice": "any"}, "tool_choice", "must be 'auto', 'none', 'required' or an object"),
        (
            {"tools": [NOW, tool(parameters={"properties": {"a": {"not": {}}}}, strict=True)]},
            "tools",
            'tools[1].function.parameters.properties.a: Unimplemented keys: ["not"]',
        ),
        (
            {"tools": [tool(parameters={"type": "array"})]},
            "tools[0].function.parameters.type",
            "arguments are an object",
        ),
        ({"grammar": {"syntax": "regex", "definition": "x"}}, "grammar", "tools say already"),
        ({"ignore_eos": True}, "ignore_eos", "tools says"),
        ({"functions": [{"name": "f"}]}, "functions", "use tools"),
        ({"function_call": {"name": "f"}}, "function_call", "use tool_choice"),
        (
            {"response_format": schema_format({"enum": []})},
            "tools",
            "Unsatisfiable",
        ),
    ],
    ids=str,
)
async def test_what_cannot_be_is_refused_by_name(
    api: Api, body: dict[str, Any], param: str, words: str
) -> None:
    error = await refusal(api, body)
    assert error["param"] == param
    assert words in error["message"]


async def test_bare_text_has_no_room_for_calls(api: Api) -> None:
    assert (await refusal(api, {"stream": True}, "text/plain"))["param"] == "tools"


CALLED = {"id": "c", "type": "function", "function": {"name": "now", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("message", "param", "words"),
    [
        ({"role": "tool", "content": "x"}, "tool_call_id", "which call"),
        ({"role": "tool", "tool_call_id": "c"}, "content", "a tool message needs content"),
        ({"role": "user", "content": "x", "tool_call_id": "c"}, "tool_call_id", "only a tool"),
        ({"role": "user", "content": "x", "tool_calls": [CALLED]}, "tool_calls", "only the ass"),
        ({"role": "function", "content": "x", "name": "f"}, "role", "'tool' or 'user'"),
        ({"role": "assistant", "content": "x", "function_call": {}}, "function_call", "tool_calls"),
        ({"role": "assistant", "tool_calls": []}, "content", "needs content"),
        (
            {"role": "assistant", "tool_calls": [CALLED | {"type": "custom"}]},
            "tool_calls[0].type",
            "must be 'function'",
        ),
    ],
    ids=str,
)
async def test_what_a_message_cannot_hold_is_named(
    api: Api, message: dict[str, Any], param: str, words: str
) -> None:
    error = await refusal(api, {"messages": [*HI, message]})
    assert error["param"] == f"messages[1].{param}"
    assert words in error["message"]


# The history

HISTORY = [
    *HI,
    {"role": "assistant", "content": None, "tool_calls": [CALLED, CALLED | {"id": "d"}]},
    {"role": "tool", "tool_call_id": "c", "content": "noon"},
    {"role": "tool", "tool_call_id": "d", "content": [{"type": "text", "text": "one"}]},
]
KNOWS = (
    "{% if tools %}{{ tools | tojson }}\n{% endif %}{% for m in messages %}{{ m.role }}:"
    "{% for c in m.tool_calls or [] %}<tool_call>"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
    "</tool_call>{% endfor %}{{ m.content }};{% endfor %}"
)


async def prompt(folder: Path, body: dict[str, Any]) -> str:
    services = make_services(folder, ScriptedEngine([65]), FakeClock())
    api = Api(ROUTES)
    api.open(services)
    made = await answer(api, "/apply-template", body)
    await services.meter.close()
    return str(made["prompt"])


@pytest.mark.parametrize(
    "arguments", ["NaN", "1e999", '"\\ud800"', "[" * 9999 + "]" * 9999, "{"], ids=lambda a: a[:9]
)
async def test_arguments_that_are_no_json_stay_text(folder: Path, arguments: str) -> None:
    """A model wrote them, and whoever sends the history back must not be refused for it."""
    call = CALLED | {"function": {"name": "now", "arguments": arguments}}
    messages = [*HI, {"role": "assistant", "tool_calls": [call]}, HISTORY[2]]
    assert f'"arguments": {arguments}}}' in await prompt(folder, {"messages": messages})


async def test_a_name_does_not_end_in_a_line_break(api: Api) -> None:
    tool = {"type": "function", "function": {"name": "now\n"}}
    assert (await refusal(api, {"tools": [tool]}))["param"] == "tools[0].function.name"


async def test_a_template_that_knows_tools_gets_them_as_they_are(
    folder: Path, tmp_path: Path
) -> None:
    write_model(tmp_path / "knows")
    settings = tmp_path / "knows" / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"chat_template": KNOWS}))
    call = '<tool_call>{"name": "now", "arguments": {}}</tool_call>'
    history = f"user:hi;assistant:{call}{call};tool:noon;tool:one;"
    assert await prompt(tmp_path / "knows", {"messages": HISTORY}) == history
    told = await prompt(tmp_path / "knows", {"messages": HISTORY, "tools": [NOW]})
    assert told == f"{json.dumps([NOW])}\n{history}"


async def test_a_template_that_does_not_gets_text(folder: Path) -> None:
    told = await prompt(folder, {"messages": HISTORY, "tools": [NOW]})
    assert json.dumps(NOW) in told
    call = f'{OPEN}\n{{"name": "now", "arguments": {{}}}}\n{CLOSE}'
    results = "".join(f"\n<tool_response>\n{x}\n</tool_response>" for x in ("noon", "one"))
    assert f"<|assistant|>{call}\n{call}<|end|><|user|>{results[1:]}<|end|><|assistant|>" in told


# The official client, with the shipped model


class Weather(BaseModel):
    """How the weather is."""

    city: Literal["Oslo", "Rome"]
    days: int = Field(ge=1, le=9)


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def asking(**options: Any) -> Any:
    tools = [openai.pydantic_function_tool(Weather, name="weather")]
    return {"model": "fireside", "messages": HI, "tools": tools, "seed": 1} | options


def test_the_client_parses_the_arguments_of_a_call(client: openai.OpenAI) -> None:
    options = asking(tool_choice="required", parallel_tool_calls=False)
    (choice,) = client.chat.completions.parse(**options).choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert isinstance(call.function.parsed_arguments, Weather)
    with client.chat.completions.stream(**options) as stream:
        events = list(stream)
    (final,) = stream.get_final_completion().choices
    assert final.message.tool_calls is not None
    assert final.message.content is None
    assert final.message.tool_calls[0].function.parsed_arguments == call.function.parsed_arguments
    kinds = [event.type for event in events]
    assert kinds.count("tool_calls.function.arguments.delta") > 5
    assert kinds.count("tool_calls.function.arguments.done") == 1
    assert "content.delta" not in kinds


def test_the_client_goes_on_with_what_the_tool_returned(client: openai.OpenAI) -> None:
    first = client.chat.completions.create(**asking(tool_choice=named("weather")))
    message = first.choices[0].message
    assert message.tool_calls is not None
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"}
    history = [*HI, message.model_dump(exclude_none=True), result]
    second = client.chat.completions.create(**asking(messages=history, max_tokens=20))
    assert second.choices[0].message.content
    assert second.choices[0].finish_reason in ("stop", "length")


def test_ids_of_calls_repeat_where_ids_do(streamtok_server: Any) -> None:
    body = ASK | {"tool_choice": named("now"), "n": 2}
    whole = json.loads(streamtok_server.raw(body).partition(b"\r\n\r\n")[2])
    ids = [choice["message"]["tool_calls"][0]["id"] for choice in whole["choices"]]
    assert ids == [f"call_{number:024d}" for number in (1, 2)]
