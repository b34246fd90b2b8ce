"""The official client for Python against a real server: all its ways to stream, and to leave."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest

from streamtok.testing import RunningServer

STORY: Any = [{"role": "user", "content": "Tell me a story about a fox and a lantern."}]
CHAT: dict[str, Any] = {"model": "fireside", "messages": STORY, "temperature": 0}
TEXT: dict[str, Any] = {"model": "fireside", "prompt": "Once upon a time", "temperature": 0}
ENDLESS = {"ignore_eos": True}
SENTENCE: dict[str, Any] = {"max_tokens": 200, "stop": "."}  # the helpers raise where it is cut


@pytest.fixture
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def async_client(server: RunningServer) -> AsyncIterator[openai.AsyncOpenAI]:
    url = f"{server.url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


# Streaming helpers


def test_the_helper_for_streams_puts_the_message_together(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**CHAT, **SENTENCE, logprobs=True)
    options: dict[str, Any] = {"stream_options": {"include_usage": True}, "logprobs": True}
    with client.chat.completions.stream(**CHAT, **SENTENCE, **options) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    assert final.choices[0].message.content == whole.choices[0].message.content
    assert final.choices[0].finish_reason == whole.choices[0].finish_reason == "stop"
    assert final.usage == whole.usage
    assert final.choices[0].logprobs is not None
    assert whole.choices[0].logprobs is not None
    assert final.choices[0].logprobs.content == whole.choices[0].logprobs.content
    kinds = [event.type for event in events]
    assert kinds.count("content.delta") > 3
    assert kinds.count("content.done") == kinds.count("logprobs.content.done") == 1


async def test_the_asynchronous_helper_does_too(async_client: openai.AsyncOpenAI) -> None:
    text = ""
    async with async_client.chat.completions.stream(**CHAT, **SENTENCE, n=2) as stream:
        async for event in stream:
            if event.type == "content.delta":
                text = event.snapshot
        final = await stream.get_final_completion()
    assert [choice.message.content for choice in final.choices] == [text, text]


# Responses as they are


def test_a_raw_response_has_headers_and_the_same_stream(client: openai.OpenAI) -> None:
    raw = client.completions.with_raw_response.create(**TEXT, max_tokens=4, stream=True)
    assert raw.http_response.status_code == 200
    assert raw.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert raw.headers["x-request-id"]
    text = "".join(chunk.choices[0].text for chunk in raw.parse())
    assert text == client.completions.create(**TEXT, max_tokens=4).choices[0].text


def test_a_streaming_response_gives_its_lines(client: openai.OpenAI) -> None:
    create = client.chat.completions.with_streaming_response.create
    with create(**CHAT, max_tokens=3, stream=True) as response:
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith("data: {") for line in lines[:-1])
    assert len(lines) == 1 + 3 + 1 + 1  # the role, tokens, the reason, the end
    with create(**CHAT, max_tokens=3) as response:
        assert response.parse().choices[0].message.content


# Leaving


async def stats_are_zero(server: RunningServer, client: openai.AsyncOpenAI) -> bool:
    """Ask until nothing runs; each question is a round trip to the server."""
    for _ in range(10_000):
        await client.models.list()
        if server.app.engine.stats().running == 0:
            return True
    return False


async def test_closing_a_stream_ends_its_generation(
    server: RunningServer, client: openai.OpenAI, async_client: openai.AsyncOpenAI
) -> None:
    stream = client.completions.create(**TEXT, max_tokens=900, stream=True, extra_body=ENDLESS)
    next(stream)
    stream.close()
    assert await stats_are_zero(server, async_client)
    with client.chat.completions.stream(**CHAT, max_tokens=900, extra_body=ENDLESS) as events:
        next(iter(events))
    assert await stats_are_zero(server, async_client)


async def test_an_asynchronous_client_may_leave_too(
    server: RunningServer, async_client: openai.AsyncOpenAI
) -> None:
    create = async_client.chat.completions.create
    stream = await create(**CHAT, max_tokens=900, stream=True, extra_body=ENDLESS)
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    await stream.close()
    assert await stats_are_zero(server, async_client)


# Fields


def test_echo_with_scores_of_the_prompt(client: openai.OpenAI) -> None:
    answer = client.completions.create(**TEXT, max_tokens=0, echo=True, logprobs=1)
    (choice,) = answer.choices
    assert choice.text == TEXT["prompt"]
    assert choice.logprobs is not None
    assert choice.logprobs.token_logprobs is not None
    assert choice.logprobs.token_logprobs[0] is None
    assert all(value < 0 for value in choice.logprobs.token_logprobs[1:])


def test_best_of_and_extensions(client: openai.OpenAI) -> None:
    options: dict[str, Any] = TEXT | {"temperature": 1, "max_tokens": 4, "seed": 1}
    answer = client.completions.create(**options, n=2, best_of=4)
    assert len(answer.choices) == 2
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16
    extra = {"return_token_ids": True, "ignore_eos": True}
    told = client.completions.create(**options, extra_body=extra).choices[0]
    assert len(told.token_ids) == 4  # type: ignore[attr-defined]


def test_a_bad_field_is_named(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**TEXT, best_of=3, stream=True)
    assert caught.value.param == "best_of"
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**CHAT, store=True)
    assert (caught.value.param, caught.value.code) == ("store", "unsupported_parameter")
