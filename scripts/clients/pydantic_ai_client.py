"""pydantic-ai against a running server: agents with output types, tools, streams, and a history.

usage: pydantic_ai_client.py [URL | --scripted]

Needs `pydantic-ai-slim[openai,anthropic]`.

With `--scripted` all pass by Chat Completions and Responses. By Messages none does with pydantic-ai
2.38 and anthropic 2.14: it fails before it sends anything (BetaMessageParam is a union there).
"""

import asyncio
import sys
from typing import Any, Literal

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, PromptedOutput, ToolOutput
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from serving import check, server

ASKED = "Where does the fox live?"
SCRIPTED = "--scripted" in sys.argv
SETTINGS: Any = {"max_tokens": 300, "temperature": 0}
ANSWERS = """
[[rules]]
match = { tools = ["weather"], tool_results = [], turn = 1 }
answer.tool_calls = [{ name = "weather", arguments = { city = "Oslo" } }]

[[rules]]
match = { tools = ["final_result"] }
answer.tool_calls = [{ name = "final_result", arguments = { city = "Oslo", rooms = 2 } }]

[[rules]]
match = { tools = ["final_result_Place"] }
answer.tool_calls = [{ name = "final_result_Place", arguments = { city = "Rome" } }]

[[rules]]
answer.json = { city = "Oslo", rooms = 2 }
"""


class Place(BaseModel):
    """Where an animal lives."""

    city: Literal["Oslo", "Rome"]
    rooms: Literal[1, 2, 3] = 1


def chats(url: str) -> Model:
    return OpenAIChatModel(
        "fireside", provider=OpenAIProvider(base_url=f"{url}/v1", api_key="none")
    )


def responses(url: str) -> Model:
    return OpenAIResponsesModel(
        "fireside", provider=OpenAIProvider(base_url=f"{url}/v1", api_key="none")
    )


def messages(url: str) -> Model:
    return AnthropicModel("fireside", provider=AnthropicProvider(base_url=url, api_key="none"))


def gives_text(model: Model) -> None:
    agent = Agent(model, model_settings=SETTINGS, instructions="You are kind.", retries=0)
    first = agent.run_sync(ASKED)
    agent.run_sync("And then?", message_history=first.all_messages())

    async def stream() -> str:
        async with agent.run_stream(ASKED) as streamed:
            return "".join([text async for text in streamed.stream_text(delta=True)])

    assert asyncio.run(stream()).strip() == first.output.strip()


def by_a_tool(model: Model) -> None:
    agent = Agent(model, output_type=ToolOutput(Place), model_settings=SETTINGS, retries=0)
    assert isinstance(agent.run_sync(ASKED).output, Place)


def by_a_schema(model: Model) -> None:
    agent = Agent(model, output_type=NativeOutput(Place), model_settings=SETTINGS, retries=0)
    assert isinstance(agent.run_sync(ASKED).output, Place)


def by_one_of_two(model: Model) -> None:
    class Animal(BaseModel):
        kind: Literal["fox", "hen"]

    types = [ToolOutput(Place), ToolOutput(Animal)]
    agent = Agent(model, output_type=types, model_settings=SETTINGS, retries=0)
    assert isinstance(agent.run_sync(ASKED).output, Place | Animal)


def calls_a_function(model: Model) -> None:
    agent = Agent(model, output_type=ToolOutput(Place), model_settings=SETTINGS, retries=0)
    called = []

    @agent.tool_plain
    def weather(city: Literal["Oslo", "Rome"]) -> str:
        """Return the weather of a city."""
        called.append(city)
        return "snow"

    result = agent.run_sync(ASKED)
    agent.run_sync("And now?", message_history=result.all_messages())
    assert called or not SCRIPTED


def by_words(model: Model) -> None:
    agent = Agent(model, output_type=PromptedOutput(Place), model_settings=SETTINGS, retries=0)
    assert isinstance(agent.run_sync(ASKED).output, Place)


def steps() -> Any:
    for make in (chats, responses, messages):
        for ask in (gives_text, by_a_tool, by_a_schema, by_one_of_two, calls_a_function, by_words):

            def step(url: str, make: Any = make, ask: Any = ask) -> None:
                ask(make(url))

            step.__name__ = f"{ask.__name__} ({make.__name__})"
            yield step


if __name__ == "__main__":
    with server(context=8192, answers=ANSWERS) as running:
        check("pydantic-ai", running, tuple(steps()))
