"""The endpoints that show what a prompt becomes: ids, text, a rendered template."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_api import send

from streamtok import __version__
from streamtok.api.more.routes import ROUTES
from streamtok.api.routing import Api
from streamtok.testing import FakeClock, ScriptedEngine, make_services

HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def api(tiny_model: Path) -> AsyncIterator[Api]:
    api = Api(ROUTES, new_request_id=lambda: "req_1")
    services = make_services(tiny_model, ScriptedEngine([], context=64), FakeClock())
    api.open(services)
    yield api
    await services.meter.close()


@given(text=st.text(st.characters(codec="utf-8"), max_size=20))
async def test_a_text_comes_back_from_its_ids(api: Api, text: str) -> None:
    _, answer = await send(api, "POST", "/tokenize", {"content": text})
    assert answer["count"] == len(answer["tokens"])
    _, back = await send(api, "POST", "/detokenize", {"tokens": answer["tokens"]})
    assert back == {"content": text}


async def test_special_tokens_are_added_where_asked_for_and_keep_their_names(api: Api) -> None:
    _, plain = await send(api, "POST", "/tokenize", {"content": "a"})
    _, answer = await send(api, "POST", "/tokenize", {"content": "a", "add_special": True})
    assert answer["tokens"][1:] == plain["tokens"]
    _, back = await send(api, "POST", "/detokenize", {"tokens": answer["tokens"]})
    assert back["content"].endswith("a")
    _, again = await send(api, "POST", "/tokenize", back)
    assert again == answer


async def test_special_tokens_are_text_where_they_are_not_to_be_parsed(api: Api) -> None:
    body = {"content": "a<|end|>", "add_special": True}
    _, parsed = await send(api, "POST", "/tokenize", body)
    _, plain = await send(api, "POST", "/tokenize", body | {"parse_special": False})
    assert parsed["count"] == 3
    assert plain["tokens"][:2] == parsed["tokens"][:2]
    assert plain["count"] == 2 + len("<|end|>")
    _, back = await send(api, "POST", "/detokenize", {"tokens": plain["tokens"][1:]})
    assert back["content"] == body["content"]


async def test_pieces_are_text_or_bytes(api: Api) -> None:
    body = {"content": "aé", "with_pieces": True, "colour": 1}
    response, answer = await send(api, "POST", "/tokenize", body)
    assert [token["piece"] for token in answer["tokens"]] == ["a", [0xC3], [0xA9]]
    assert ("x-ignored-fields", "colour") in response.headers


async def test_messages_become_a_prompt(api: Api) -> None:
    _, answer = await send(api, "POST", "/apply-template", {"messages": HI})
    assert answer == {"prompt": "<|endoftext|><|user|>hi<|end|><|assistant|>"}


async def test_the_properties_of_the_model(api: Api) -> None:
    _, props = await send(api, "GET", "/props")
    assert props["default_generation_settings"] == {"n_ctx": 64, "params": {"temperature": 1.0}}
    assert props["model_alias"] == "tiny"
    assert props["total_slots"] == 4
    assert "messages" in props["chat_template"]
    assert props["build_info"] == f"streamtok/{__version__}"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "content"),
        ("/tokenize", {"content": 1}, "content"),
        ("/detokenize", {"tokens": "x"}, "tokens"),
        ("/detokenize", {"tokens": [261]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/apply-template", {"messages": []}, "messages"),
        ("/apply-template", {"messages": [{"role": "user"}]}, "messages[0].content"),
    ],
)
async def test_a_wrong_field_is_named(api: Api, path: str, body: Any, param: str) -> None:
    response, answer = await send(api, "POST", path, body)
    assert (response.status, answer["error"]["param"]) == (400, param)
