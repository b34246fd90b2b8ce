"""OpenAI's chunks: the fast way to one with text gives what the plain way gives."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamtok.answer.events import Began, TextDelta, Usage
from streamtok.api.openai.chat import ChatShape
from streamtok.api.openai.completions import CompletionShape
from streamtok.api.openai.streaming import Chunks, Shape
from streamtok.api.openai.types import ChatRequest, CompletionRequest, Message, StreamOptions
from streamtok.testing import FakeClock, ScriptedEngine, make_services

BEGAN = Began("id-1", 17, 'a "model"\0', "fp", 2, Usage(3, 0, 0))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


class Slow:
    """A shape that says of itself that more than the text differs."""

    is_plain = False

    def __init__(self, shape: Shape) -> None:
        self._shape = shape

    def __getattr__(self, name: str) -> object:
        return getattr(self._shape, name)


@pytest.fixture(params=["chat", "tools", "completion"])
async def shape(request: pytest.FixtureRequest, tiny_model: Path) -> Shape:
    services = make_services(tiny_model, ScriptedEngine([]), FakeClock())
    if request.param == "completion":
        return CompletionShape(services.detokenizers, CompletionRequest(prompt="a"), [(1,), (2,)])
    fields = ChatRequest(messages=[Message(role="user", content="a")])
    return ChatShape(services, fields, (1, 2), calls=request.param == "tools")


@given(texts=st.lists(st.tuples(st.integers(0, 1), TEXTS), max_size=6), usage=st.booleans())
def test_a_text_has_the_same_chunk_on_both_ways(
    shape: Shape, texts: list[tuple[int, str]], usage: bool
) -> None:
    options = StreamOptions(include_usage=usage)
    fast, slow = Chunks(shape, options), Chunks(Slow(shape), options)  # type: ignore[arg-type]
    assert list(fast.chunks(BEGAN)) == list(slow.chunks(BEGAN))
    for index, text in texts:
        (chunk,) = fast.chunks(TextDelta(index, text, 1))
        assert [chunk] == list(slow.chunks(TextDelta(index, text, 1)))
        assert json.dumps(text)[1:-1] in json.dumps(json.loads(chunk[2]))
