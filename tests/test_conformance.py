"""Every combination of options: the types of the official client, and the order of chunks."""

import json
from collections.abc import AsyncIterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from streamtok.api.more.routes import ROUTES
from streamtok.api.routing import Api
from streamtok.config import EngineConfig
from streamtok.http.request import Request
from streamtok.model.load import load
from streamtok.testing import FakeClock, chunks, local_engine, make_services

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
CHATS = list(product((1, 2), (None, 0, 2), (False, True), (None, "a")))
TEXTS = list(product((1, 2), (None, 0, 2), (False, True), (None, "a"), (False, True)))


@pytest.fixture
async def api(tiny_model: Path) -> AsyncIterator[Api]:
    config = EngineConfig(max_streams=8, max_queue=40, step_tokens=8)
    engine = local_engine(load(tiny_model), config)
    services = make_services(tiny_model, engine, FakeClock())
    api = Api(ROUTES)
    api.open(services)
    yield api
    await engine.close()
    await services.meter.close()


async def answer(api: Api, path: str, body: dict[str, Any]) -> Any:
    """Return the JSON of an answer; of a stream the list of its events."""
    response = await api.handle(Request("POST", path, (), json.dumps(body).encode(), "1.1", "t"))
    assert response.status == 200
    if isinstance(response.body, bytes):
        return json.loads(response.body)
    events = [event async for event in chunks(response)]
    assert events.pop() == b"data: [DONE]\n\n"
    return [json.loads(event[len(b"data: ") :]) for event in events]


def undeclared(value: Any, path: str = "") -> list[str]:
    """Return the keys that no type of the client declares."""
    if isinstance(value, BaseModel):
        found = [f"{path}.{name}" for name in value.model_extra or {}]
        parts = [(f"{path}.{name}", getattr(value, name)) for name in type(value).model_fields]
    else:
        found, parts = [], [(path, item) for item in value] if isinstance(value, list) else []
    return found + [key for name, part in parts for key in undeclared(part, name)]


def conform(kind: type[BaseModel], value: dict[str, Any]) -> None:
    """Check `value` against the client's type, strictly.

    Streamed completions say null where no reason is known yet, and echoed ones before the first
    token, as OpenAI's own do; its types leave that out.
    """
    value = json.loads(json.dumps(value))
    for choice in value["choices"] if kind is Completion else ():
        assert "finish_reason" in choice
        choice["finish_reason"] = choice["finish_reason"] or "stop"
        if logprobs := choice["logprobs"]:
            assert None not in logprobs["token_logprobs"][1:]
            logprobs["token_logprobs"][0] = logprobs["token_logprobs"][0] or 0.0
            logprobs["top_logprobs"][0] = logprobs["top_logprobs"][0] or {}
            assert len({len(values) for values in logprobs.values()}) == 1
    assert undeclared(kind.model_validate_json(json.dumps(value), strict=True)) == []


def check_order(events: list[dict[str, Any]], choices: int, with_usage: bool, chat: bool) -> None:
    """Check what OpenAI's document says of a stream as a whole."""
    assert len({(e["id"], e["created"], e["model"], e["system_fingerprint"]) for e in events}) == 1
    last = events[-1] if with_usage else None
    for event in events:
        assert (len(event["choices"]) == 1) == (event is not last)
        assert ("usage" in event) == with_usage
        assert (event.get("usage") is not None) == (event is last)
    parts = [event["choices"][0] for event in events if event is not last]
    for index in range(choices):
        mine = [part for part in parts if part["index"] == index]
        reasons = [part["finish_reason"] for part in mine]
        assert reasons[-1] in ("stop", "length")
        assert set(reasons[:-1]) <= {None}
        if chat:
            assert [part["index"] for part in parts[:choices]] == list(range(choices))
            assert [part["delta"].get("role") for part in mine].count("assistant") == 1
            assert mine[0]["delta"]["role"] == "assistant"
            assert mine[-1]["delta"] == {}
    assert {part["index"] for part in parts} == set(range(choices))


@pytest.mark.parametrize(("n", "logprobs", "with_usage", "stop"), CHATS)
async def test_chats(
    api: Api, n: int, logprobs: int | None, with_usage: bool, stop: str | None
) -> None:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "é"}], "n": n, "stop": stop}
    body |= {"max_tokens": 6, "seed": 2, "logprobs": logprobs is not None}
    body |= {"top_logprobs": logprobs} if logprobs is not None else {}
    whole = await answer(api, CHAT, body)
    conform(ChatCompletion, whole)
    body |= {"stream": True, "stream_options": {"include_usage": with_usage}}
    events = await answer(api, CHAT, body)
    for event in events:
        conform(ChatCompletionChunk, event)
    check_order(events, n, with_usage, chat=True)
    if with_usage:
        assert events[-1]["usage"] == whole["usage"]
    for choice in whole["choices"]:
        parts = [c for e in events for c in e["choices"] if c["index"] == choice["index"]]
        text = "".join(part["delta"].get("content", "") for part in parts)
        assert text == choice["message"]["content"]
        assert parts[-1]["finish_reason"] == choice["finish_reason"]
        if logprobs is not None:
            scores = [s for part in parts if part["logprobs"] for s in part["logprobs"]["content"]]
            assert scores == choice["logprobs"]["content"]
            assert all(len(score["top_logprobs"]) == logprobs for score in scores)
            assert all(bytes(s["bytes"]).decode("utf-8", "replace") == s["token"] for s in scores)


@pytest.mark.parametrize(("n", "logprobs", "with_usage", "stop", "echo"), TEXTS)
async def test_completions(
    api: Api, n: int, logprobs: int | None, with_usage: bool, stop: str | None, echo: bool
) -> None:
    body = {"prompt": ["aé", "b"], "n": n, "logprobs": logprobs, "stop": stop, "echo": echo}
    body |= {"max_tokens": 6, "seed": 2}
    whole = await answer(api, COMPLETIONS, body)
    conform(Completion, whole)
    body |= {"stream": True, "stream_options": {"include_usage": with_usage}}
    events = await answer(api, COMPLETIONS, body)
    for event in events:
        conform(Completion, event)
    check_order(events, 2 * n, with_usage, chat=False)
    if with_usage:
        assert events[-1]["usage"] == whole["usage"]
    for choice in whole["choices"]:
        parts = [c for e in events for c in e["choices"] if c["index"] == choice["index"]]
        assert "".join(part["text"] for part in parts) == choice["text"]
        assert parts[-1]["finish_reason"] == choice["finish_reason"]
        for key, values in (choice["logprobs"] or {}).items():
            streamed = [v for part in parts if part["logprobs"] for v in part["logprobs"][key]]
            assert streamed == values


def test_what_does_not_conform_is_seen() -> None:
    event = {
        "id": "x",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}],
    }
    conform(ChatCompletionChunk, event)
    for wrong in (
        event | {"created": "1"},
        event | {"object": "chat.completion"},
        event | {"other": 1},
        event | {"choices": [{"index": 0, "delta": {"content": 1}, "finish_reason": None}]},
        event | {"choices": [{"index": 0, "delta": {"text": "a"}, "finish_reason": None}]},
    ):
        with pytest.raises((ValueError, AssertionError)):
            conform(ChatCompletionChunk, wrong)
