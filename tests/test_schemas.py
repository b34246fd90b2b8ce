"""The JSON that goes in and out: what is accepted, what is refused and with which words."""

import json
from functools import partial
from typing import Any

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from streamtok.api.input import validation
from streamtok.api.input.documented import HINTS, OPENAI, REFUSED
from streamtok.api.input.validation import read_object
from streamtok.api.openai.answers import (
    ChatChunkChoice,
    CompletionChoice,
    Delta,
    Envelope,
    PromptDetails,
    UsageBody,
    encode,
    error_body,
)
from streamtok.api.openai.types import ChatRequest, CompletionRequest
from streamtok.errors import ContextTooLong, EngineFailed, InvalidRequest, NotFound, RequestError

convert = partial(validation.convert, documented=OPENAI)
CHAT = {"messages": [{"role": "user", "content": "Hi"}]}
COMPLETION = {"prompt": "Once"}
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS
JSON = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text("ab"), SCALARS, max_size=3)


def refused(value: dict[str, Any], kind: type[Any] = ChatRequest) -> InvalidRequest:
    """Return the error that `value` is answered with."""
    with pytest.raises(InvalidRequest) as caught:
        convert(value, kind)
    return caught.value


@examples(50)
@given(value=st.dictionaries(TEXTS, JSON, max_size=4))
def test_a_json_object_is_read_as_it_is(value: dict[str, Any]) -> None:
    assert read_object(json.dumps(value).encode()) == value
    assert read_object(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (b"", "invalid_json", "not valid JSON"),
        (b"{", "invalid_json", "not valid JSON"),
        (b"{} {}", "invalid_json", "not valid JSON"),
        (b'{"a": NaN}', "invalid_json", "not valid JSON"),
        (b'{"a": "\\ud800"}', "invalid_json", "not valid JSON"),
        (b"\xef\xbb\xbf{}", "invalid_json", "not valid JSON"),
        (b"[1]", "invalid_json", "must be a JSON object"),
        (b"null", "invalid_json", "must be a JSON object"),
        (b'{"a": "\xe9"}', "invalid_utf8", "byte 0xe9 at offset 7"),
        (b"{}".decode().encode("utf-16"), "invalid_utf8", "byte 0xff at offset 0"),
        (b'{"a":' + b"[" * 100_000, "invalid_json", "nested too deeply"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(body: bytes, code: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        read_object(body)
    assert (caught.value.code, caught.value.param) == (code, None)


def test_what_is_not_given_is_none() -> None:
    request, ignored = convert(CHAT, ChatRequest)
    assert ignored == ()
    assert (request.temperature, request.max_tokens, request.stop, request.n) == (None,) * 4
    assert (request.stream, request.seed, request.ignore_eos, request.logprobs) == (
        None,
        None,
        None,
        None,
    )


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("temperature", [0, 1, 2.0, None]),
        ("top_p", [0, 0.001, 1]),
        ("top_k", [0, 50]),
        ("min_p", [0, 1]),
        ("n", [1, 128]),
        ("max_tokens", [1, 10**6]),
        ("max_completion_tokens", [1]),
        ("stop", ["x", ["a", "b", "c", "d"], [], None]),
        ("stream_options", [{}, {"include_usage": True}, {"include_obfuscation": True}]),
        ("stop_token_ids", [[], [0, 5], None]),
        ("repetition_penalty", [0.5, 10]),
        ("presence_penalty", [-2, 2]),
        ("frequency_penalty", [-2, 2]),
        ("logit_bias", [{}, {"5": -100, "6": 100}]),
        ("seed", [0, -(2**63), 2**63 - 1]),
        ("top_logprobs", [0, 20]),
        ("user", ["someone"]),
    ],
)
def test_values_in_range_are_accepted(field: str, values: list[Any]) -> None:
    for value in values:
        _, ignored = convert({**CHAT, field: value}, ChatRequest)
        assert ignored == ()


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("temperature", [-0.1, 2.1, "1", True, [1]]),
        ("top_p", [-0.1, 1.1]),
        ("top_k", [-2, 1.5]),
        ("min_p", [-0.1, 1.1]),
        ("n", [0, 129, True]),
        ("max_tokens", [0, -1, 1.5, "1"]),
        ("max_completion_tokens", [0]),
        ("stop", ["", [""], ["a", "b", "c", "d", "e"], 1, [1]]),
        ("stream", ["true", 1]),
        ("stream_options", [{"include_obfuscation": 1}, {"other": 1}, True]),
        ("repetition_penalty", [0, 10.1]),
        ("presence_penalty", [-2.1, 2.1]),
        ("frequency_penalty", [-2.1, 2.1]),
        ("logit_bias", [{"5": 101}, {"5": "1"}, [1]]),
        ("seed", [2**63, -(2**63) - 1, 1.5, 10**30]),
        ("top_logprobs", [-1, 21]),
        ("logprobs", [1, "true"]),
        ("messages", [[], "Hi", [{}], [{"content": "x"}], [1], None]),
    ],
)
def test_values_out_of_range_are_refused_by_name(field: str, values: list[Any]) -> None:
    for value in values:
        error = refused({**CHAT, field: value})
        assert error.code == "invalid_value"
        assert error.param is not None
        assert error.param.startswith(field)
        assert error.message.startswith(error.param)


@pytest.mark.parametrize(
    ("value", "param", "words"),
    [
        ({}, "messages", "missing required field"),
        (
            {"messages": [{"role": "function"}]},
            "messages[0].role",
            "must be 'assistant', 'developer', 'system', 'tool' or 'user' (got 'function')",
        ),
        (
            {"messages": [*CHAT["messages"], {"role": "user", "content": 1}]},
            "messages[1].content",
            "must be a string or an array (got 1)",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": ""}]}]},
            "messages[0].content[0].type",
            "must be 'text' or 'refusal' (got 'image_url')",
        ),
    ],
)
def test_an_error_names_the_place(value: dict[str, Any], param: str, words: str) -> None:
    error = refused(value)
    assert error.param == param
    assert words in error.message


@pytest.mark.parametrize(
    "prompt", [None, "Once", "", ["a", "b"], [1, 2], [[1], [2, 3]], ["a", 1]], ids=str
)
def test_a_prompt_is_text_or_ids_or_a_list_of_them(prompt: Any) -> None:
    assert convert({"prompt": prompt}, CompletionRequest)[0].prompt == prompt


@pytest.mark.parametrize("prompt", [1, [], [-1], [1.5], [[1.5]], {"a": 1}], ids=str)
def test_a_prompt_that_is_neither_is_refused(prompt: Any) -> None:
    param = refused({"prompt": prompt}, CompletionRequest).param
    assert param is not None
    assert param.startswith("prompt")


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_refused_by_name_unless_it_asks_for_nothing(name: str) -> None:
    kind: Any = CompletionRequest if name in ChatRequest.__struct_fields__ else ChatRequest
    base = {**CHAT, **COMPLETION}
    for harmless in REFUSED[name]:
        assert name not in convert({**base, name: harmless}, kind)[1]
    error = refused({**base, name: {"some": "value"}}, kind)
    assert (error.param, error.code) == (name, "unsupported_parameter")


def test_unknown_fields_are_reported_and_hints_are_not() -> None:
    value = {**CHAT, "zeta": 1, "alpha": 2, **dict.fromkeys(HINTS, "x"), "seed": 1}
    assert convert(value, ChatRequest)[1] == ("alpha", "zeta")
    assert convert({**COMPLETION, "messages": []}, CompletionRequest)[1] == ("messages",)


@pytest.mark.parametrize(
    "error",
    [
        RequestError("oh"),
        InvalidRequest("no", param="seed"),
        ContextTooLong("long"),
        NotFound("which?", param="model", code="model_not_found"),
        EngineFailed("broken"),
    ],
)
def test_an_error_always_has_all_four_keys(error: RequestError) -> None:
    assert json.loads(error_body(error)) == {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
        }
    }


def envelope(choice: Any, usage: Any = UNSET) -> dict[str, Any]:
    """Return an answer as its reader sees it."""
    answer = Envelope(
        id="cmpl-1",
        object="text_completion",
        created=1,
        model="tiny",
        system_fingerprint="fp_1",
        choices=[choice],
        usage=usage,
    )
    value: dict[str, Any] = json.loads(encode(answer))
    return value


def test_usage_is_absent_or_null_or_there() -> None:
    choice = CompletionChoice(0, "a", None, None)
    assert "usage" not in envelope(choice)
    assert envelope(choice, None)["usage"] is None
    assert envelope(choice, UsageBody(1, 2, 3, PromptDetails(1)))["usage"] == {
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "total_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 1},
    }


@pytest.mark.parametrize(
    ("delta", "value"),
    [
        (Delta(role="assistant", content=""), {"role": "assistant", "content": ""}),
        (Delta(content="a"), {"content": "a"}),
        (Delta(), {}),
    ],
)
def test_a_delta_says_only_what_is_new(delta: Delta, value: dict[str, str]) -> None:
    (choice,) = envelope(ChatChunkChoice(0, delta, None, None))["choices"]
    assert choice == {"index": 0, "delta": value, "logprobs": None, "finish_reason": None}


@given(text=TEXTS)
def test_json_text_holds_no_line_break(text: str) -> None:
    assert not {10, 13}.intersection(encode(CompletionChoice(0, text, None, None)))
