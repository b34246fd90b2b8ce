"""DSPy against a running server: signatures by its two adapters, in Chat Completions and Responses.

usage: dspy_client.py [URL | --scripted]

Needs `dspy`.
"""

import os
from typing import Any, Literal

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the network for prices

import dspy
from serving import check, server

ANSWERS = """
[[rules]]
[rules.answer.json]
reasoning = "It is said."
city = "Oslo"
next_thought = "I look."
next_tool_name = "weather"
next_tool_args = { city = "Oslo" }
"""


class Where(dspy.Signature):
    """Say where the animal lives."""

    animal: str = dspy.InputField()
    city: Literal["Oslo", "Rome"] = dspy.OutputField()


def model(url: str, **options: Any) -> dspy.LM:
    given = {"max_tokens": 300, "temperature": 0, "cache": False, "num_retries": 0} | options
    return dspy.LM("openai/fireside", api_base=f"{url}/v1", api_key="none", **given)


def a_text(url: str) -> None:
    (answer,) = model(url)("Where does the fox live?")
    assert answer


def a_signature_as_json(url: str) -> None:
    with dspy.context(lm=model(url), adapter=dspy.JSONAdapter()):
        assert dspy.Predict(Where)(animal="fox").city in ("Oslo", "Rome")


def a_signature_as_json_by_responses(url: str) -> None:
    with dspy.context(lm=model(url, model_type="responses"), adapter=dspy.JSONAdapter()):
        assert dspy.Predict(Where)(animal="fox").city in ("Oslo", "Rome")


def reasons_and_answers(url: str) -> None:
    with dspy.context(lm=model(url), adapter=dspy.JSONAdapter()):
        dspy.ChainOfThought(Where)(animal="fox")


def with_a_tool(url: str) -> None:
    def weather(city: Literal["Oslo", "Rome"]) -> str:
        """Return the weather of a city."""
        return "snow"

    with dspy.context(lm=model(url), adapter=dspy.JSONAdapter(use_native_function_calling=True)):
        agent = dspy.ReAct(Where, tools=[weather], max_iters=2)
        agent(animal="fox")


if __name__ == "__main__":
    steps = (
        a_text,
        a_signature_as_json,
        a_signature_as_json_by_responses,
        reasons_and_answers,
        with_a_tool,
    )
    with server(context=8192, answers=ANSWERS) as running:
        check("DSPy", running, steps)
