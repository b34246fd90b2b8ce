"""LangChain against a running server: streams, leaving one, a tool call, JSON by a schema.

usage: langchain_client.py URL

Needs `langchain-openai`.
"""

import asyncio
import json
import sys
import urllib.request
from typing import Literal

from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

STORY = "Tell me a story about a fox and a lantern."


class Weather(BaseModel):
    """The weather of a city."""

    city: Literal["Oslo", "Rome"]


class Client:
    """LangChain, and the server's books."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.options = {"base_url": f"{url}/v1", "api_key": "none", "max_retries": 0}

    def model(self, **options: object) -> ChatOpenAI:
        return ChatOpenAI(model="fireside", **self.options, **options)  # type: ignore[arg-type]

    def cancelled(self) -> int:
        """Return how many answers were given up."""
        with urllib.request.urlopen(f"{self.url}/v1/usage?group_by=finish_reason") as answer:
            sums = {row["group"]: row["requests"] for row in json.load(answer)["data"]}
        return int(sums.get("cancelled", 0))


def streams(client: Client) -> None:
    model = client.model(temperature=0, max_tokens=20, stream_usage=True)
    chunks = list(model.stream(STORY))
    whole = model.invoke(STORY)
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert sum((c.usage_metadata or {}).get("output_tokens", 0) for c in chunks) == 20
    assert whole.response_metadata["finish_reason"] == "length"


def leaves(client: Client) -> None:
    model = client.model(max_tokens=900, extra_body={"ignore_eos": True})

    async def leave() -> None:
        stream = model.astream(STORY)
        async for chunk in stream:
            if chunk.text:
                break
        await stream.aclose()  # type: ignore[attr-defined]

    before = client.cancelled()
    asyncio.run(leave())
    while client.cancelled() == before:
        pass


def calls(client: Client) -> None:
    model = client.model().bind_tools([Weather], tool_choice="Weather", strict=True)
    (call,) = model.invoke(STORY).tool_calls
    assert call["name"] == "Weather"
    Weather.model_validate(call["args"])
    gathered = None
    for chunk in model.stream(STORY):
        gathered = chunk if gathered is None else gathered + chunk
    assert gathered is not None
    Weather.model_validate(gathered.tool_calls[0]["args"])


def keeps_to_a_schema(client: Client) -> None:
    model = client.model(max_tokens=60).with_structured_output(Weather, method="json_schema")
    assert isinstance(model.invoke(STORY), Weather)


def responds(client: Client) -> None:
    model = client.model(use_responses_api=True, temperature=0)
    whole = model.invoke("Who are you?")
    assert "".join(chunk.text for chunk in model.stream("Who are you?")) == whole.text


def embeds(client: Client) -> None:
    space = OpenAIEmbeddings(
        model="fireside",
        check_embedding_ctx_length=False,  # else it counts tokens as OpenAI's models do
        **client.options,  # type: ignore[arg-type]
    )
    assert len(space.embed_documents(["a fox", "a lantern"])) == 2


if __name__ == "__main__":
    running = Client(sys.argv[1])
    for step in (streams, leaves, calls, keeps_to_a_schema, responds, embeds):
        step(running)
        print(f"LangChain: {step.__name__}")
