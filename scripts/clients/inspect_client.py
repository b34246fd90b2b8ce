"""inspect-ai against a running server: models by its three ways to OpenAI's and Anthropic's APIs.

usage: inspect_client.py [URL]

Needs `inspect-ai`, `openai` and `anthropic`.

inspect-ai refuses to start its OpenAI providers with an older `openai` than it wants: in an
environment that it shares with other frameworks, look at that first.
"""

import asyncio
import os
import tempfile
from typing import Any

os.environ |= {"INSPECT_TELEMETRY": "", "INSPECT_DISPLAY": "none"}

import inspect_ai
from inspect_ai import Task
from inspect_ai.dataset import Sample
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    GenerateConfig,
    Model,
    ResponseSchema,
    get_model,
)
from inspect_ai.scorer import includes
from inspect_ai.solver import generate
from inspect_ai.tool import ToolFunction, ToolInfo, ToolParams
from inspect_ai.util import json_schema
from pydantic import BaseModel
from serving import check, server

SETTINGS: dict[str, Any] = {"max_tokens": 200, "temperature": 0, "max_retries": 0}
ASKED = [ChatMessageSystem(content="You are a fox."), ChatMessageUser(content="Who are you?")]


class Weather(BaseModel):
    snow: bool


def models(url: str) -> dict[str, Model]:
    openai: dict[str, Any] = {"base_url": f"{url}/v1", "api_key": "none"}
    return {
        "chats": get_model("openai/fireside", responses_api=False, **openai),
        "responses": get_model("openai/fireside", responses_api=True, **openai),
        "compatible": get_model("openai-api/local/fireside", **openai),
        "messages": get_model("anthropic/fireside", base_url=url, api_key="none"),
    }


async def text(model: Model) -> None:
    config = GenerateConfig(**SETTINGS, seed=1, stop_seqs=["END"])
    first = await model.generate(ASKED, config=config)
    assert first.error is None, first.error
    more = [*ASKED, first.message, ChatMessageUser(content="And then?")]
    assert (await model.generate(more, config=config)).error is None


async def tools(model: Model) -> None:
    schema = json_schema(Weather)
    info = ToolInfo(
        name="weather",
        description="Say what the weather is.",
        parameters=ToolParams(properties=schema.properties, required=schema.required),
    )
    config = GenerateConfig(**SETTINGS, parallel_tool_calls=False)
    answer = await model.generate(
        ASKED, tools=[info], tool_choice=ToolFunction(name="weather"), config=config
    )
    (call,) = answer.message.tool_calls or ()
    Weather.model_validate(call.arguments)
    result = ChatMessageTool(content="snow", tool_call_id=call.id, function=call.function)
    history = [*ASKED, answer.message, result]
    assert (await model.generate(history, tools=[info], config=config)).error is None


async def schema(model: Model) -> None:
    form = ResponseSchema(name="weather", json_schema=json_schema(Weather))
    answer = await model.generate(ASKED, config=GenerateConfig(**SETTINGS, response_schema=form))
    Weather.model_validate_json(answer.completion)


async def logprobs(model: Model) -> None:
    config = GenerateConfig(**SETTINGS, logprobs=True, top_logprobs=2)
    answer = await model.generate(ASKED, config=config)
    assert answer.choices[0].logprobs is not None
    assert answer.choices[0].logprobs.content


async def knobs(model: Model) -> None:
    config = GenerateConfig(
        **SETTINGS, reasoning_effort="low", reasoning_summary="auto", verbosity="low", top_k=20
    )
    assert (await model.generate(ASKED, config=config)).error is None


async def goes_on(model: Model) -> None:
    begun = [*ASKED, ChatMessageAssistant(content="I am")]
    assert (await model.generate(begun, config=GenerateConfig(**SETTINGS))).error is None


def evaluates(url: str) -> None:
    task = Task(
        dataset=[Sample(input="Say fox.", target="fox")], solver=generate(), scorer=includes()
    )
    model = models(url)["responses"]
    with tempfile.TemporaryDirectory() as folder:
        (log,) = inspect_ai.eval(task, model=model, display="none", log_dir=folder, **SETTINGS)
    assert log.status == "success", log.error


def steps() -> Any:
    for name in ("chats", "responses", "compatible", "messages"):
        for ask in (text, tools, schema, logprobs, knobs, goes_on):
            if (name, ask) in (("messages", logprobs),):  # that API has none
                continue

            def step(url: str, name: str = name, ask: Any = ask) -> None:
                asyncio.run(ask(models(url)[name]))

            step.__name__ = f"{ask.__name__} ({name})"
            yield step


if __name__ == "__main__":
    with server() as running:
        check("inspect-ai", running, (*steps(), evaluates))
