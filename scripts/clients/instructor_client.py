"""instructor against a running server: objects by each of its ways to ask for one.

usage: instructor_client.py [URL | --scripted]

Needs `instructor`, `openai` and `anthropic`.
"""

from enum import StrEnum
from typing import Any, Literal

import instructor
import openai
from anthropic import Anthropic
from pydantic import BaseModel, Field
from serving import check, server

ASKED = [{"role": "user", "content": "A fox named Ada, three years old, lives in Oslo."}]

ANSWERS = """
[[rules]]
match = { tools = ["Call"] }
answer.tool_calls = [
  { name = "Call", arguments = { city = "Oslo" } },
  { name = "Call", arguments = { city = "Rome" } },
]

[[rules]]
match = { tools = ["Animal"] }
answer.tool_calls = [
  { name = "Animal", arguments = { kind = "fox", age = 3, address = { city = "Oslo" } } },
]

[[rules]]
match = { tools = ["PartialBeast"] }
answer.tool_calls = [{ name = "PartialBeast", arguments = { kind = "fox", age = 3 } }]

[[rules]]
answer.json = { kind = "fox", age = 3, address = { city = "Oslo" }, friends = ["owl"] }
"""


class City(StrEnum):
    OSLO = "Oslo"
    ROME = "Rome"


class Address(BaseModel):
    city: City
    street: Literal["Main Street", "Side Street"] | None = None


class Animal(BaseModel):
    """An animal; its schema says nothing of other properties, as frameworks leave it."""

    kind: Literal["fox", "hen"]
    age: Literal[1, 2, 3]
    address: Address
    friends: list[Literal["owl", "bear"]] = Field([], max_length=2)


class Beast(BaseModel):
    kind: Literal["fox", "hen"]
    age: Literal[1, 2, 3]


class Call(BaseModel):
    city: City


def client(url: str, mode: instructor.Mode) -> Any:
    return instructor.from_openai(
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0), mode=mode
    )


def made(client: Any, **options: Any) -> None:
    options = {"max_tokens": 400, "temperature": 0} | options
    answer = client.chat.completions.create(
        model="fireside", messages=ASKED, response_model=Animal, max_retries=0, **options
    )
    assert isinstance(answer, Animal)


def tools(url: str) -> None:
    made(client(url, instructor.Mode.TOOLS))


def tools_strict(url: str) -> None:
    made(client(url, instructor.Mode.TOOLS_STRICT))


def json_schema(url: str) -> None:
    made(client(url, instructor.Mode.JSON_SCHEMA))


def partial_objects(url: str) -> None:
    # Of a class without an enum: instructor 1.17 takes no string for one in parts
    parts = client(url, instructor.Mode.TOOLS).chat.completions.create_partial(
        model="fireside", messages=ASKED, response_model=Beast, max_retries=0, max_tokens=400
    )
    assert isinstance(Beast.model_validate(list(parts)[-1].model_dump()), Beast)


def parallel_tools(url: str) -> None:
    # It sends tool_choice "auto" whatever it is given, so that the model may talk instead
    from collections.abc import Iterable

    calls = client(url, instructor.Mode.PARALLEL_TOOLS).chat.completions.create(
        model="fireside",
        messages=ASKED,
        response_model=Iterable[Call],
        max_retries=0,
        max_tokens=900,
        tool_choice="required",
    )
    assert all(isinstance(call, Call) for call in calls)


def many_seeds(url: str) -> None:
    asked = client(url, instructor.Mode.TOOLS)
    for seed in range(20):
        made(asked, temperature=1, seed=seed)


def responses_tools(url: str) -> None:
    asked = client(url, instructor.Mode.RESPONSES_TOOLS)
    answer = asked.responses.create(
        model="fireside", input=ASKED, response_model=Animal, max_retries=0, max_output_tokens=400
    )
    assert isinstance(answer, Animal)


def anthropic_tools(url: str) -> None:
    asked = instructor.from_anthropic(
        Anthropic(base_url=url, api_key="none", max_retries=0), mode=instructor.Mode.ANTHROPIC_TOOLS
    )
    answer = asked.messages.create(
        model="fireside", messages=ASKED, response_model=Animal, max_retries=0, max_tokens=400
    )
    assert isinstance(answer, Animal)


if __name__ == "__main__":
    steps = (
        tools,
        tools_strict,
        json_schema,
        partial_objects,
        parallel_tools,
        many_seeds,
        responses_tools,
        anthropic_tools,
    )
    with server(answers=ANSWERS) as running:
        check("instructor", running, steps)
