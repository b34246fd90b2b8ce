"""smolagents against a running server: a tool-calling agent, a model that streams, and a schema.

usage: smolagents_client.py [URL]

Needs `smolagents[openai]`.
"""

from typing import Any

from serving import check, server
from smolagents import CodeAgent, OpenAIModel, ToolCallingAgent, tool


@tool
def weather(city: str) -> str:
    """Return the weather of a city.

    Args:
        city: The name of the city.
    """
    return f"It snows in {city[:20]}."


def model(url: str, **options: Any) -> OpenAIModel:
    given = {"max_tokens": 300, "temperature": 0} | options
    return OpenAIModel("fireside", api_base=f"{url}/v1", api_key="none", **given)


def a_text(url: str) -> None:
    message = {"role": "user", "content": [{"type": "text", "text": "Who are you?"}]}
    whole = model(url).generate([message])
    parts = model(url).generate_stream([message])
    assert "".join(part.content or "" for part in parts) == whole.content


def an_agent_that_calls(url: str) -> None:
    agent = ToolCallingAgent(tools=[weather], model=model(url), max_steps=2, verbosity_level=0)
    agent.run("What is the weather in Oslo?")
    errors = [step.error for step in agent.memory.steps if getattr(step, "error", None)]
    assert not [error for error in errors if "400" in str(error) or "500" in str(error)], errors


def an_agent_that_streams(url: str) -> None:
    agent = ToolCallingAgent(
        tools=[weather], model=model(url), max_steps=2, verbosity_level=0, stream_outputs=True
    )
    assert list(agent.run("What is the weather in Oslo?", stream=True))


def an_agent_that_writes_code(url: str) -> None:
    agent = CodeAgent(
        tools=[weather],
        model=model(url),
        max_steps=1,
        verbosity_level=0,
        use_structured_outputs_internally=True,
    )
    agent.run("What is the weather in Oslo?")
    errors = [step.error for step in agent.memory.steps if getattr(step, "error", None)]
    assert not [error for error in errors if "400" in str(error) or "500" in str(error)], errors


if __name__ == "__main__":
    steps = (a_text, an_agent_that_calls, an_agent_that_streams, an_agent_that_writes_code)
    with server(context=8192) as running:
        check("smolagents", running, steps)
