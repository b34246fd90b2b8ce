"""What frameworks send besides what OpenAI's own client does: tolerated, mapped, or refused."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic.types import ModelInfo
from msgspec.structs import replace
from openai.types.responses import InputTokenCountResponse  # type: ignore[attr-defined]
from openai.types.responses.response_item_list import ResponseItemList
from pydantic import BaseModel

from streamtok.api.more.routes import ROUTES
from streamtok.api.openai.types import CONSTRAINTS
from streamtok.api.responses.types import Includable
from streamtok.api.routing import Api
from streamtok.config import EngineConfig, ServeConfig
from streamtok.engine.extras.grammars import Grammars, Vocabulary
from streamtok.http.request import Request
from streamtok.model.load import load
from streamtok.testing import (
    FakeClock,
    RunningServer,
    ScriptedEngine,
    chunks,
    local_engine,
    make_services,
    running_server,
    write_model,
)
from streamtok.text.tokenizer import Tokenizer

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
MESSAGES, EMBEDDINGS, MODELS = "/v1/messages", "/v1/embeddings", "/v1/models"
HI = [{"role": "user", "content": "hi"}]
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": HI, "max_tokens": 2},
    COMPLETIONS: {"prompt": "hi", "max_tokens": 2},
    RESPONSES: {"input": "hi", "max_output_tokens": 2},
    MESSAGES: {"messages": HI, "max_tokens": 2},
}
VERSION = (("anthropic-version", "2023-06-01"),)
LOGIT_BIAS = "logit_bias['7'] must be between -100 and 100 (got 101)"
CITY = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]}


class Site:
    """The API around an engine."""

    def __init__(self, folder: Path, engine: Any, **services: Any) -> None:
        self.engine = engine
        self.services = make_services(folder, engine, FakeClock(), **services)
        self.api = Api(ROUTES)
        self.api.open(self.services)

    async def send(
        self, method: str, target: str, body: Any = None, headers: Any = ()
    ) -> tuple[int, Any]:
        data = b"" if body is None else json.dumps(body).encode()
        response = await self.api.handle(Request(method, target, headers, data, "1.1", "test"))
        if isinstance(response.body, bytes):
            return response.status, json.loads(response.body or b"null")
        return response.status, [chunk async for chunk in chunks(response)]

    async def ask(self, path: str, headers: Any = (), **body: Any) -> tuple[int, Any]:
        return await self.send("POST", path, BODIES[path] | body, headers)

    def prompt(self, answer: Any) -> str:
        """Return the prompt that a request has become."""
        (sequence, *_) = self.engine.requests[answer["id"]]
        return str(self.services.tokenizer.decode(sequence.prompt_ids, special=True))


@pytest.fixture
async def site(tiny_model: Path) -> AsyncIterator[Site]:
    """An engine that says "ab"."""
    site = Site(tiny_model, ScriptedEngine([64, 65], context=128))
    yield site
    await site.services.meter.close()


@pytest.fixture
async def writer(tmp_path: Path) -> AsyncIterator[Site]:
    """A model that writes nonsense, held to grammars."""
    folder = write_model(tmp_path / "model", seed=3, max_position_embeddings=1024)
    decoder, tokenizer = load(folder), Tokenizer(folder)
    vocabulary = Vocabulary(tokenizer.backend.to_str(), decoder.config.vocab, tokenizer.stop_ids)
    grammars = Grammars(vocabulary)
    engine = local_engine(decoder, EngineConfig(step_tokens=64), grammars)
    site = Site(folder, engine, grammars=grammars)
    yield site
    await engine.close()
    await site.services.meter.close()


# Null


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"stream": True, "stream_options": {"include_usage": None}}),
        (CHAT, {"messages": [{"role": "user", "content": "x", "tool_calls": None, "name": None}]}),
        (CHAT, {"response_format": {"type": "json_object", "schema": None}, "tools": None}),
        (CHAT, {"logit_bias": {"5": None}, "stop": None, "stop_token_ids": None}),
        (CHAT, {"tools": [{"type": "function", "function": {"name": "f", "parameters": None}}]}),
        (COMPLETIONS, {"prompt": None, "stop": None, "logprobs": None, "suffix": None}),
        (RESPONSES, {"text": {"format": None, "verbosity": None}, "include": None}),
        (RESPONSES, {"input": [{"type": None, "role": "user", "content": "x"}]}),
        (RESPONSES, {"metadata": {"a": None}, "stream_options": None, "reasoning": None}),
        (
            MESSAGES,
            {"tools": [], "tool_choice": {"type": "auto", "disable_parallel_tool_use": None}},
        ),
        (MESSAGES, {"output_config": {"format": None}, "system": None, "thinking": None}),
        (MESSAGES, {"messages": [{"role": "user", "content": "x", "clear_at": None}]}),
    ],
    ids=str,
)
async def test_null_is_not_given_at_every_depth(
    writer: Site, path: str, body: dict[str, Any]
) -> None:
    status, answer = await writer.ask(path, **body)
    assert status == 200, answer


async def test_null_is_not_given_beside_the_answers(site: Site) -> None:
    for path, body in {
        "/tokenize": {"content": "x", "add_special": None, "with_pieces": None},
        "/apply-template": {"messages": HI, "tools": None, "add_generation_prompt": None},
        f"{MESSAGES}/count_tokens": {"messages": HI, "system": None, "tools": None},
        f"{RESPONSES}/input_tokens": {"input": "x", "instructions": None, "text": None},
    }.items():
        status, answer = await site.send("POST", path, body)
        assert status == 200, answer


async def test_null_within_free_json_is_a_value(site: Site) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [None, 1], "default": None}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    _, answer = await site.send("POST", "/apply-template", {"messages": HI, "tools": [tool]})
    assert '"default": null' in answer["prompt"]
    call = {"id": "c", "name": "f", "input": {"a": None}, "type": "tool_use"}
    turns = [
        *HI,
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c"}]},
    ]
    _, answer = await site.ask(MESSAGES, messages=turns)
    assert '{"a": null}' in site.prompt(answer)


# Numbers


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        (CHAT, {"temperature": 9}, "temperature must be between 0 and 2 (got 9)"),
        (MESSAGES, {"temperature": 1.5}, "temperature must be between 0 and 1 (got 1.5)"),
        (RESPONSES, {"temperature": -1}, "temperature must be between 0 and 2 (got -1)"),
        (COMPLETIONS, {"logprobs": 9}, "logprobs must be between 0 and 5 (got 9)"),
        (CHAT, {"n": 0}, "n must be between 1 and 128 (got 0)"),
        (CHAT, {"max_tokens": 0}, "max_tokens must be at least 1 (got 0)"),
        (CHAT, {"top_k": -2}, "top_k must be at least -1 (got -2)"),
        (CHAT, {"seed": 2**63}, f"seed must be between {-(2**63)} and {2**63 - 1} (got {2**63})"),
        (
            CHAT,
            {"logit_bias": {"7": 101}},
            "logit_bias['7'] must be between -100 and 100 (got 101)",
        ),
        (CHAT, {"stop": ["a"] * 5}, "stop must have at most 4 items (got 5)"),
        (CHAT, {"temperature": "hot"}, "temperature must be a number (got 'hot')"),
        (CHAT, {"max_tokens": 1.5}, "max_tokens must be an integer (got 1.5)"),
        (CHAT, {"stream": 1}, "stream must be a boolean (got 1)"),
        (RESPONSES, {"truncation": "x"}, "truncation must be 'auto' or 'disabled' (got 'x')"),
        (CHAT, {"stop_token_ids": [1, -1]}, "stop_token_ids[1] must be at least 0 (got -1)"),
    ],
    ids=str,
)
async def test_a_wrong_value_is_told_with_its_bounds(
    site: Site, path: str, body: dict[str, Any], message: str
) -> None:
    status, answer = await site.ask(path, **body)
    assert (status, answer["error"]["message"]) == (400, message)


async def test_an_integer_may_be_written_with_a_point(site: Site) -> None:
    """As JSON Schema has it, and JavaScript's and Lua's numbers come out of some encoders."""
    _, answer = await site.ask(COMPLETIONS, prompt=[5.0, 6], max_tokens=1.0, seed=3.0)
    (sequence,) = site.engine.requests[answer["id"]]
    assert (sequence.prompt_ids, sequence.max_tokens, sequence.sampling.seed) == ((5, 6), 1, 3)
    assert type(sequence.prompt_ids[0]) is int


# Hints


@pytest.mark.parametrize(
    "hint",
    [
        {"reasoning_effort": "high"},
        {"verbosity": "low"},
        {"prediction": {"type": "content", "content": "x"}},
        {"service_tier": "flex"},
        {"store": False},
        {"metadata": {"a": "b"}},
        {"prompt_cache_key": "x"},
        {"safety_identifier": "x"},
        {"priority": 1},
        {"top_k": -1},
        {"top_k": 0},
    ],
    ids=str,
)
async def test_a_hint_changes_nothing(site: Site, hint: dict[str, Any]) -> None:
    response = await site.api.handle(
        Request("POST", CHAT, (), json.dumps(BODIES[CHAT] | hint).encode(), "1.1", "test")
    )
    assert response.status == 200
    assert "x-ignored-fields" not in dict(response.headers)
    _, plain = await site.ask(CHAT)
    assert json.loads(response.body)["choices"] == plain["choices"]  # type: ignore[arg-type]


async def test_top_k_minus_one_is_off(site: Site) -> None:
    for path in BODIES:
        _, answer = await site.ask(path, top_k=-1)
        (sequence,) = site.engine.requests[answer["id"]]
        assert sequence.sampling.top_k == 0


# Constraints


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(
    ("field", "pattern"),
    [
        ({"guided_choice": ["yes", "no", 'a "b" ü']}, 'yes|no|a "b" ü'),
        ({"guided_regex": "[ab]{3}"}, "[ab]{3}"),
        ({"guided_json": CITY}, r'\{"city": ?"(Oslo|Rome)"\}'),
        ({"guided_json": json.dumps(CITY)}, r'\{"city": ?"(Oslo|Rome)"\}'),
        ({"guided_grammar": 'root ::= "x" [0-9]'}, "x[0-9]"),
        ({"guided_grammar": 'start: "x" /[0-9]/'}, "x[0-9]"),
        ({"structured_outputs": {"choice": ["yes", "no"]}}, "yes|no"),
        ({"structured_outputs": {"regex": "[ab]{3}"}}, "[ab]{3}"),
        ({"structured_outputs": {"json": CITY}}, r'\{"city": ?"(Oslo|Rome)"\}'),
        ({"structured_outputs": {"grammar": 'root ::= "x"'}}, "x"),
        ({"grammar": 'root ::= "a" | "b"'}, "a|b"),
        ({"grammar": {"syntax": "gbnf", "definition": 'root ::= "a"'}}, "a"),
        ({"json_schema": CITY}, r'\{"city": ?"(Oslo|Rome)"\}'),
        ({"response_format": {"type": "json_object", "schema": CITY}}, r'\{"city": ?"\w+"\}'),
    ],
    ids=str,
)
async def test_a_constraint_of_another_server_is_met(
    writer: Site, path: str, field: dict[str, Any], pattern: str
) -> None:
    status, answer = await writer.ask(path, **field, max_tokens=99, temperature=1, seed=1)
    assert status == 200, answer
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "stop"
    assert re.fullmatch(pattern, choice["message"]["content"] if path == CHAT else choice["text"])


@pytest.mark.parametrize(
    ("body", "param"),
    [
        *(({name: {"a": "b"}}, name) for name in ("regex", "ebnf", "format", "structural_tag")),
        ({"prompt_logprobs": 1}, "prompt_logprobs"),
        ({"bad_words": ["x"]}, "bad_words"),
        ({"allowed_token_ids": [1]}, "allowed_token_ids"),
        ({"use_beam_search": True}, "use_beam_search"),
        ({"include_stop_str_in_output": True}, "include_stop_str_in_output"),
        ({"structured_outputs": {"structural_tag": "x"}}, "structured_outputs"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_grammar": "root ::= ("}, "guided_grammar"),
        ({"guided_json": CITY, "guided_regex": "a"}, "guided_regex"),
        ({"response_format": {"type": "json_object", "value": CITY}}, "response_format"),
        ({"guided_regex": "a", "ignore_eos": True}, "ignore_eos"),
    ],
    ids=str,
)
async def test_what_cannot_be_met_is_refused_by_name(
    writer: Site, body: dict[str, Any], param: str
) -> None:
    for path in (CHAT, COMPLETIONS):
        status, answer = await writer.ask(path, **body)
        assert (status, answer["error"]["param"]) == (400, param)
        assert param in answer["error"]["message"]


@pytest.mark.parametrize("path", [RESPONSES, MESSAGES])
@pytest.mark.parametrize("name", CONSTRAINTS)
async def test_no_constraint_is_passed_over_where_it_has_another_name(
    site: Site, path: str, name: str
) -> None:
    status, answer = await site.ask(path, **{name: {"a": "b"}})
    assert status == 400
    assert name in answer["error"]["message"]


@pytest.mark.parametrize("seed", range(5))
async def test_objects_of_tools_and_formats_are_closed(writer: Site, seed: int) -> None:
    """As LangChain, instructor, pydantic-ai and DSPy leave them open; and calls come to an end."""
    tool = {"name": "f", "parameters": CITY}
    _, answer = await writer.ask(
        CHAT,
        tools=[{"type": "function", "function": tool}],
        tool_choice="required",
        max_tokens=900,
        temperature=1,
        seed=seed,
    )
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    for call in choice["message"]["tool_calls"]:
        assert set(json.loads(call["function"]["arguments"])) == {"city"}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": CITY}}
    _, answer = await writer.ask(CHAT, response_format=form, max_tokens=99, seed=seed)
    assert answer["choices"][0]["finish_reason"] == "stop"


# Continuing a message


@pytest.mark.parametrize(
    "asked",
    [
        {"continue_final_message": True},
        {"continue_final_message": True, "add_generation_prompt": False},
        {"add_generation_prompt": False},
    ],
    ids=str,
)
async def test_the_last_message_is_continued(site: Site, asked: dict[str, Any]) -> None:
    begun = [*HI, {"role": "assistant", "content": "I am "}]
    status, answer = await site.ask(CHAT, messages=begun, **asked)
    assert status == 200, answer
    assert site.prompt(answer) == "<|endoftext|><|user|>hi<|end|><|assistant|>I am "
    assert answer["choices"][0]["message"]["content"] == "ab"


async def test_no_generation_prompt_behind_a_user(site: Site) -> None:
    _, answer = await site.ask(CHAT, add_generation_prompt=False)
    assert site.prompt(answer) == "<|endoftext|><|user|>hi<|end|>"
    _, answer = await site.ask(CHAT, continue_final_message=True)
    assert site.prompt(answer) == "<|endoftext|><|user|>hi"


async def test_what_cannot_be_continued_is_refused(site: Site) -> None:
    for body in (
        {"continue_final_message": True, "add_generation_prompt": True},
        {"continue_final_message": True, "messages": [{"role": "user", "content": " "}]},
    ):
        status, answer = await site.ask(CHAT, **body)
        assert (status, answer["error"]["param"]) == (400, "continue_final_message")


# Prompts of nothing


@pytest.mark.parametrize("prompt", [None, "", [""]], ids=str)
async def test_an_empty_prompt_begins_a_text(tmp_path: Path, prompt: Any) -> None:
    """Also where the tokenizer adds nothing of itself to a text."""
    folder = write_model(tmp_path / "model")
    backend = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(backend | {"post_processor": None}))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    for names, beginning in (
        ({"bos_token", "eos_token"}, "<|endoftext|>"),
        ({"eos_token"}, "<|end|>"),
    ):
        kept = {key: value for key, value in settings.items() if key in names}
        (folder / "tokenizer_config.json").write_text(json.dumps(kept))
        site = Site(folder, ScriptedEngine([64], context=64))
        status, answer = await site.ask(COMPLETIONS, prompt=prompt)
        assert status == 200, answer
        assert site.prompt(answer) == beginning
        await site.services.meter.close()


# Model names


async def test_a_model_has_other_names(tiny_model: Path) -> None:
    site = Site(tiny_model, ScriptedEngine([64], context=64))
    for aliases, name, status in (
        ((), "gpt-4o", 404),
        (("gpt-4o", "claude"), "gpt-4o", 200),
        (("gpt-4o", "claude"), "tiny", 200),
        (("gpt-4o",), "gpt-5", 404),
        (("*",), "anything", 200),
    ):
        site.api.open(replace(site.services, aliases=aliases))
        for path in BODIES:
            assert (await site.ask(path, model=name))[0] == status
        assert (await site.send("GET", f"{MODELS}/{name}"))[0] == status
    site.api.open(replace(site.services, aliases=("a", "*")))
    _, listed = await site.send("GET", MODELS)
    assert [model["id"] for model in listed["data"]] == ["tiny", "a"]
    await site.services.meter.close()


# Responses


@pytest.mark.parametrize(
    "harmless",
    [
        *({"include": [name]} for name in Includable.__args__),  # type: ignore[attr-defined]
        {"truncation": "auto"},
        {"truncation": "disabled"},
        {"reasoning": {"effort": "high", "summary": "auto"}},
        {"text": {"verbosity": "low"}},
        {"top_logprobs": 3},
        {"max_tool_calls": 4},
        {"service_tier": "flex"},
        {"store": True},
        {"background": False},
        {"prompt_cache_key": "x"},
    ],
    ids=str,
)
async def test_harmless_fields_of_responses(site: Site, harmless: dict[str, Any]) -> None:
    status, answer = await site.ask(RESPONSES, **harmless)
    assert status == 200, answer


async def test_earlier_reasoning_is_left_out(site: Site) -> None:
    items = [
        {"role": "user", "content": "a"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
        {"role": "assistant", "content": "b"},
    ]
    _, answer = await site.ask(RESPONSES, input=items)
    prompt = "<|endoftext|><|user|>a<|end|><|assistant|>b<|end|><|assistant|>"
    assert site.prompt(answer) == prompt


async def test_the_input_of_a_response_can_be_listed(site: Site) -> None:
    items = [
        {"role": "user", "content": "a"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "r"},
    ]
    _, first = await site.ask(RESPONSES, input=items)
    _, second = await site.ask(RESPONSES, input="b", previous_response_id=first["id"])
    path = f"{RESPONSES}/{second['id']}/input_items"
    status, listed = await site.send("GET", f"{path}?order=asc")
    assert status == 200
    ResponseItemList.model_validate_json(json.dumps(listed), strict=True)
    kinds = [item["type"] for item in listed["data"]]
    assert kinds == ["message", "function_call", "function_call_output", "message", "message"]
    texts = [item["content"][0] for item in listed["data"] if item["type"] == "message"]
    assert texts == [
        {"type": "input_text", "text": "a"},
        {"type": "output_text", "text": "ab", "annotations": [], "logprobs": []},
        {"type": "input_text", "text": "b"},
    ]
    ids = [item["id"] for item in listed["data"]]
    assert len(set(ids)) == 5
    assert (listed["first_id"], listed["last_id"], listed["has_more"]) == (ids[0], ids[-1], False)
    _, newest = await site.send("GET", path)
    assert [item["id"] for item in newest["data"]] == ids[::-1]
    _, page = await site.send("GET", f"{path}?order=asc&limit=2&after={ids[0]}&include[]=x")
    assert ([item["id"] for item in page["data"]], page["has_more"]) == (ids[1:3], True)
    for query in ("limit=0", "order=up", "after=nobody", "other=1"):
        status, answer = await site.send("GET", f"{path}?{query}")
        assert status == 400
        assert query.partition("=")[0] in answer["error"]["message"]
    assert (await site.send("GET", f"{RESPONSES}/resp_none/input_items"))[0] == 404


async def test_the_tokens_of_an_input_are_counted(site: Site) -> None:
    asked = {"input": "hello", "instructions": "be kind"}
    _, answer = await site.ask(RESPONSES, **asked)
    status, counted = await site.send("POST", f"{RESPONSES}/input_tokens", asked)
    assert status == 200
    assert counted == {
        "object": "response.input_tokens",
        "input_tokens": answer["usage"]["input_tokens"],
    }
    InputTokenCountResponse.model_validate_json(json.dumps(counted), strict=True)
    follow = {"input": "x", "previous_response_id": answer["id"]}
    _, counted = await site.send("POST", f"{RESPONSES}/input_tokens", follow)
    _, answer = await site.ask(RESPONSES, **follow)
    assert counted["input_tokens"] == answer["usage"]["input_tokens"]


async def test_responses_have_log_probabilities(site: Site) -> None:
    asked = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    _, answer = await site.ask(RESPONSES, **asked)
    (sequence,) = site.engine.requests[answer["id"]]
    assert sequence.sampling.top_logprobs == 2
    assert answer["top_logprobs"] == 2


async def test_each_token_of_the_usage_has_its_log_probability(writer: Site) -> None:
    """The token that ends an answer too, in all of these: usage counts it."""
    form = {"guided_choice": ["yes"]}
    _, chat = await writer.ask(CHAT, **form, logprobs=True, top_logprobs=2, max_tokens=20)
    _, text = await writer.ask(COMPLETIONS, **form, logprobs=2, max_tokens=20)
    counts = [
        len(chat["choices"][0]["logprobs"]["content"]),
        len(text["choices"][0]["logprobs"]["tokens"]),
    ]
    assert counts == [chat["usage"]["completion_tokens"], text["usage"]["completion_tokens"]]
    assert chat["choices"][0]["finish_reason"] == "stop"
    text_format = {"type": "json_schema", "name": "x", "schema": {"enum": ["yes"]}}
    asked = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    _, answer = await writer.ask(
        RESPONSES, **asked, text={"format": text_format}, max_output_tokens=20
    )
    (part,) = answer["output"][0]["content"]
    assert len(part["logprobs"]) == answer["usage"]["output_tokens"]
    assert "".join(item["token"] for item in part["logprobs"]).startswith('"yes"')
    assert all(len(item["top_logprobs"]) == 2 for item in part["logprobs"])


# Messages


async def test_blocks_of_text_are_read_whatever_they_are(site: Site) -> None:
    document = {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": "D"},
        "title": "T",
        "context": "C",
        "citations": {"enabled": False},
    }
    blocks = {
        "type": "document",
        "source": {"type": "content", "content": [{"type": "text", "text": "E"}]},
    }
    found = {
        "type": "search_result",
        "source": "S",
        "title": "R",
        "content": [{"type": "text", "text": "F"}],
    }
    turns = [
        {"role": "user", "content": [document, {"type": "text", "text": "q"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "xx"},
                {"type": "tool_use", "id": "t", "name": "f", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t", "content": [blocks, found]}],
        },
        {"role": "system", "content": "s"},
        {"role": "system", "content": "gone", "clear_at": "next_user_message"},
        {"role": "user", "content": "z"},
    ]
    status, answer = await site.ask(MESSAGES, messages=turns, thinking={"type": "adaptive"})
    assert status == 200, answer
    prompt = site.prompt(answer)
    assert "<|user|>T\nC\nD\nq<|end|>" in prompt
    assert "E\nR\nS\nF" in prompt
    assert "<|system|>s<|end|><|user|>z<|end|>" in prompt
    assert not {"hm", "xx", "gone"} & set(re.findall(r"\w+", prompt))
    wrong = [{"role": "user", "content": [{"type": "thinking", "thinking": "x"}]}]
    assert (await site.ask(MESSAGES, messages=wrong))[0] == 400
    pdf = {"type": "document", "source": {"type": "base64", "data": ""}}
    _, answer = await site.ask(MESSAGES, messages=[{"role": "user", "content": [pdf]}])
    assert "source.type must be 'text' or 'content'" in answer["error"]["message"]


@pytest.mark.parametrize("field", ["output_config", "output_format"])
async def test_messages_have_structured_output(writer: Site, field: str) -> None:
    form = {"type": "json_schema", "schema": CITY}
    value = {"format": form, "effort": "low"} if field == "output_config" else form
    status, answer = await writer.ask(MESSAGES, **{field: value}, max_tokens=99)
    assert status == 200, answer
    assert json.loads(answer["content"][0]["text"])["city"] in ("Oslo", "Rome")
    bad = {"type": "json_schema", "schema": {"type": "x"}}
    value = {"format": bad} if field == "output_config" else bad
    status, answer = await writer.ask(MESSAGES, **{field: value})
    assert status == 400
    assert field in answer["error"]["message"]


async def test_who_speaks_anthropics_version_gets_its_shapes(site: Site) -> None:
    _, listed = await site.send("GET", MODELS, headers=VERSION)
    (model,) = listed.pop("data")
    assert listed == {"first_id": "tiny", "last_id": "tiny", "has_more": False}
    ModelInfo.model_validate_json(json.dumps(model | {"capabilities": None}), strict=True)
    assert (await site.send("GET", f"{MODELS}/tiny", headers=VERSION))[1] == model
    for method, path, status, kind in (
        ("GET", f"{MODELS}/other", 404, "not_found_error"),
        ("GET", "/nowhere", 404, "not_found_error"),
        ("DELETE", MODELS, 405, "invalid_request_error"),
        ("POST", CHAT, 400, "invalid_request_error"),
    ):
        found, answer = await site.send(method, path, headers=VERSION)
        assert (found, answer["type"], answer["error"]["type"]) == (status, "error", kind)


class Weather(BaseModel):
    city: str
    sunny: bool


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = write_model(
        tmp_path_factory.mktemp("m") / "tiny", seed=3, max_position_embeddings=1024
    )
    config = ServeConfig(port=0, ledger=":memory:", model=str(folder), model_alias="claude-x, b")
    with running_server(config) as running:
        yield running


def test_the_official_client_parses_and_lists(server: RunningServer) -> None:
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["tiny", "claude-x", "b"]
        for seed in range(20):
            answer = client.messages.parse(
                model="claude-x",
                max_tokens=400,
                messages=[{"role": "user", "content": "hi"}],
                output_format=Weather,
                extra_body={"seed": seed},
            )
            if answer.stop_reason == "end_turn":  # else a string did not end
                assert isinstance(answer.parsed_output, Weather)
                break
        else:
            pytest.fail("no answer ended")
        with pytest.raises(anthropic.NotFoundError, match="not_found_error"):
            client.models.retrieve("other")
