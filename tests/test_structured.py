"""Answers that are what was asked for: `response_format` and `grammar`, over HTTP."""

import asyncio
import json
import re
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel, Field
from test_conformance import answer, conform

from streamtok.api.more.routes import ROUTES
from streamtok.api.routing import Api
from streamtok.config import EngineConfig, ServeConfig
from streamtok.engine.extras.grammars import MAX_CHARACTERS, Grammars, Vocabulary
from streamtok.http.request import Request
from streamtok.messages import Constraint
from streamtok.model.load import load
from streamtok.startup import load_files
from streamtok.testing import (
    FakeClock,
    RunningServer,
    ScriptedEngine,
    byte_tokenizer,
    local_engine,
    make_services,
    running_server,
    write_model,
)
from streamtok.text.tokenizer import Tokenizer

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HI = [{"role": "user", "content": "hi"}]
BEAST = {
    "type": "object",
    "properties": {"kind": {"enum": ["fox", "owl"]}, "tails": {"type": "integer", "maximum": 9}},
    "required": ["kind", "tails"],
    "additionalProperties": False,
}


def schema_format(schema: dict[str, Any], **options: Any) -> dict[str, Any]:
    named = {"name": "it", "schema": schema, "strict": True} | options
    return {"type": "json_schema", "json_schema": named}


def grammar(definition: str, syntax: str = "regex") -> dict[str, str]:
    return {"syntax": syntax, "definition": definition}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with a model that writes nonsense, fast."""
    folder = write_model(
        tmp_path_factory.mktemp("models") / "tiny", seed=3, max_position_embeddings=1024
    )
    with running_server(ServeConfig(port=0, ledger=":memory:", model=str(folder))) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def api(tiny_model: Path) -> AsyncIterator[Api]:
    decoder, tokenizer = load(tiny_model), Tokenizer(tiny_model)
    vocabulary = Vocabulary(tokenizer.backend.to_str(), decoder.config.vocab, tokenizer.stop_ids)
    grammars = Grammars(vocabulary)
    config = EngineConfig(max_streams=8, max_queue=40, step_tokens=8)
    engine = local_engine(decoder, config, grammars)
    services = make_services(tiny_model, engine, FakeClock(), grammars=grammars)
    api = Api(ROUTES)
    api.open(services)
    yield api
    await engine.close()
    await services.meter.close()


def post(server: RunningServer, path: str, body: dict[str, Any]) -> Any:
    return httpx.post(server.url + path, json=body, timeout=60).json()


# Schemas

SCHEMAS = st.deferred(
    lambda: (
        st.sampled_from(
            [
                {"type": "null"},
                {"type": "boolean"},
                {"const": 'é\n"x"'},
                {"enum": ["a", 1, None, [2]]},
                {"type": "integer", "minimum": -20, "maximum": 300},
                {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 70},
                {"type": "number", "exclusiveMinimum": 0, "maximum": 1, "multipleOf": 0.25},
                {"type": "string", "maxLength": 5},
                {"type": "string", "pattern": "^[a-z]{1,3}\\d?$"},
                {"type": "string", "format": "date"},
                {"type": ["null", "boolean"]},
            ]
        )
        | st.builds(
            lambda items, least: {
                "type": "array",
                "items": items,
                "minItems": least,
                "maxItems": least + 2,
            },
            SCHEMAS,
            st.integers(0, 2),
        )
        | st.builds(
            lambda parts, optional: {
                "type": "object",
                "properties": parts,
                "required": list(parts)[optional:],
                "additionalProperties": False,
            },
            st.dictionaries(st.sampled_from(["a", "b c", "é", '"']), SCHEMAS, max_size=3),
            st.integers(0, 2),
        )
        | st.builds(lambda parts: {"anyOf": parts}, st.lists(SCHEMAS, min_size=1, max_size=3))
    )
)


@examples(60)
@given(
    schema=SCHEMAS | SCHEMAS.map(lambda inner: {"$defs": {"it": inner}, "$ref": "#/$defs/it"}),
    seed=st.integers(0, 3),
    temperature=st.sampled_from([0, 0.7, 2]),
)
def test_an_answer_that_ends_is_json_that_its_schema_describes(
    tiny: RunningServer, schema: dict[str, Any], seed: int, temperature: float
) -> None:
    body = {
        "messages": HI,
        "response_format": schema_format(schema),
        "seed": seed,
        "temperature": temperature,
    }
    (choice,) = post(tiny, CHAT, body)["choices"]
    assert choice["finish_reason"] == "stop"
    Draft202012Validator(schema).validate(json.loads(choice["message"]["content"]))


async def test_json_mode_gives_an_object_or_says_that_it_was_cut(api: Api) -> None:
    body = {"messages": HI, "response_format": {"type": "json_object"}, "n": 6, "seed": 1}
    whole = await answer(api, CHAT, body | {"max_tokens": 60})
    for choice in whole["choices"]:
        content = choice["message"]["content"]
        assert content.startswith("{")
        if choice["finish_reason"] == "stop":
            assert isinstance(json.loads(content), dict)
    assert {choice["finish_reason"] for choice in whole["choices"]} <= {"stop", "length"}
    body = {"messages": HI, "response_format": schema_format(BEAST), "max_tokens": 5}
    (short,) = (await answer(api, CHAT, body))["choices"]
    assert (short["message"]["content"], short["finish_reason"]) == ('{"kin', "length")


async def test_text_is_the_format_of_what_asks_for_none(api: Api) -> None:
    body = {"messages": HI, "seed": 1, "max_tokens": 5}
    plain = await answer(api, CHAT, body)
    for format_ in ({"type": "text"}, None):
        asked = await answer(api, CHAT, body | {"response_format": format_})
        assert asked["choices"] == plain["choices"]


# Grammars


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_grammar_holds_in_both_endpoints_streamed_and_not(api: Api, path: str) -> None:
    prompt = {"messages": HI} if path == CHAT else {"prompt": "hi"}
    body = prompt | {"grammar": grammar("(fox|owl){3}"), "n": 2, "seed": 2, "max_tokens": 40}
    whole = await answer(api, path, body)
    events = await answer(api, path, body | {"stream": True})
    conform(ChatCompletion if path == CHAT else Completion, whole)
    for event in events:
        conform(ChatCompletionChunk if path == CHAT else Completion, event)
    for choice in whole["choices"]:
        said = choice["message"]["content"] if path == CHAT else choice["text"]
        assert re.fullmatch("(fox|owl){3}", said)
        parts = [c for e in events for c in e["choices"] if c["index"] == choice["index"]]
        texts = [p["delta"].get("content", "") if path == CHAT else p["text"] for p in parts]
        assert "".join(texts) == said
        assert parts[-1]["finish_reason"] == choice["finish_reason"] == "stop"
        assert len([text for text in texts if text]) == 9  # one token one chunk
    assert whole["usage"]["completion_tokens"] == 18  # without a token for the end


async def test_a_grammar_in_lark(api: Api) -> None:
    definition = 'start: "<" word ("," word)~1..2 ">"\nword: /[a-c]{2}/'
    body = {"prompt": "x", "grammar": grammar(definition, "lark"), "max_tokens": 40}
    (choice,) = (await answer(api, COMPLETIONS, body))["choices"]
    assert re.fullmatch("<[a-c]{2}(,[a-c]{2}){1,2}>", choice["text"])


async def test_stop_strings_and_least_lengths_hold_too(api: Api) -> None:
    body = {"prompt": "x", "grammar": grammar("a+b"), "max_tokens": 30, "temperature": 0}
    (token,) = byte_tokenizer().encode("b", add_special_tokens=False).ids
    b_first = {"logit_bias": {str(token): 100}}
    short = await answer(api, COMPLETIONS, body | b_first)
    assert short["choices"][0]["text"] == "ab"
    stopped = await answer(api, COMPLETIONS, body | b_first | {"stop": "b"})
    assert stopped["choices"][0]["text"] == "a"
    assert stopped["choices"][0]["finish_reason"] == "stop"
    body["grammar"] = grammar("(ab)*")
    longer = await answer(api, COMPLETIONS, body | {"min_tokens": 10})
    assert len(longer["choices"][0]["text"]) >= 10
    assert longer["choices"][0]["text"].replace("ab", "") == ""
    ended = await answer(api, COMPLETIONS, body | {"logit_bias": {"256": 100}})
    (choice,) = ended["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("", "stop")
    assert ended["usage"]["completion_tokens"] == 1  # the end itself
    cut = await answer(api, COMPLETIONS, body | {"min_tokens": 3, "max_tokens": 3})
    assert (cut["choices"][0]["text"], cut["choices"][0]["finish_reason"]) == ("aba", "length")


async def test_the_answer_is_the_same_among_others(api: Api) -> None:
    asked: list[dict[str, Any]] = [
        {"messages": HI, "response_format": schema_format(BEAST), "n": 2},
        {"messages": HI, "grammar": grammar("[a-e]{20}")},
        {"messages": HI, "max_tokens": 30},
        {"messages": HI, "response_format": {"type": "json_object"}, "max_tokens": 30},
    ]
    alone = [await answer(api, CHAT, body | {"seed": 7}) for body in asked]
    together = await asyncio.gather(*(answer(api, CHAT, body | {"seed": 7}) for body in asked))
    assert [a["choices"] for a in together] == [a["choices"] for a in alone]


# What is refused


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        (
            {"response_format": {"type": "yaml"}},
            "response_format.type",
            "'text', 'json_object'",
        ),
        ({"response_format": {"type": "json_schema"}}, "response_format", "`json_schema`"),
        (
            {"response_format": schema_format({}, name="no spaces")},
            "response_format.json_schema.name",
            "1 to 64 letters",
        ),
        (
            {"response_format": schema_format({"properties": {"a": {"not": {}}}})},
            "response_format",
            'response_format.json_schema.schema.properties.a: Unimplemented keys: ["not"]',
        ),
        ({"response_format": schema_format({"enum": []})}, "response_format", "Unsatisfiable"),
        (
            {"response_format": schema_format({"const": "x" * MAX_CHARACTERS})},
            "response_format",
            f"at most {MAX_CHARACTERS}",
        ),
        ({"grammar": grammar("(")}, "grammar", "grammar: "),
        ({"grammar": grammar("start: x", "lark")}, "grammar", 'unknown name: "x"'),
        ({"grammar": grammar("x", "ebnf")}, "grammar.syntax", "'regex' (got 'ebnf')"),
        ({"grammar": 1}, "grammar", "must be an object or a string"),
        (
            {"grammar": grammar("x"), "response_format": {"type": "json_object"}},
            "grammar",
            "response_format says already",
        ),
        ({"grammar": grammar("x"), "ignore_eos": True}, "ignore_eos", "where the text ends"),
    ],
    ids=lambda value: str(value)[:60],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_cannot_be_is_refused_before_anything_is_sent(
    api: Api, fields: dict[str, Any], param: str, words: str, stream: bool
) -> None:
    for path, prompt in ((CHAT, {"messages": HI}), (COMPLETIONS, {"prompt": "x"})):
        body = json.dumps(prompt | fields | {"stream": stream}).encode()
        response = await api.handle(Request("POST", path, (), body, "1.1", "t"))
        assert isinstance(response.body, bytes)
        error = json.loads(response.body)["error"]
        assert (response.status, error["param"]) == (400, param)
        assert words in error["message"]


async def test_without_the_library_it_is_said_how_to_get_it(tiny_model: Path) -> None:
    services = make_services(tiny_model, ScriptedEngine([65]), FakeClock())
    api = Api(ROUTES)
    api.open(services)
    body = {"messages": HI, "response_format": {"type": "json_object"}}
    response = await api.handle(Request("POST", CHAT, (), json.dumps(body).encode(), "1.1", "t"))
    assert isinstance(response.body, bytes)
    error = json.loads(response.body)["error"]
    assert (response.status, error["param"]) == (400, "response_format")
    assert "pip install 'streamtok[structured]'" in error["message"]
    await services.meter.close()


def test_a_server_does_without_the_library(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_files(tiny_model).grammars is not None
    monkeypatch.setitem(sys.modules, "llguidance", None)
    assert load_files(tiny_model).grammars is None


async def test_a_grammar_is_compiled_beside_the_event_loop(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one is being compiled other requests are answered."""
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def check(grammars: Grammars, constraint: Constraint) -> None:
        loop.call_soon_threadsafe(begun.set)
        assert go_on.wait(60)

    monkeypatch.setattr(Grammars, "check", check)
    tokenizer = Tokenizer(tiny_model)
    grammars = Grammars(Vocabulary(tokenizer.backend.to_str(), 261, tokenizer.stop_ids))
    services = make_services(tiny_model, ScriptedEngine([65, 66]), FakeClock(), grammars=grammars)
    api = Api(ROUTES)
    api.open(services)
    slow = asyncio.create_task(answer(api, COMPLETIONS, {"prompt": "x", "grammar": grammar("AB")}))
    await begun.wait()
    assert (await answer(api, COMPLETIONS, {"prompt": "x"}))["choices"]
    assert not slow.done()
    go_on.set()
    assert (await slow)["choices"]
    await services.meter.close()


# The official client, with the shipped model


class Beast(BaseModel):
    kind: Literal["fox", "owl"]
    tails: int = Field(ge=0, le=9)
    names: list[Literal["Ash", "Bo"]] = Field(max_length=2)


def test_the_client_parses_what_it_asked_for(client: openai.OpenAI) -> None:
    ask: Any = {"model": "fireside", "messages": HI, "seed": 1}
    parsed = client.chat.completions.parse(**ask, response_format=Beast)
    assert isinstance(parsed.choices[0].message.parsed, Beast)
    with client.chat.completions.stream(**ask, response_format=Beast) as stream:
        events = list(stream)
    assert (
        stream.get_final_completion().choices[0].message.parsed == parsed.choices[0].message.parsed
    )
    assert [event.type for event in events].count("content.done") == 1


def test_the_client_can_give_a_grammar(client: openai.OpenAI) -> None:
    made = client.completions.create(
        model="fireside",
        prompt="Once",
        extra_body={"grammar": grammar(" upon an? [a-z]{3,9}\\.")},
    )
    assert re.fullmatch(" upon an? [a-z]{3,9}\\.", made.choices[0].text)
