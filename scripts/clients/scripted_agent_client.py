"""An agent with two tool calls against scripted answers: Agents SDK and LangChain, every API.

usage: scripted_agent_client.py

Needs `openai-agents`, `langchain-openai` and `langchain-anthropic`. Each agent runs streamed and
not, against a server that is started with the script that is written here.
"""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI
from serving import check, server

set_tracing_disabled(True)
QUESTION = "What is the weather in Oslo and in Rome?"
FINAL = "Rain in Oslo, sun in Rome."
SCRIPT = f"""
[[rules]]
match = {{ turn = 1, contains = "weather", tools = ["weather"] }}
answer.text = "I'll look."
answer.tool_calls = [{{ name = "weather", arguments = {{ city = "Oslo" }} }}]

[[rules]]
match = {{ turn = 2, tool_results = "rain in Oslo" }}
answer.tool_calls = [{{ name = "weather", arguments = {{ city = "Rome" }} }}]

[[rules]]
match = {{ turn = 3, tool_results = "rain in Rome" }}
answer = "{FINAL}"
"""


@function_tool
def weather(city: str) -> str:
    """Return the weather of a city."""
    return f"rain in {city}"


@tool("weather")
def langchain_weather(city: str) -> str:
    """Return the weather of a city."""
    return f"rain in {city}"


async def with_agents_sdk(url: str, kind: Any, *, streamed: bool) -> None:
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        agent = Agent(name="Fox", model=kind("gpt-5", client), tools=[weather])
        if streamed:
            result: Any = Runner.run_streamed(agent, QUESTION)
            kinds = [event.type async for event in result.stream_events()]
            assert kinds.count("raw_response_event") > 20
        else:
            result = await Runner.run(agent, QUESTION)
        assert result.final_output == FINAL
        outputs = [i.output for i in result.new_items if i.type == "tool_call_output_item"]
        assert outputs == ["rain in Oslo", "rain in Rome"]


def with_langchain(model: Any, *, streamed: bool) -> None:
    bound = model.bind_tools([langchain_weather])
    messages: list[Any] = [HumanMessage(QUESTION)]
    results = []
    for _ in range(3):
        if streamed:
            answer = None
            for chunk in bound.stream(messages):
                answer = chunk if answer is None else answer + chunk
        else:
            answer = bound.invoke(messages)
        assert answer is not None
        messages.append(answer)
        for call in answer.tool_calls:
            results.append(langchain_weather.invoke(call["args"]))
            messages.append(ToolMessage(results[-1], tool_call_id=call["id"]))
    assert results == ["rain in Oslo", "rain in Rome"]
    assert messages[-1].text == FINAL


def langchain_model(url: str, name: str) -> Any:
    options: dict[str, Any] = {"api_key": "none", "max_retries": 0}
    if name == "messages":
        return ChatAnthropic(model="claude-test", base_url=url, max_tokens=500, **options)
    by_responses = name == "responses"
    return ChatOpenAI(
        model="gpt-5", base_url=f"{url}/v1", use_responses_api=by_responses, **options
    )


def steps() -> Iterator[Any]:
    for streamed in (False, True):
        how = "streamed" if streamed else "whole"
        for kind in (OpenAIResponsesModel, OpenAIChatCompletionsModel):

            def step(url: str, kind: Any = kind, streamed: bool = streamed) -> None:
                asyncio.run(with_agents_sdk(url, kind, streamed=streamed))

            step.__name__ = f"Agents SDK, {kind.__name__}, {how}"
            yield step
        for name in ("chat", "responses", "messages"):

            def run(url: str, name: str = name, streamed: bool = streamed) -> None:
                with_langchain(langchain_model(url, name), streamed=streamed)

            run.__name__ = f"LangChain, {name}, {how}"
            yield run


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "script.toml"
        path.write_text(SCRIPT)
        with server(flags=("--script", str(path), "--script-only")) as running:
            check("scripted agent", running, tuple(steps()))
