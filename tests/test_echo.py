"""Answers that begin with their prompt, the best of several, and the ids of tokens."""

import json
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers.pre_tokenizers import ByteLevel

from streamtok.answer.complete import CompleteChoice, best
from streamtok.answer.events import Token
from streamtok.api.more.routes import ROUTES
from streamtok.api.routing import Api
from streamtok.config import EngineConfig
from streamtok.http.request import Request
from streamtok.messages import TokenLogprobs
from streamtok.model import reference
from streamtok.model.load import load, read_weights
from streamtok.testing import FakeClock, chunks, local_engine, make_services
from streamtok.text.tokenizer import Tokenizer

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
CONTEXT = 128
CUT = sorted(ByteLevel.alphabet()).index("â")  # the first byte of "€" and others
PROMPTS = [[79, 77, 66], [256, 71, 72, 195, 130], [5] * 20]


@pytest.fixture
async def api(tiny_model: Path) -> AsyncIterator[Api]:
    """The API around a real engine with the tiny model."""
    config = EngineConfig(max_streams=4, max_queue=40, step_tokens=8)
    engine = local_engine(load(tiny_model), config)
    services = make_services(tiny_model, engine, FakeClock())
    api = Api(ROUTES)
    api.open(services)
    yield api
    await engine.close()
    await services.meter.close()


async def ask(api: Api, body: dict[str, Any], path: str = COMPLETIONS) -> Any:
    """Return the JSON of an answer; of a stream the list of its events."""
    data = json.dumps({"temperature": 0} | body).encode()
    response = await api.handle(Request("POST", path, (), data, "1.1", "test"))
    if isinstance(response.body, bytes):
        return json.loads(response.body)
    events = [event async for event in chunks(response)]
    assert events[-1] == b"data: [DONE]\n\n"
    return [json.loads(event[6:]) for event in events[:-1]]


def put_together(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the choices of a streamed completion as if it had not been streamed."""
    choices: dict[int, dict[str, Any]] = defaultdict(dict)
    for event in events:
        for part in event["choices"]:
            choice = choices[part["index"]]
            assert choice.get("finish_reason") is None
            choice["index"], choice["finish_reason"] = part["index"], part["finish_reason"]
            choice["text"] = choice.get("text", "") + part["text"]
            logprobs = choice.setdefault("logprobs", None)
            if part["logprobs"]:
                logprobs = logprobs or {key: [] for key in part["logprobs"]}
                choice["logprobs"] = {k: logprobs[k] + v for k, v in part["logprobs"].items()}
    return [choices[index] for index in sorted(choices)]


def reference_logprobs(folder: Path, ids: list[int]) -> np.ndarray:
    """Return what the reference says of each next token, in double precision: [T, V]."""
    config, tensors = read_weights(folder)
    weights = {name: tensor.astype(float) for name, tensor in tensors.items()}
    logits = reference.logits(config, weights, ids)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


# The prompt's text


@pytest.mark.parametrize("prompt", ["Once é", "<|user|>hi<|end|>", "<|endoftext|>x", "€", ""])
async def test_a_text_comes_back_as_it_was_with_its_continuation(api: Api, prompt: str) -> None:
    body = {"prompt": prompt, "max_tokens": 5}
    plain = (await ask(api, body))["choices"][0]["text"]
    for logprobs in (None, 2):
        options = body | {"echo": True, "logprobs": logprobs}
        answer = await ask(api, options)
        assert answer["choices"][0]["text"] == prompt + plain
        assert put_together(await ask(api, options | {"stream": True})) == answer["choices"]


@pytest.mark.parametrize("max_tokens", [0, 1, 7])
@pytest.mark.parametrize("logprobs", [None, 0, 3])
@pytest.mark.parametrize("n", [1, 2])
async def test_batches_of_ids_come_back_in_order_streamed_or_not(
    api: Api, max_tokens: int, logprobs: int | None, n: int
) -> None:
    options = {
        "prompt": PROMPTS,
        "echo": True,
        "max_tokens": max_tokens,
        "logprobs": logprobs,
        "n": n,
        "ignore_eos": True,
    }
    answer = await ask(api, options)
    choices = answer["choices"]
    assert [choice["index"] for choice in choices] == list(range(3 * n))
    assert {choice["finish_reason"] for choice in choices} == {"length"}
    assert answer["usage"]["prompt_tokens"] == 28
    assert answer["usage"]["completion_tokens"] == 3 * n * max_tokens
    for choice, ids in zip(choices, [ids for ids in PROMPTS for _ in range(n)], strict=True):
        assert (choice["logprobs"] is None) == (logprobs is None)
        if logprobs is not None:
            assert {len(values) for values in choice["logprobs"].values()} == {
                len(ids) + max_tokens
            }
    stream = options | {"stream": True, "stream_options": {"include_usage": True}}
    events = await ask(api, stream)
    assert put_together(events) == choices
    for usage in (events[-1]["usage"], answer["usage"]):
        del usage["prompt_tokens_details"]  # the second request finds the prompts computed
    assert events[-1]["usage"] == answer["usage"]


async def test_without_tokens_and_without_echo_there_is_no_text(api: Api) -> None:
    answer = await ask(api, {"prompt": "hi", "max_tokens": 0})
    choice = {"index": 0, "text": "", "logprobs": None, "finish_reason": "length"}
    assert answer["choices"] == [choice]
    assert put_together(await ask(api, {"prompt": "hi", "max_tokens": 0, "stream": True})) == [
        choice
    ]


async def test_a_stop_string_in_the_prompt_does_not_stop(api: Api) -> None:
    answer = await ask(api, {"prompt": "abc", "echo": True, "max_tokens": 4, "stop": "b"})
    plain = await ask(api, {"prompt": "abc", "max_tokens": 4, "stop": "b"})
    assert answer["choices"][0]["text"] == "abc" + plain["choices"][0]["text"]


async def test_a_prompt_may_fill_the_context_where_nothing_is_generated(api: Api) -> None:
    body = {"prompt": [7] * CONTEXT, "echo": True, "logprobs": 1}
    answer = await ask(api, body | {"max_tokens": 0})
    assert len(answer["choices"][0]["logprobs"]["tokens"]) == CONTEXT
    error = (await ask(api, body | {"max_tokens": 1}))["error"]
    assert (error["param"], error["code"]) == ("prompt", "context_length_exceeded")
    assert "must leave room" in error["message"]
    error = (await ask(api, {"prompt": [7] * (CONTEXT + 1), "max_tokens": 0}))["error"]
    assert error["message"] == "the prompt has 129 tokens; the model's context is 128 tokens"


# What is said of its tokens


async def test_scores_are_the_models_own_and_nothing_comes_before_the_first(
    api: Api, tiny_model: Path
) -> None:
    options = {"prompt": [PROMPTS[1]], "echo": True, "logprobs": 4, "return_token_ids": True}
    (choice,) = (await ask(api, options | {"max_tokens": 6, "ignore_eos": True}))["choices"]
    found, ids = choice["logprobs"], PROMPTS[1] + choice["token_ids"]
    assert found["token_logprobs"][0] is found["top_logprobs"][0] is None
    expected = reference_logprobs(tiny_model, ids)
    for place, (row, token) in enumerate(zip(expected, ids[1:], strict=False), 1):
        logprob, top = found["token_logprobs"][place], found["top_logprobs"][place]
        assert logprob == pytest.approx(row[token], abs=1e-4)
        assert logprob == top[found["tokens"][place]]
        assert max(top.values()) == pytest.approx(row.max(), abs=1e-4)
        assert len(top) == (4 if token in np.argsort(-row)[:4] else 5)
        if place >= len(PROMPTS[1]):  # drawn greedily
            assert logprob == max(top.values())


async def test_offsets_are_places_in_the_text(api: Api) -> None:
    prompt = "<|user|>aé€!"
    options = {"prompt": prompt, "echo": True, "logprobs": 0, "max_tokens": 3}
    (choice,) = (await ask(api, options))["choices"]
    tokens, offsets = choice["logprobs"]["tokens"], choice["logprobs"]["text_offset"]
    assert tokens[0] == "<|endoftext|>"  # added, and not in the text
    assert offsets[:9] == [0, 0, 8, 9, 9, 10, 10, 10, 11]
    assert offsets == sorted(offsets)
    for token, offset in zip(tokens[1:3], offsets[1:3], strict=True):
        assert choice["text"].startswith(token, offset)
    assert tokens[3:5] == ["bytes:\\xc3", "bytes:\\xa9"]
    assert offsets[9] == len(prompt)


async def test_a_prompt_of_ids_may_end_within_a_character(api: Api) -> None:
    answer = await ask(
        api, {"prompt": [*PROMPTS[0], CUT], "echo": True, "logprobs": 1, "max_tokens": 2}
    )
    (choice,) = answer["choices"]
    assert choice["text"][3] == "\ufffd"
    assert max(choice["logprobs"]["text_offset"]) <= len(choice["text"])


# The best of several


async def test_the_best_of_several_have_the_highest_logprob_per_token(api: Api) -> None:
    body = {"prompt": ["ab", "c"], "max_tokens": 6, "temperature": 1.5, "seed": 3, "logprobs": 0}
    every = await ask(api, body | {"n": 5})
    two = await ask(api, body | {"n": 2, "best_of": 5})
    assert [choice["index"] for choice in two["choices"]] == [0, 1, 2, 3]
    assert two["usage"] == every["usage"]

    def mean(choice: dict[str, Any]) -> float:
        logprobs = choice["logprobs"]["token_logprobs"]
        return sum(logprobs) / len(logprobs)

    for prompt in range(2):
        all_five = every["choices"][5 * prompt : 5 * prompt + 5]
        expected = sorted(all_five, key=mean, reverse=True)[:2]
        chosen = two["choices"][2 * prompt : 2 * prompt + 2]
        assert [choice["text"] for choice in chosen] == [choice["text"] for choice in expected]
    plain = await ask(api, body | {"n": 2, "best_of": 5, "logprobs": None})
    assert [c["text"] for c in plain["choices"]] == [c["text"] for c in two["choices"]]
    assert {choice["logprobs"] for choice in plain["choices"]} == {None}


async def test_echoed_prompts_do_not_decide_which_is_best(api: Api) -> None:
    body = {"prompt": "ab", "max_tokens": 4, "temperature": 1.5, "seed": 3, "best_of": 4}
    plain, echoed = await ask(api, body), await ask(api, body | {"echo": True, "logprobs": 1})
    assert echoed["choices"][0]["text"] == "ab" + plain["choices"][0]["text"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"best_of": 1, "n": 2}, "best_of: expected at least n, 2"),
        ({"best_of": 3, "n": 2, "stream": True}, "cannot be streamed"),
        ({"best_of": 0}, "best_of must be between 1 and 20 (got 0)"),
        ({"best_of": 21}, "best_of must be between 1 and 20 (got 21)"),
    ],
)
async def test_a_best_of_that_cannot_be_is_refused(
    api: Api, options: dict[str, Any], words: str
) -> None:
    error = (await ask(api, {"prompt": "a"} | options))["error"]
    assert error["param"] == "best_of"
    assert words in error["message"]


def test_an_answer_without_tokens_is_the_last_resort() -> None:
    def choice(*logprobs: float) -> CompleteChoice:
        tokens = [Token(1, 0, TokenLogprobs(value, ())) for value in logprobs]
        return CompleteChoice(tokens=tokens, reason="stop")

    empty, low, high = choice(), choice(-3.0, -9.0), choice(-4.0)
    assert list(best([empty, low, high], 2)) == [high, low]
    assert list(best([empty, low, high], 3)) == [empty, low, high]


# Ids


async def test_ids_are_told_where_they_are_asked_for(api: Api, tiny_model: Path) -> None:
    tokenizer = Tokenizer(tiny_model)
    body = {"prompt": ["ab", "c"], "max_tokens": 6, "return_token_ids": True, "ignore_eos": True}
    choices = (await ask(api, body))["choices"]
    events = await ask(api, body | {"stream": True})
    for index, prompt in enumerate(body["prompt"]):
        parts = [e["choices"][0] for e in events if e["choices"][0]["index"] == index]
        told = [part.get("prompt_token_ids") for part in parts]
        assert told[0] == choices[index]["prompt_token_ids"]
        assert told[0] == list(tokenizer.encode(prompt, special=True))
        assert set(map(str, told[1:])) == {"None"}
        assert [i for part in parts for i in part["token_ids"]] == choices[index]["token_ids"]
        assert len(choices[index]["token_ids"]) == 6
        assert tokenizer.decode(choices[index]["token_ids"]) == choices[index]["text"]
    echoed = (await ask(api, body | {"echo": True, "logprobs": 1}))["choices"]
    for choice, plain in zip(echoed, choices, strict=True):
        assert choice["token_ids"] == plain["token_ids"]
        assert choice["prompt_token_ids"] == plain["prompt_token_ids"]


async def test_a_chat_tells_its_prompts_ids_once(api: Api, tiny_model: Path) -> None:
    body = {
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 6,
        "return_token_ids": True,
        "n": 2,
    }
    answer = await ask(api, body, CHAT)
    ids = Tokenizer(tiny_model).encode("<|endoftext|><|user|>hi<|end|><|assistant|>", special=False)
    assert answer["prompt_token_ids"] == list(ids)
    events = await ask(api, body | {"stream": True}, CHAT)
    assert [event.get("prompt_token_ids") for event in events] == [
        list(ids),
        *[None] * (len(events) - 1),
    ]
    for choice in answer["choices"]:
        parts = [e["choices"][0] for e in events if e["choices"][0]["index"] == choice["index"]]
        assert [i for part in parts for i in part.get("token_ids", [])] == choice["token_ids"]


async def test_ids_are_absent_unless_asked_for(api: Api) -> None:
    for extra in ({}, {"return_token_ids": False}, {"stream": True}):
        text = json.dumps(await ask(api, {"prompt": "a", "max_tokens": 2} | extra))
        assert "token_ids" not in text


@pytest.mark.parametrize(
    ("skip", "text"), [(None, "!!"), (True, "!!"), (False, "<|user|>!<|user|>!")]
)
async def test_special_tokens_are_shown_where_they_are_not_skipped(
    api: Api, skip: bool | None, text: str
) -> None:
    """The prompt's tokens go the same way as those that are generated."""
    options = {"prompt": [258, 0, 258, 0], "echo": True, "max_tokens": 0}
    answer = await ask(api, options | {"skip_special_tokens": skip})
    assert answer["choices"][0]["text"] == text


async def test_generated_special_tokens_are_shown_where_they_are_not_skipped(api: Api) -> None:
    body = {"prompt": "a", "max_tokens": 2, "logit_bias": {"258": 100}}
    for skip, text in ((True, ""), (False, "<|user|><|user|>")):
        answer = await ask(api, body | {"skip_special_tokens": skip, "logprobs": 0})
        (choice,) = answer["choices"]
        assert choice["text"] == text
        assert choice["logprobs"]["tokens"] == ["<|user|>"] * 2
        assert choice["logprobs"]["text_offset"] == [0, len(text) // 2]
    stopped = await ask(api, body | {"skip_special_tokens": False, "stop": "|us"})
    assert stopped["choices"][0]["text"] == "<"


async def test_the_token_that_ends_a_text_is_reported_as_its_last(
    api: Api, tiny_model: Path
) -> None:
    """As harnesses expect: one more token than the prompt has, whichever is drawn."""
    body = {"prompt": "ab", "max_tokens": 3, "logit_bias": {"260": 100}, "logprobs": 1}
    body |= {"return_token_ids": True}
    for echo in (False, True):
        (choice,) = (await ask(api, body | {"echo": echo}))["choices"]
        assert choice["finish_reason"] == "stop"
        assert choice["text"] == "ab" * echo
        assert choice["token_ids"] == [260]
        assert choice["logprobs"]["tokens"][-1] == "<|end|>"
        assert len(choice["logprobs"]["tokens"]) == 1 + 3 * echo
        assert choice["logprobs"]["text_offset"][-1] == len(choice["text"])
        events = await ask(api, body | {"echo": echo, "stream": True})
        (streamed,) = put_together(events)
        assert streamed["logprobs"] == choice["logprobs"]
        assert events[-1]["choices"][0]["token_ids"] == [260]


async def test_a_chat_reports_the_token_that_ends_it(api: Api) -> None:
    """Usage counts it, so its log-probability is listed too, as in completions."""
    body = {
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 3,
        "logit_bias": {"260": 100},
        "logprobs": True,
        "return_token_ids": True,
    }
    (choice,) = (await ask(api, body, CHAT))["choices"]
    assert (choice["finish_reason"], choice["token_ids"]) == ("stop", [260])
    assert [token["token"] for token in choice["logprobs"]["content"]] == ["<|end|>"]
    events = await ask(api, body | {"stream": True}, CHAT)
    assert [e["choices"][0]["finish_reason"] for e in events] == [None, "stop"]
    assert events[-1]["choices"][0]["token_ids"] == [260]
