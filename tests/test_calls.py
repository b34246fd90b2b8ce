"""Calls within a text: read the same however they are cut, and nothing of a tag in the content."""

import json
from itertools import accumulate, pairwise
from typing import Any

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from test_grammars import parts, walk

from streamtok.api.constraints.compiler import Constraints
from streamtok.api.openai.history import wanted
from streamtok.api.openai.types import (
    ChatRequest,
    Function,
    FunctionName,
    Message,
    NamedSchema,
    NamedTool,
    SchemaFormat,
    Tool,
    ToolChoice,
)
from streamtok.errors import InvalidRequest
from streamtok.messages import Constraint
from streamtok.text.tool_calls.prompt import as_text
from streamtok.text.tool_calls.reader import CLOSE, OPEN, CallReader, write_call

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text('a"\\{}[]<é😀\n', max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a"{', max_size=2), inner),
    max_leaves=4,
)
CALLS = st.tuples(
    st.sampled_from(["f", "get_weather", "a-b"]),
    st.dictionaries(st.text('a"}', max_size=3), VALUES, max_size=3),
    st.sampled_from(["\n", ""]),
    st.sampled_from([" ", ""]),
)
CONTENT = st.text("ab <tool_call>\n{", max_size=20).filter(lambda text: OPEN not in text)


def read(pieces: list[str]) -> tuple[str, list[list[str]], CallReader]:
    """Return the content and the calls of a text, and what has read it."""
    reader, content, calls = CallReader(), "", []
    for piece in pieces:
        new, news = reader.feed(piece)
        content += new
        for part in news:
            if part.name:
                assert part.number == len(calls)
                calls.append([part.name, ""])
            assert part.number == len(calls) - 1
            calls[-1][1] += part.arguments
    return content, calls, reader


def cut(text: str, lengths: list[int]) -> list[str]:
    places = [0, *accumulate(lengths)]
    pieces = [text[start:stop] for start, stop in pairwise(places)]
    return [*pieces, text[places[-1] :]]


@given(
    content=CONTENT,
    calls=st.lists(CALLS, max_size=3),
    lengths=st.lists(st.integers(0, 9), max_size=60),
)
def test_a_text_is_read_the_same_however_it_is_cut(
    content: str, calls: list[Any], lengths: list[int]
) -> None:
    text, expected = content, []
    for name, arguments, line, space in calls:
        value = json.dumps(arguments, ensure_ascii=False)
        expected.append([name, value])
        text += f'{OPEN}{line}{{"name":{space}"{name}",{space}"arguments":{space}{value}}}'
        text += f"{line}{CLOSE}{line}"
    said, made, reader = read(cut(text, lengths))
    held = (
        ""
        if calls
        else next((OPEN[:n] for n in range(len(OPEN), 0, -1) if content.endswith(OPEN[:n])), "")
    )
    assert said + held == content  # what may become a tag is not told
    assert made == expected
    assert (reader.made, reader.begun) == (len(calls), False)


def test_what_is_certain_is_told_at_once() -> None:
    reader = CallReader()
    told = [
        reader.feed(letter) for letter in f'a<b{OPEN}{{"name": "f", "arguments": {{"a": "}}"}}}}'
    ]
    contents = [content for content, _ in told]
    assert contents[:3] == ["a", "", "<b"]
    assert not any(contents[3:])
    known = [part for _, news in told for part in news]
    assert known[0].name == "f"
    assert "".join(part.arguments for part in known) == '{"a": "}"}'
    assert all(len(part.arguments) == 1 for part in known[1:])
    assert (reader.made, reader.begun) == (0, True)
    assert reader.feed(CLOSE) == ("", ())
    assert (reader.made, reader.begun) == (1, False)


# The grammar of a text with calls

CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS = (
    Tool(Function("weather", parameters=CITY, strict=True)),
    Tool(Function("weather_now", parameters=CITY | {"required": []}, strict=True)),
    Tool(Function("now")),
)
WEATHER = '{"name": "weather", "arguments": {"city": "Oslo"}}'


def offered(choice: ToolChoice | None, *, parallel: bool = True, answer: Any = None) -> Constraint:
    fields = ChatRequest(
        messages=[Message("user", "x")],
        tools=list(TOOLS),
        tool_choice=choice,
        parallel_tool_calls=parallel,
        response_format=answer,
    )
    made = Constraints(None).make(wanted(fields)).constraint
    assert made is not None
    return made


def accepts(made: Constraint, text: str) -> bool:
    """Return whether `text` is a whole answer."""
    tokenizer, grammars = parts("bytes")
    guide = grammars.start(made)
    for token in tokenizer.encode(text, special=False):
        if not guide.allowed()[token]:
            return False
        if guide.take(token):
            return True
    return bool(guide.allowed()[256])


ONE, TWO = f"{OPEN}{WEATHER}{CLOSE}", f"{OPEN}\n{WEATHER}\n{CLOSE}\n{OPEN}\n{WEATHER}\n{CLOSE}"


@pytest.mark.parametrize(
    ("choice", "parallel", "text", "accepted"),
    [
        ("auto", True, "", True),
        ("auto", True, "Hello <b> there <tool> \n{", True),
        ("auto", True, "Hello <", False),  # the end may not come within what may be a tag
        ("auto", True, f"Hello {OPEN[:-1]}", False),
        ("auto", True, f"Hello {OPEN}", False),
        ("auto", True, f"Hello {ONE}", True),
        ("auto", True, f"{OPEN[:4]}{ONE}", True),
        ("auto", True, f"Hello {ONE} bye", False),
        ("auto", True, f"Hello {TWO}", True),
        ("auto", False, f"Hello {TWO}", True),  # which ends behind the first
        ("auto", True, f"Hello {OPEN}{WEATHER.replace('Oslo', 'Bonn')}", False),
        ("auto", True, f'{OPEN}{{"name": "none"', False),
        ("required", True, "", False),
        ("required", True, "Hello", False),
        ("required", True, ONE, True),
        ("required", True, TWO, True),
        ("required", True, f'{OPEN}{{"name": "now", "arguments": {{}}}}{CLOSE}', True),
        ("required", True, f'{OPEN}{{"name": "now", "arguments": {{"a": 1}}', False),
        ("required", True, f'{OPEN}{{"name": "weather_now", "arguments": {{}}}}{CLOSE}', True),
        (NamedTool(FunctionName("now")), True, ONE, False),
        (NamedTool(FunctionName("weather")), True, ONE, True),
    ],
    ids=str,
)
def test_what_an_answer_may_be(
    choice: ToolChoice, parallel: bool, text: str, accepted: bool
) -> None:
    assert accepts(offered(choice, parallel=parallel), text) == accepted


def test_one_call_is_the_end_where_more_are_not_wanted() -> None:
    tokenizer, grammars = parts("bytes")
    choices: list[tuple[ToolChoice, bool, bool]] = [
        ("required", False, True),
        ("required", True, False),
        (NamedTool(FunctionName("weather")), True, True),
    ]
    for choice, parallel, ended in choices:
        guide = grammars.start(offered(choice, parallel=parallel))
        ends = [guide.take(token) for token in tokenizer.encode(ONE, special=False)]
        assert ends == [False] * (len(ONE) - 1) + [ended]


def test_a_form_of_the_answer_holds_beside_calls() -> None:
    form = SchemaFormat(NamedSchema("it", {"enum": [1, "<"]}))
    for text, accepted in (("1", True), ('"<"', True), ("2", False), ("", False), (ONE, True)):
        assert accepts(offered("auto", answer=form), text) == accepted
    assert not accepts(offered("required", answer=form), "1")


@examples(10)
@given(seed=st.integers(0, 99), kind=st.sampled_from(["bytes", "byte fallback", "shipped"]))
def test_every_way_through_is_read_as_calls(seed: int, kind: str) -> None:
    text, complete = walk(kind, offered("required", parallel=False), seed)
    content, calls, reader = read([text])
    assert complete
    assert (content, reader.made) == ("", 1)
    ((name, arguments),) = calls
    assert name in ("weather", "weather_now", "now")
    assert json.loads(arguments) in ({}, {"city": "Oslo"}, {"city": "Rome"})


# Chats as text


def test_a_template_that_knows_no_tools_is_told_of_them_as_text() -> None:
    called = {"name": "f", "arguments": {"é": 1}}
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "so", "tool_calls": [{"function": called}] * 2},
        {"role": "tool", "content": "1", "tool_call_id": "a"},
        {"role": "tool", "content": "2", "tool_call_id": "b"},
        {"role": "tool", "content": "", "tool_call_id": "c"},
        {"role": "user", "content": [{"type": "text", "text": "And?"}]},
    ]
    call = write_call("f", '{"é": 1}')
    results = [f"<tool_response>\n{n}\n</tool_response>" for n in ("1", "2", "")]
    told = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": f"so\n{call}\n{call}"},
        {"role": "user", "content": "\n".join([*results, "And?"])},
    ]
    assert as_text(messages, []) == told
    described = as_text(messages, [{"type": "function", "function": {"name": "f"}}])
    assert described[1:] == told
    assert described[0]["role"] == "system"
    assert '\n{"type": "function", "function": {"name": "f"}}\n' in described[0]["content"]
    system = {"role": "system", "content": "Be brief."}
    both = as_text([system, *messages], [{"name": "f"}])
    assert both[0]["content"].startswith("Be brief.\n\nYou can call functions.")
    assert both[1:] == told
    assert read([call])[1] == [["f", '{"é": 1}']]  # as the model itself is to write it


@pytest.mark.parametrize(
    ("tools", "choice", "place"),
    [
        ((), "required", "tool_choice"),
        ((), NamedTool(FunctionName("f")), "tool_choice"),
        (TOOLS, NamedTool(FunctionName("f")), "tool_choice.function.name"),
        ((*TOOLS, TOOLS[1]), None, "tools[3].function.name"),
        (
            (Tool(Function("f", parameters={"type": "string"})),),
            None,
            "tools[0].function.parameters.type",
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(
    tools: tuple[Tool, ...], choice: ToolChoice | None, place: str
) -> None:
    fields = ChatRequest(messages=[Message("user", "x")], tools=list(tools), tool_choice=choice)
    with pytest.raises(InvalidRequest) as caught:
        Constraints(None).make(wanted(fields))
    assert caught.value.param == place
