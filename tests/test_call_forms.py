"""The forms of calls: what is written is what the grammar allows, and is read as it was meant."""

import json
from collections.abc import Mapping
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from test_grammars import parts, walk
from test_tool_templates import load

from streamtok.engine.extras.grammars import json_schema
from streamtok.messages import Constraint
from streamtok.text.tool_calls.arguments_reader import Tags
from streamtok.text.tool_calls.forms import ArgumentsForm, CallForm, JsonForm, kind_of
from streamtok.text.tool_calls.grammar import calls_grammar
from streamtok.text.tool_calls.reader import TagReader, write_call

FUNCTION = ("<tool_call>", "\n<function=", ">\n", "<parameter=", ">\n", "\n</parameter>\n")
QWEN = ArgumentsForm(Tags(*FUNCTION, "</function>\n</tool_call>"))
GLM = ArgumentsForm(
    Tags(
        *("<tool_call>", "", "\n", "<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>\n"),
        "</tool_call>",
    )
)
GLM_5 = ArgumentsForm(
    Tags(
        *("<tool_call>", "", "", "<arg_key>", "</arg_key><arg_value>", "</arg_value>"),
        "</tool_call>",
    )
)
FORMS: dict[str, CallForm] = {"json": JsonForm(), "qwen": QWEN, "glm": GLM, "glm 5": GLM_5}
UNITS = {"Units": {"type": "string", "enum": ["celsius", "fahr<en>heit"]}}
WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "Where."},
        "days": {"type": "integer"},
        "units": {"$ref": "#/$defs/Units"},
        "near": {"type": "array", "items": {"$ref": "#/$defs/Units"}},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
    },
    "required": ["city"],
    "additionalProperties": False,
    "$defs": UNITS,
}
CLOSED = {  # of which every text is short
    "type": "object",
    "properties": {
        "units": {"allOf": [{"$ref": "#/$defs/Units"}]},
        "many": {"type": "boolean"},
        "what": {"anyOf": [{"enum": ["now", "then"]}, {"type": "null"}]},
    },
    "required": ["units", "many"],
    "additionalProperties": False,
    "$defs": UNITS,
}
NOTHING: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
SCHEMAS = {"get_weather": WEATHER, "get_weather_now": CLOSED, "now": NOTHING}


def guided(schemas: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schemas as constraints have them."""
    return {name: json.loads(json_schema(schema, "tools").text) for name, schema in schemas.items()}


def grammar(form: CallForm, **options: Any) -> Constraint:
    options = {"most": 3, "required": True} | options
    schemas = options.pop("schemas", SCHEMAS)
    return Constraint("lark", calls_grammar(form, guided(schemas), **options), "tools")


def write(form: CallForm, name: str, arguments: dict[str, Any]) -> str:
    if isinstance(form, ArgumentsForm):
        return form.write(name, arguments)
    return write_call(name, json.dumps(arguments, ensure_ascii=False))


def accepts(constraint: Constraint, text: str) -> bool:
    """Return whether `text` is a whole answer."""
    tokenizer, grammars = parts("bytes")
    guide = grammars.start(constraint)
    for token in tokenizer.encode(text, special=False):
        if not guide.allowed()[token]:
            return False
        if guide.take(token):
            return True
    return bool(guide.allowed()[256])


def read(reader: TagReader, pieces: list[str]) -> tuple[str, list[list[str]]]:
    content, calls = "", []
    for piece in pieces:
        new, news = reader.feed(piece)
        content += new
        for part in news:
            if part.name:
                assert part.number == len(calls)
                calls.append([part.name, ""])
            assert part.number == len(calls) - 1
            calls[-1][1] += part.arguments
    return content, calls


def cut(text: str, lengths: list[int]) -> list[str]:
    places = [0, *accumulate(lengths)]
    return [*(text[a:b] for a, b in pairwise(places)), text[places[-1] :]]


TEXT = st.text('a"\\{}</>\n é😀', max_size=9)
ARGUMENTS = st.fixed_dictionaries(
    {"city": TEXT},
    optional={
        "days": st.integers(-99, 10**9),
        "units": st.sampled_from(UNITS["Units"]["enum"]),
        "near": st.lists(st.sampled_from(UNITS["Units"]["enum"]), max_size=3),
        "note": TEXT.filter(lambda text: text != "null"),
    },
).map(lambda given: {key: given[key] for key in WEATHER["properties"] if key in given})


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@given(
    calls=st.lists(ARGUMENTS, min_size=1, max_size=3),
    content=st.sampled_from(["", "so ", "a < b\n"]),
    lengths=st.lists(st.integers(0, 9), max_size=80),
)
def test_calls_are_read_as_they_were_written_however_they_are_cut(
    form: CallForm, calls: list[dict[str, Any]], content: str, lengths: list[int]
) -> None:
    text = content + "\n".join(write(form, "get_weather", arguments) for arguments in calls)
    reader = form.reader(SCHEMAS)
    said, made = read(reader, cut(text, lengths))
    assert said == content
    assert [(name, json.loads(arguments)) for name, arguments in made] == [
        ("get_weather", arguments) for arguments in calls
    ]
    assert (reader.made, reader.begun) == (len(calls), False)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@examples(15)
@given(arguments=ARGUMENTS)
def test_what_is_written_is_allowed(form: CallForm, arguments: dict[str, Any]) -> None:
    one = write(form, "get_weather", arguments)
    assert accepts(grammar(form), one)
    assert accepts(grammar(form), f"{one}\n{one}{one}")
    assert accepts(grammar(form, required=False), f"so {one}")
    assert not accepts(grammar(form, required=False), f"so {one} bye")


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_what_does_not_fit_is_not_allowed(form: CallForm) -> None:
    def allowed(name: str, arguments: dict[str, Any], **options: Any) -> bool:
        return accepts(grammar(form, **options), write(form, name, arguments))

    good: dict[str, Any] = {"units": "celsius", "many": True}
    assert allowed("get_weather_now", good)
    assert allowed("now", {})
    assert allowed(
        "get_weather", {"city": "x", "note": None} if form is FORMS["json"] else {"city": "x"}
    )
    assert not allowed("get_weather_now", {"units": "celsius"})
    assert not allowed("get_weather_now", good | {"units": "kelvin"})
    assert not allowed("get_weather_now", good | {"many": 1})
    assert not allowed("get_weather_now", good | {"other": 1})
    assert not allowed("now", {"a": 1})
    assert not allowed("other", {})
    assert not allowed("get_weather", {"city": "x", "days": "2x"})
    assert not allowed("now", {}, schemas={"get_weather": WEATHER})
    plain = grammar(form, required=False)
    assert accepts(plain, "Hello <b> there <tool> \n{")
    assert not accepts(plain, "Hello <")
    assert not accepts(grammar(form), "Hello")
    number = grammar(form, required=False, answer='{"type": "integer"}')
    assert accepts(number, "7")
    assert not accepts(number, "seven")
    assert accepts(number, write(form, "now", {}))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("kind", ["bytes", "byte fallback", "shipped"])
def test_every_way_through_is_read_as_calls(form: CallForm, kind: str) -> None:
    schemas = {name: SCHEMAS[name] for name in ("get_weather_now", "now")}
    for seed in range(4):
        text, complete = walk(kind, grammar(form, schemas=schemas, most=2), seed)
        assert complete
        reader = form.reader(schemas)
        content, calls = read(reader, [text])
        assert (content, reader.begun, reader.made) == ("", False, len(calls))
        for name, arguments in calls:
            Draft202012Validator(schemas[name]).validate(json.loads(arguments))


def test_null_is_null_where_it_may_be() -> None:
    text = QWEN.write("get_weather", {"city": "null", "note": "null"})
    _, ((_, arguments),) = read(QWEN.reader(SCHEMAS), [text])
    assert json.loads(arguments) == {"city": "null", "note": None}


def test_text_is_told_as_it_comes() -> None:
    reader = QWEN.reader(SCHEMAS)
    text = QWEN.write("get_weather", {"city": "Oslo\n<b>"})
    told = [part.arguments for letter in text for part in reader.feed(letter)[1] if part.arguments]
    assert told == ["{", '"city": "', *"Oslo", "\\n<b", ">", '"', "}"]


def test_json_in_a_list_may_look_like_an_end() -> None:
    schemas = {"f": {"properties": {"a": {"type": "array"}}}}
    text = GLM_5.write("f", {"a": ["</arg_value>"]})
    assert read(GLM_5.reader(schemas), [text]) == ("", [["f", '{"a": ["</arg_value>"]}']])


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"type": "string", "title": "A"}, "text"),
        ({"enum": ["a", "b"]}, "text"),
        ({"const": "a"}, "text"),
        ({"$ref": "#/$defs/Units"}, "text"),
        ({"type": ["string", "null"]}, "text or null"),
        ({"anyOf": [{"$ref": "#/$defs/Units"}, {"type": "null"}]}, "text or null"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}], "title": "A"}, "text or null"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "json"),
        ({"type": ["integer", "null"]}, "json"),
        ({"type": "object", "properties": {"a": {"type": "string", "pattern": "a"}}}, "json"),
        ({"type": "string", "pattern": "a"}, None),
        ({"type": "string", "maxLength": 3}, None),
        ({"type": ["string", "integer"]}, None),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, None),
        ({"enum": ["a", 1]}, None),
        ({}, None),
        ({"$ref": "#/$defs/None"}, None),
        ({"$ref": "#/$defs/Loop"}, None),
    ],
)
def test_kinds_of_arguments(value: dict[str, Any], kind: str | None) -> None:
    root = {"$defs": UNITS | {"Loop": {"$ref": "#/$defs/Loop"}}, "properties": {"a": value}}
    assert kind_of(value, root) == kind
    assert QWEN.fits(root) == (kind is not None)


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "object", "properties": {}, "additionalProperties": True},
        {"type": "object", "properties": {}, "required": ["a"]},
        {"type": "object", "properties": {"a>": {"type": "string"}}},
        {"$ref": "#/$defs/A"},
        {"anyOf": [{"properties": {}}]},
    ],
)
def test_what_does_not_fit_into_tags_is_json(tmp_path: Path, parameters: dict[str, Any]) -> None:
    template = load(tmp_path, "xml_calls")
    tool = {"type": "function", "function": {"name": "f", "description": "", "parameters": WEATHER}}
    other = {"type": "function", "function": {"name": "g", "parameters": parameters}}
    assert template.form([tool]) == template.form([]) == QWEN
    assert template.form([tool, other]) == JsonForm()
    user = [{"role": "user", "content": "hi"}]
    assert "You can call functions." in template.render(user, [tool, other])
    assert "You can call functions." not in template.render(user, [tool])


def test_forms_are_found_in_templates(tmp_path: Path) -> None:
    assert load(tmp_path, "xml_calls").form([]) == QWEN
    assert load(tmp_path, "arguments_xml").form([]) == GLM
    for name in ("json_calls", "turns", "token_calls", "bare_json"):
        assert load(tmp_path, name).form([]) == JsonForm()
