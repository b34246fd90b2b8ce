"""LiteLLM against a running server: streams, leaving one, a tool call, JSON by a schema.

usage: litellm_client.py URL

Needs `litellm`. Asks by OpenAI's form and by Anthropic's.
"""

import asyncio
import json
import os
import sys
import urllib.error
import urllib.request
from typing import Any, Literal

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the network for prices

import litellm
from pydantic import BaseModel

STORY = [{"role": "user", "content": "Tell me a story about a fox and a lantern."}]


class Weather(BaseModel):
    """The weather of a city."""

    city: Literal["Oslo", "Rome"]


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}


def options(url: str) -> dict[str, Any]:
    return {
        "model": "openai/fireside",
        "api_base": f"{url}/v1",
        "api_key": "none",
        "messages": STORY,
        "num_retries": 0,
    }


def cancelled(url: str, answer_id: str) -> bool:
    """Return whether an answer was given up, as soon as it has ended."""
    while True:
        try:
            with urllib.request.urlopen(f"{url}/v1/usage/{answer_id}") as answer:
                return bool(json.load(answer)["finish_reason"] == "cancelled")
        except urllib.error.HTTPError:
            continue


def streams(url: str) -> None:
    asked = options(url) | {"temperature": 0, "max_tokens": 20}
    whole = litellm.completion(**asked)
    parts = list(litellm.completion(**asked, stream=True, stream_options={"include_usage": True}))
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert text == whole.choices[0].message.content
    assert parts[-1].usage.completion_tokens == 20


def leaves(url: str) -> None:
    async def leave() -> str:
        body = {"ignore_eos": True}
        asked = options(url) | {"max_tokens": 900, "stream": True, "extra_body": body}
        stream = await litellm.acompletion(**asked)
        async for part in stream:
            if part.choices[0].delta.content:
                break
        await stream.completion_stream.close()
        return str(part.id)

    assert cancelled(url, asyncio.run(leave()))


def calls(url: str) -> None:
    function = {"name": "weather", "parameters": SCHEMA, "strict": True}
    tools = [{"type": "function", "function": function}]
    asked = options(url) | {"tools": tools, "tool_choice": "required"}
    asked["parallel_tool_calls"] = False
    whole = litellm.completion(**asked)
    streamed = litellm.stream_chunk_builder(list(litellm.completion(**asked, stream=True)))
    for answer in (whole, streamed):
        assert answer is not None
        (call,) = answer.choices[0].message.tool_calls
        assert call.function.name == "weather"
        Weather.model_validate_json(call.function.arguments)


def keeps_to_a_schema(url: str) -> None:
    schema = {"name": "weather", "strict": True, "schema": SCHEMA}
    form = {"type": "json_schema", "json_schema": schema}
    answer = litellm.completion(**options(url), max_tokens=60, response_format=form)
    Weather.model_validate_json(answer.choices[0].message.content)


def speaks_as_anthropic_does(url: str) -> None:
    asked = options(url) | {"model": "anthropic/fireside", "api_base": url, "max_tokens": 20}
    asked["temperature"] = 0
    whole = litellm.completion(**asked)
    parts = list(litellm.completion(**asked, stream=True))
    text = "".join(part.choices[0].delta.content or "" for part in parts)
    assert text == whole.choices[0].message.content


if __name__ == "__main__":
    for step in (streams, leaves, calls, keeps_to_a_schema, speaks_as_anthropic_does):
        step(sys.argv[1])
        print(f"LiteLLM: {step.__name__}")
