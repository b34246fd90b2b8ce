"""OpenAI's Agents SDK against a running server: tools, output types, handoffs, streams.

usage: openai_agents_client.py [URL]

Needs `openai-agents`. Each check runs by Responses and by Chat Completions.
"""

import asyncio
from typing import Any, Literal

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel
from serving import check, server

set_tracing_disabled(True)
ASKED = "What is the weather in Oslo?"


class Weather(BaseModel):
    city: Literal["Oslo", "Rome"]
    sky: Literal["snow", "sun"]


@function_tool
def weather(city: Literal["Oslo", "Rome"]) -> str:
    """Return the weather of a city."""
    return "snow"


def settings(**options: Any) -> ModelSettings:
    return ModelSettings(max_tokens=300, temperature=0, **options)


async def text(model: Any) -> None:
    agent = Agent(name="Fox", instructions="You are a fox.", model=model, model_settings=settings())
    whole = await Runner.run(agent, ASKED)
    streamed = Runner.run_streamed(agent, ASKED)
    kinds = [event.type async for event in streamed.stream_events()]
    assert "raw_response_event" in kinds
    assert streamed.final_output == whole.final_output
    await Runner.run(agent, [*whole.to_input_list(), {"role": "user", "content": "And then?"}])


async def output_type(model: Any) -> None:
    agent = Agent(name="Fox", model=model, model_settings=settings(), output_type=Weather)
    assert isinstance((await Runner.run(agent, ASKED)).final_output, Weather)


async def tool(model: Any) -> None:
    agent = Agent(
        name="Fox",
        model=model,
        model_settings=settings(tool_choice="required", parallel_tool_calls=False),
        tools=[weather],
        tool_use_behavior="run_llm_again",
    )
    result = await Runner.run(agent, ASKED, max_turns=3)
    assert any(item.type == "tool_call_output_item" for item in result.new_items)
    streamed = Runner.run_streamed(agent, ASKED, max_turns=3)
    assert [event async for event in streamed.stream_events()]


async def handoff(model: Any) -> None:
    other = Agent(name="Owl", model=model, model_settings=settings())
    agent = Agent(
        name="Fox",
        model=model,
        model_settings=settings(tool_choice="transfer_to_owl"),
        handoffs=[other],
    )
    result = await Runner.run(agent, ASKED, max_turns=3)
    assert result.last_agent.name == "Owl"


async def knobs(model: Any) -> None:
    """What the SDK may be set to send, of which the model knows nothing."""
    options = settings(
        verbosity="low",
        truncation="auto",
        metadata={"a": "b"},
        store=False,
        include_usage=True,
        top_logprobs=2 if isinstance(model, OpenAIResponsesModel) else None,
        response_include=["reasoning.encrypted_content", "message.output_text.logprobs"],
    )
    await Runner.run(Agent(name="Fox", model=model, model_settings=options), ASKED)


def steps() -> Any:
    for kind in (OpenAIResponsesModel, OpenAIChatCompletionsModel):
        for ask in (text, output_type, tool, handoff, knobs):

            def step(url: str, kind: Any = kind, ask: Any = ask) -> None:
                async def run() -> None:
                    async with AsyncOpenAI(
                        base_url=f"{url}/v1", api_key="none", max_retries=0
                    ) as client:
                        await ask(kind("fireside", client))

                asyncio.run(run())

            step.__name__ = f"{ask.__name__} ({kind.__name__})"
            yield step


if __name__ == "__main__":
    with server() as running:
        check("Agents SDK", running, tuple(steps()))
