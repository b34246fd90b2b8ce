"""Every answer that is not a stream of text: errors, models, health, metrics, usage."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from streamtok.api.more.exposition import expose
from streamtok.api.more.routes import ROUTES
from streamtok.api.routing import Api
from streamtok.http.request import Request
from streamtok.http.response import Response
from streamtok.messages import Finished, Prefilled, Started, TokenEvent
from streamtok.testing import FakeClock, ScriptedEngine, chunks, make_services

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def api(tiny_model: Path) -> AsyncIterator[Api]:
    api = Api(ROUTES, new_request_id=lambda: "req_1")
    services = make_services(tiny_model, ScriptedEngine([65, 66, 67], context=64), FakeClock())
    api.open(services)
    yield api
    await services.meter.close()


async def send(
    api: Api, method: str, target: str, body: Any = b"", **headers: str
) -> tuple[Response, Any]:
    """Send a request; return the answer and its JSON (of a stream: the list of its events)."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    response = await api.handle(Request(method, target, fields, data, "1.1", "test"))
    if isinstance(response.body, bytes):
        is_json = ("content-type", "application/json") in response.headers
        return response, json.loads(response.body) if is_json else response.body
    events = [event async for event in chunks(response)]
    return response, [json.loads(event[6:]) for event in events[:-1]]


NESTED = b"[" * 100_000
BAD_CHATS: list[tuple[Any, str | None, str]] = [
    (b"", None, "not valid JSON"),
    (b"{", None, "not valid JSON"),
    (b'{"messages": NaN}', None, "not valid JSON"),
    (b"[]", None, "must be a JSON object"),
    (NESTED, None, "nested too deeply"),
    (b'{"model": "\xff"}', None, "not valid UTF-8: byte 0xff at offset 11"),
    (b'{"messages": "\\ud800"}', None, "not valid JSON"),
    ({}, "messages", "missing required field"),
    ({"messages": "hi"}, "messages", "must be an array (got 'hi')"),
    ({"messages": []}, "messages", "at least 1 item"),
    ({"messages": [{"content": "x"}]}, "messages[0]", "missing required field `role`"),
    ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role", "'developer', 'system'"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "needs content"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "messages[0].content[0].type",
        "must be 'text' or 'refusal'",
    ),
    ({"messages": HI, "max_tokens": -1}, "max_tokens", "must be at least 1 (got -1)"),
    ({"messages": HI, "max_tokens": 1.5}, "max_tokens", "must be an integer (got 1.5)"),
    ({"messages": HI, "max_completion_tokens": 0}, "max_completion_tokens", "at least 1"),
    ({"messages": HI, "temperature": "hot"}, "temperature", "must be a number (got 'hot')"),
    ({"messages": HI, "temperature": 2.5}, "temperature", "must be between 0 and 2 (got 2.5)"),
    ({"messages": HI, "top_p": -1}, "top_p", "must be between 0 and 1 (got -1)"),
    ({"messages": HI, "n": 0}, "n", "must be between 1 and 128 (got 0)"),
    (
        {"messages": HI, "stop": ["a", "b", "c", "d", "e"]},
        "stop",
        "must have at most 4 items (got 5)",
    ),
    ({"messages": HI, "stop": ""}, "stop", "must not be empty"),
    ({"messages": HI, "stream": "yes"}, "stream", "must be a boolean (got 'yes')"),
    ({"messages": HI, "stream_options": {}}, "stream_options", "where stream is true"),
    (
        {"messages": HI, "logit_bias": {"1": 101}},
        "logit_bias",
        "must be between -100 and 100 (got 101)",
    ),
    ({"messages": HI, "logit_bias": {"x": 1}}, "logit_bias", "'x' is not a token id"),
    ({"messages": HI, "logit_bias": {"261": 1}}, "logit_bias", "expected 0 to 260"),
    ({"messages": HI, "seed": 2**63}, "seed", "and 9223372036854775807 (got 9223372036854775808)"),
    ({"messages": HI, "top_logprobs": 2}, "top_logprobs", "needs logprobs"),
    (
        {"messages": HI, "functions": [{"name": "f"}]},
        "functions",
        "not supported by this server; use",
    ),
    ({"messages": [{"role": "user", "content": "x" * 70}]}, "messages", "the prompt has 74 tokens"),
]


@pytest.mark.parametrize(("body", "param", "said"), BAD_CHATS)
async def test_bad_requests_are_refused_by_name(
    api: Api, body: Any, param: str | None, said: str
) -> None:
    response, answer = await send(api, "POST", CHAT, body)
    assert response.status == 400
    assert answer["error"].keys() == {"message", "type", "param", "code"}
    assert answer["error"]["type"] == "invalid_request_error"
    assert answer["error"]["param"] == param
    assert said in answer["error"]["message"]


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ([], "at least 1 item"),
        ([1, "x"], "expected a string, or a list"),
        ([261], "261 is not a token id; expected 0 to 260"),
        ([-1], "at least 0 (got"),
        ([[]], "must not be empty"),
        ([[1], [999]], "999 is not a token id"),
        ("x" * 64, "the model's context is 64 tokens"),
        ([1] * 64, "the prompt has 64 tokens"),
    ],
)
async def test_bad_prompts_are_refused(api: Api, prompt: Any, said: str) -> None:
    response, answer = await send(api, "POST", COMPLETIONS, {"prompt": prompt})
    assert response.status == 400
    assert answer["error"]["param"].startswith("prompt")
    assert said in answer["error"]["message"]


@pytest.mark.parametrize(
    ("method", "target", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "unknown_url"),
        ("GET", "/v1/models/", 404, "unknown_url"),
        ("GET", "/v1/models/gpt-4", 404, "model_not_found"),
        ("GET", "/v1/usage/none", 404, "usage_not_found"),
        ("GET", CHAT, 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
    ],
)
async def test_wrong_paths_and_methods(
    api: Api, method: str, target: str, status: int, code: str
) -> None:
    response, answer = await send(api, method, target)
    assert response.status == status
    assert answer["error"].keys() == {"message", "type", "param", "code"}
    assert answer["error"]["code"] == code
    assert (status == 405) == any(name == "allow" for name, _ in response.headers)


async def test_an_unknown_model_is_named(api: Api) -> None:
    response, answer = await send(api, "POST", CHAT, {"model": "gpt-9", "messages": HI})
    assert response.status == 404
    assert answer["error"]["param"] == "model"
    assert "'gpt-9'" in answer["error"]["message"]
    assert "'tiny'" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"content_type": "multipart/form-data; boundary=x"}, "'multipart/form-data'"),
        ({"content_encoding": "gzip"}, "'gzip'"),
    ],
)
async def test_bodies_that_are_not_plain_json_are_refused(
    api: Api, headers: dict[str, str], said: str
) -> None:
    response, answer = await send(api, "POST", CHAT, {"messages": HI}, **headers)
    assert response.status == 415
    assert said in answer["error"]["message"]


async def test_unknown_fields_are_ignored_and_named(api: Api) -> None:
    response, _ = await send(api, "POST", CHAT, {"messages": HI, "zeta": 1, "alpha": 2, "user": ""})
    assert response.status == 200
    assert ("x-ignored-fields", "alpha, zeta") in response.headers


async def test_options_names_the_methods(api: Api) -> None:
    response, _ = await send(api, "OPTIONS", "/health")
    headers = (("allow", "GET, HEAD, OPTIONS"), ("x-request-id", "req_1"))
    assert (response.status, response.headers) == (204, headers)
    response, _ = await send(api, "OPTIONS", "*")
    assert response.status == 204
    assert response.headers[0] == ("allow", "GET, HEAD, POST, DELETE, OPTIONS")


async def test_health_says_loading_ok_and_draining(api: Api) -> None:
    loading = Api(ROUTES)
    response, answer = await send(loading, "GET", "/health")
    assert (response.status, answer) == (503, {"status": "loading"})
    response, answer = await send(loading, "POST", CHAT, {"messages": HI})
    assert (response.status, answer["error"]["code"]) == (503, "loading")
    assert ("retry-after", "1") in response.headers
    response, answer = await send(api, "GET", "/health")
    assert (response.status, answer) == (200, {"status": "ok"})
    api.drain()
    response, answer = await send(api, "GET", "/health")
    assert (response.status, answer) == (503, {"status": "draining"})


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://a/health", 200),
        ("http://a:1/health?x=://y", 200),
        ("http://[x/health", 200),  # whose server it is does not matter here
        ("http://a", 200),
        ("http://a?x=/health", 200),
        ("/health?x=http://y/z", 200),
        ("/health://x", 404),
        ("//health", 404),
    ],
)
async def test_paths_of_targets(api: Api, target: str, status: int) -> None:
    assert (await send(api, "GET", target))[0].status == status


async def test_models(api: Api) -> None:
    model = {"id": "tiny", "created": 1700000000, "owned_by": "streamtok", "object": "model"}
    assert (await send(api, "GET", "/v1/models"))[1] == {"data": [model], "object": "list"}
    assert (await send(api, "GET", "/v1/models/tiny"))[1] == model


async def test_a_batch_of_prompts_and_choices_is_numbered_in_order(api: Api) -> None:
    body = {"prompt": ["a", [1, 2], "b"][::2], "n": 2, "max_tokens": 2}
    _, answer = await send(api, "POST", COMPLETIONS, body)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert answer["usage"] == {
        "prompt_tokens": 4,
        "completion_tokens": 8,
        "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


async def test_what_was_cached_counts_once_for_all_choices_of_a_prompt(tiny_model: Path) -> None:
    engine, api = ScriptedEngine([65], held=True, context=64), Api(ROUTES)
    services = make_services(tiny_model, engine, FakeClock())
    api.open(services)
    body = {"prompt": [[1, 2, 3], [1, 2]], "n": 2, "max_tokens": 1}
    sending = asyncio.create_task(send(api, "POST", COMPLETIONS, body))
    await engine.submitted()
    for index, cached in enumerate((2, 3, 1, 1)):
        for event in (Started(index), Prefilled(index, cached), Finished(index, "stop", 1)):
            engine.emit("cmpl-1", event)
    _, answer = await sending
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 3}
    assert b"streamtok_cached_tokens_total 3.0" in expose(services.meter.metrics)[1]
    await services.meter.close()


async def test_the_answer_ends_where_the_context_does(api: Api) -> None:
    _, answer = await send(api, "POST", COMPLETIONS, {"prompt": [1] * 62, "max_tokens": 50})
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 2


async def test_usage_of_one_request_and_sums(api: Api) -> None:
    for body in ({"max_tokens": 2}, {"max_tokens": 3, "stream": True}):
        await send(api, "POST", CHAT, {"messages": HI, **body})
    await send(api, "POST", COMPLETIONS, {"prompt": "x", "max_tokens": 1})
    _, record = await send(api, "GET", "/v1/usage/chatcmpl-2")
    assert record.pop("duration_s") == record.pop("first_token_s") == record.pop("queued_s") == 0
    assert record.pop("prefill_s") is None  # this engine does not tell
    assert record == {
        "object": "usage",
        "id": "chatcmpl-2",
        "created_s": 1700000000,
        "key": "",
        "endpoint": CHAT,
        "model": "tiny",
        "stream": True,
        "prompt_tokens": 6,
        "cached_tokens": 0,
        "generated_tokens": 3,
        "delivered_tokens": 3,
        "total_tokens": 9,
        "finish_reason": "length",
    }
    _, sums = await send(api, "GET", "/v1/usage?group_by=endpoint")
    assert [(row["group"], row["requests"], row["generated_tokens"]) for row in sums["data"]] == [
        (CHAT, 2, 5),
        (COMPLETIONS, 1, 1),
    ]
    for query, requests in (
        ("", 3),
        ("?since=2023-11-14T22:13:20Z", 3),
        ("?since=1700000001", 0),
        ("?until=1700000000", 0),
        ("?key=nobody", 0),
    ):
        _, sums = await send(api, "GET", "/v1/usage" + query)
        assert sum(row["requests"] for row in sums["data"]) == requests


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("group_by=colour", "group_by"),
        ("since=soon", "since"),
        ("until=nan", "until"),
        ("since=-inf", "since"),
        ("colour=red", "colour"),
    ],
)
async def test_bad_usage_queries_are_named(api: Api, query: str, param: str) -> None:
    response, answer = await send(api, "GET", f"/v1/usage?{query}")
    assert response.status == 400
    assert answer["error"]["param"] == param


async def test_metrics_count_what_happened(api: Api) -> None:
    await send(api, "POST", CHAT, {"messages": HI, "max_tokens": 3})
    await send(api, "GET", "/nothing")
    _, text = await send(api, "GET", "/metrics")
    lines = text.decode().splitlines()
    for line in (
        f'streamtok_requests_total{{endpoint="{CHAT}",key="",status="200"}} 1.0',
        'streamtok_requests_total{endpoint="none",key="",status="404"} 1.0',
        "streamtok_prompt_tokens_total 6.0",
        "streamtok_generated_tokens_total 3.0",
        "streamtok_cancelled_total 0.0",
        "streamtok_time_to_first_token_seconds_count 1.0",
        "streamtok_inter_token_seconds_count 2.0",
        "streamtok_running_streams 0.0",
        "streamtok_queued_requests 0.0",
    ):
        assert line in lines


async def test_a_bug_is_answered_with_500_and_logged(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("streamtok.api.more.info.sum_usage", lambda *_: 1 / 0)
    response, answer = await send(api, "GET", "/v1/usage")
    assert response.status == 500
    assert "division" not in answer["error"]["message"]
    assert "ZeroDivisionError" in caplog.text


async def test_a_prompt_that_comes_to_nothing_is_refused(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamtok.text.templates.chat.JinjaTemplate.render", lambda *_, **__: "")
    response, answer = await send(api, "POST", CHAT, {"messages": HI})
    assert response.status == 400
    assert (answer["error"]["param"], answer["error"]["message"]) == (
        "messages",
        "the prompt has no tokens",
    )


async def test_a_clock_that_jumps_back_disturbs_nothing(tiny_model: Path) -> None:
    """Durations come from the monotonic clock; the wall clock only dates the row."""
    clock, engine = FakeClock(), ScriptedEngine([65], held=True, context=64)
    services = make_services(tiny_model, engine, clock)
    api = Api(ROUTES)
    api.open(services)
    asked = asyncio.ensure_future(send(api, "POST", CHAT, {"messages": HI, "max_tokens": 1}))
    await engine.submitted()
    clock.jump(-3600)
    clock.advance(2)
    engine.step()
    engine.step()
    assert (await asked)[0].status == 200
    record = await services.meter.ledger.get("chatcmpl-1")
    assert record is not None
    assert record.duration_s == record.first_token_s == 2
    await services.meter.close()


async def test_the_books_tell_queue_and_prefill_apart(tiny_model: Path) -> None:
    clock, engine = FakeClock(), ScriptedEngine([65], held=True, context=64)
    services = make_services(tiny_model, engine, clock)
    api = Api(ROUTES)
    api.open(services)
    body = {"messages": HI, "max_tokens": 1}
    asked = asyncio.ensure_future(send(api, "POST", CHAT, body))
    await engine.submitted()
    for seconds, event in (
        (2, Started(0)),
        (3, Prefilled(0, 4)),
        (0.5, TokenEvent(0, 70)),
        (1, Finished(0, "length", 1)),
    ):
        clock.advance(seconds)
        engine.emit("chatcmpl-1", event)
        await turns()
    await asked
    record = await services.meter.ledger.get("chatcmpl-1")
    assert record is not None
    assert (record.queued_s, record.prefill_s, record.cached_tokens) == (2, 3, 4)
    assert (record.first_token_s, record.duration_s) == (5.5, 6.5)
    await services.meter.close()


async def turns() -> None:
    """Let the event loop do what can be done."""
    for _ in range(9):
        await asyncio.sleep(0)
