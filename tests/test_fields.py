"""Every field that OpenAI documents: heeded, accepted as a hint, or refused by its name."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from openai.types import completion_create_params as completion_params
from openai.types.chat import completion_create_params as chat_params

from streamtok.api.input.documented import HINTS, REFUSED
from streamtok.api.more.routes import ROUTES
from streamtok.api.openai.types import ChatRequest, CompletionRequest
from streamtok.api.routing import Api
from streamtok.api.validation import MAX_IGNORED, ignored_header
from streamtok.faults.inject import Faults
from streamtok.http.request import Request
from streamtok.testing import FakeClock, ScriptedEngine, chunks, make_services

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
ENDPOINTS = {
    CHAT: ({"messages": [{"role": "user", "content": "hi"}]}, ChatRequest, chat_params),
    COMPLETIONS: ({"prompt": "hi"}, CompletionRequest, completion_params),
}
STREAMED = {"stream": True}
# What shows that a field is heeded: a value that is accepted, and one that is refused
SUPPORTED: dict[str, tuple[Any, Any]] = {
    "best_of": (2, 0),
    "echo": (True, "yes"),
    "frequency_penalty": (0.5, 3),
    "logit_bias": ({"5": 1}, {"5": 101}),
    "logprobs": (0, -1),
    "max_completion_tokens": (3, 0),
    "max_tokens": (3, -1),
    "messages": ([{"role": "system", "content": "x"}], []),
    "model": ("tiny", "gpt-9"),
    "n": (2, 0),
    "parallel_tool_calls": (False, "no"),
    "presence_penalty": (0.5, 3),
    "prompt": ("x", [[]]),
    "response_format": ({"type": "text"}, {"type": "yaml"}),
    "seed": (1, "1"),
    "stop": (["x"], ["a"] * 5),
    "stream": (True, "yes"),
    "stream_options": ({"include_usage": True, "include_obfuscation": False}, {"other": 1}),
    "temperature": (0, 3),
    "tool_choice": ("none", "any"),
    "tools": ([], [{"type": "custom"}]),
    "top_logprobs": (2, 21),
    "top_p": (0, 2),
    "user": ("someone", 1),
}
# What is refused of fields of which only some values ask for something
ASKING: dict[str, Any] = {
    "audio": {"voice": "alloy", "format": "mp3"},
    "function_call": {"name": "f"},
    "functions": [{"name": "f"}],
    "modalities": ["text", "audio"],
    "moderation": {"model": "omni-moderation-latest"},
    "prediction": {"type": "content", "content": "x"},
    "reasoning_effort": "high",
    "service_tier": "priority",
    "store": True,
    "suffix": "the end",
    "verbosity": "low",
    "web_search_options": {},
}
DOCUMENTED = [
    (path, name)
    for path, (_, _, params) in ENDPOINTS.items()
    for name in sorted({"stream", *params.CompletionCreateParamsBase.__annotations__})
]


@pytest.fixture
async def api(tiny_model: Path) -> AsyncIterator[Api]:
    services = make_services(tiny_model, ScriptedEngine([65, 66]), FakeClock())
    api = Api(ROUTES)
    api.open(services)
    yield api
    await services.meter.close()


async def ask(api: Api, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    """Return status and JSON; of a stream its first event."""
    response = await api.handle(Request("POST", path, (), json.dumps(body).encode(), "1.1", "t"))
    if isinstance(response.body, bytes):
        return response.status, json.loads(response.body)
    events = [event async for event in chunks(response)]
    assert "x-ignored-fields" not in dict(response.headers)
    return response.status, json.loads(events[0][6:])


@pytest.mark.parametrize(("path", "name"), DOCUMENTED)
async def test_no_documented_field_is_silently_ignored(api: Api, path: str, name: str) -> None:
    """Those of the official client, so that a new one there is missed here."""
    body, kind, _ = ENDPOINTS[path]
    assert name in {*kind.__struct_fields__, *REFUSED, *HINTS}
    if name in kind.__struct_fields__:
        accepted, refused = SUPPORTED[name]
        extra = STREAMED if name == "stream_options" else {}
        extra |= {"logprobs": True} if name == "top_logprobs" else {}
        if (path, name) == (CHAT, "logprobs"):
            accepted, refused = True, 1
        assert (await ask(api, path, body | extra | {name: accepted}))[0] == 200
        status, answer = await ask(api, path, body | extra | {name: refused})
        assert status == (404 if name == "model" else 400)
    elif name in REFUSED:
        for harmless in REFUSED[name]:
            assert (await ask(api, path, body | {name: harmless}))[0] == 200
        if name not in ASKING:
            return
        status, answer = await ask(api, path, body | {name: ASKING[name]})
        assert (status, answer["error"]["code"]) == (400, "unsupported_parameter")
    else:
        assert (await ask(api, path, body | {name: {"a": "b"}}))[0] == 200
        return
    assert answer["error"]["param"].split("[")[0].split(".")[0] == name


@pytest.mark.parametrize(("path", "name"), DOCUMENTED)
async def test_null_is_the_same_as_nothing(api: Api, path: str, name: str) -> None:
    body, _, _ = ENDPOINTS[path]
    status, _ = await ask(api, path, body | {name: None})
    assert status == (400 if name == "messages" else 200)


@pytest.mark.parametrize(
    ("field", "other"), [("echo", True), ("best_of", 2), ("suffix", "x")], ids=str
)
async def test_what_belongs_to_completions_is_refused_in_a_chat(
    api: Api, field: str, other: Any
) -> None:
    status, answer = await ask(api, CHAT, ENDPOINTS[CHAT][0] | {field: other})
    assert (status, answer["error"]["param"]) == (400, field)


async def test_unknown_fields_are_refused_where_the_server_is_told_to(tiny_model: Path) -> None:
    services = make_services(tiny_model, ScriptedEngine([65]), FakeClock())
    api = Api(ROUTES)
    api.open(replace(services, refuse_unknown=True))
    for path, (body, _, _) in ENDPOINTS.items():
        assert (await ask(api, path, body | {"user": "x", "seed": 1}))[0] == 200
        status, answer = await ask(api, path, body | {"zeta": 1, "beta": None})
        error = {
            "message": "beta: there is no such field",
            "type": "invalid_request_error",
            "param": "beta",
            "code": "unknown_parameter",
        }
        assert (status, answer) == (400, {"error": error})
    status, answer = await ask(api, "/tokenize", {"content": "x", "zeta": 1})
    assert (status, answer["error"]["param"]) == (400, "zeta")
    await services.meter.close()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("é", "%C3%A9"),
        ("a\r\nx-other: 1", "a%0D%0Ax-other%3A%201"),
        (", ", "%2C%20"),
        ("x" * 70_000, "x" * (MAX_IGNORED - len("alpha, ")) + "..."),
    ],
    ids=["letter", "line", "comma", "long"],
)
def test_any_name_of_an_unknown_field_fits_into_a_header(name: str, told: str) -> None:
    """It is the client's text, and must not end the connection, nor begin another header."""
    assert ignored_header(("alpha", name)) == (("x-ignored-fields", f"alpha, {told}"),)


@pytest.mark.parametrize("token", ["1" * 5000, "٣", "-1", "", "65536000"])
async def test_a_bias_for_what_is_no_token_is_refused(api: Api, token: str) -> None:
    body = ENDPOINTS[CHAT][0] | {"logit_bias": {token: 1}}
    status, answer = await ask(api, CHAT, body)
    assert (status, answer["error"]["param"]) == (400, "logit_bias")


async def test_a_bias_out_of_range_is_named(api: Api) -> None:
    status, answer = await ask(api, CHAT, ENDPOINTS[CHAT][0] | {"logit_bias": {"1": 101}})
    assert (status, answer["error"]["param"]) == (400, "logit_bias")


async def test_no_depth_of_a_body_is_too_much(api: Api) -> None:
    """Between what the first reader can take and what the next one can there may be a gap."""
    for depth in range(200, 520, 3):
        schema = '{"type":"object","properties":{"a":' * depth + "{}" + "}}" * depth
        form = '{"type":"json_schema","json_schema":{"name":"x","schema":' + schema + "}}"
        body = f'{{"prompt":"x","response_format":{form}}}'.encode()
        response = await api.handle(Request("POST", COMPLETIONS, (), body, "1.1", "t"))
        assert response.status == 400


async def test_a_fault_is_a_known_field_where_faults_may_be_asked_for(tiny_model: Path) -> None:
    services = make_services(tiny_model, ScriptedEngine([65]), FakeClock())
    body = {"prompt": "x", "stream": True, "fault": "done-missing"}
    for faults, status in ((None, 400), (Faults(), 200)):
        api = Api(ROUTES)
        api.open(replace(services, refuse_unknown=True, faults=faults))
        response = await api.handle(
            Request("POST", COMPLETIONS, (), json.dumps(body).encode(), "1.1", "t")
        )
        assert response.status == status
        response.close()
    await services.meter.close()


# Messages


async def prompt_of(api: Api, *messages: dict[str, Any]) -> str:
    status, answer = await ask(api, "/apply-template", {"messages": messages})
    assert status == 200, answer
    return str(answer["prompt"])


async def test_all_roles_and_parts_of_text_come_into_the_prompt(api: Api) -> None:
    prompt = await prompt_of(
        api,
        {"role": "system", "content": "s"},
        {"role": "developer", "content": [{"type": "text", "text": "d"}]},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c", "refusal": None},
        {"role": "user", "content": "d", "name": "Ann"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"role": "user", "content": ""},
        {"role": "assistant", "content": None, "refusal": "never"},
    )
    assert prompt == (
        "<|endoftext|><|system|>s<|end|><|system|>d<|end|><|user|>ab<|end|><|assistant|>c<|end|>"
        "<|user|>d<|end|><|assistant|>no<|end|><|user|><|end|><|assistant|>never<|end|><|assistant|>"
    )


@pytest.mark.parametrize(
    ("message", "param", "words"),
    [
        ({"role": "user", "content": None}, "content", "a user message needs content"),
        ({"role": "assistant"}, "content", "an? assistant message needs content"),
        (
            {"role": "user", "content": [{"type": "refusal", "refusal": "no"}]},
            "content[0].type",
            "only the assistant refuses",
        ),
        ({"role": "user", "content": "x", "refusal": "no"}, "refusal", "only the assistant"),
        ({"role": "assistant", "content": "x", "audio": {"id": "a"}}, "audio", "not supported"),
        *(
            (
                {"role": "user", "content": [{"type": "text", "text": "x"}, part]},
                "content[1].type",
                f"must be 'text' or 'refusal' (got '{part['type']}')",
            )
            for part in (
                {"type": "image_url", "image_url": {"url": "data:"}},
                {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
                {"type": "file", "file": {"file_id": "f"}},
                {"type": "video_url"},
            )
        ),
        ({"role": "user", "content": [{"text": "x"}]}, "content[0]", "missing required field"),
        ({"role": "user", "content": ["x"]}, "content[0]", "must be an object (got 'x')"),
        ({"role": "user", "content": [{"type": "text"}]}, "content[0]", "field `text`"),
    ],
)
async def test_what_a_message_cannot_hold_is_named(
    api: Api, message: dict[str, Any], param: str, words: str
) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}, message]}
    status, answer = await ask(api, CHAT, body)
    assert status == 400
    assert answer["error"]["param"] == f"messages[1].{param}"
    assert words.replace("an? ", "a ") in answer["error"]["message"]
