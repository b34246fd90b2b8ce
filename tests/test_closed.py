"""Objects have no properties but those that their schema names, however it is put together."""

import json
from functools import cache
from typing import Any

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from test_grammars import parts, walk

from streamtok.api.constraints.closed import closed
from streamtok.engine.extras.grammars import Grammars, json_schema
from streamtok.text.tokenizer import Tokenizer

A = {"properties": {"a": {"type": "integer"}}, "required": ["a"]}
B = {"properties": {"b": {"type": "integer"}}, "required": ["b"]}
DEFS = {"$defs": {"A": A, "B": B}}
TO_A, TO_B = {"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}
NODE = {
    "type": "object",
    "properties": {
        "v": {"type": "integer"},
        "n": {"anyOf": [{"$ref": "#/$defs/N"}, {"type": "null"}]},
    },
}
# A schema, texts that it takes when it is closed, and texts that it does not take
CASES: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "properties": ({"type": "object", **A}, ['{"a": 1}'], ['{"a": 1, "z": 2}', "{}"]),
    "no type": (A, ['{"a": 1}'], ['{"a": 1, "z": 2}']),
    "no properties are named": ({"type": "object"}, ["{}", '{"z": 2}'], []),
    "properties are empty": ({"type": "object", "properties": {}}, ["{}"], ['{"z": 2}']),
    "required is more than properties": (
        {"type": "object", "properties": {"a": {}}, "required": ["a", "b"]},
        ['{"a": 1, "b": 2}'],
        ['{"a": 1}', '{"a": 1, "b": 2, "c": 2}'],
    ),
    "required alone": (
        {"type": "object", "required": ["a"]},
        ['{"a": 1}'],
        ['{"a": 1, "q": 1}', "{}"],
    ),
    "allOf": (
        {"type": "object", "allOf": [A, B]},
        ['{"a": 1, "b": 2}'],
        ['{"a": 1, "b": 2, "c": 3}', '{"a": 1}'],
    ),
    "allOf of references": (
        {**DEFS, "allOf": [TO_A, TO_B]},
        ['{"a": 1, "b": 2}'],
        ['{"a": 1, "b": 2, "c": 3}', '{"a": 1}'],
    ),
    "allOf of one reference": (
        {**DEFS, "allOf": [TO_A], "description": "as pydantic 1 wrote it"},
        ['{"a": 1}'],
        ['{"a": 1, "b": 2}', '{"b": 1}'],
    ),
    "a reference": ({**DEFS, **TO_A}, ['{"a": 1}'], ['{"a": 1, "b": 2}', '{"b": 1}']),
    "a reference beside properties": (
        {**DEFS, **TO_A, "properties": {"x": TO_B}},
        ['{"a": 1, "x": {"b": 1}}'],
        ['{"a": 1, "x": {"b": 1, "c": 1}}', '{"a": 1, "c": 1}'],
    ),
    "anyOf": ({**DEFS, "anyOf": [TO_A, TO_B]}, ['{"a": 1}', '{"b": 1}'], ['{"a": 1, "b": 2}']),
    "oneOf": ({**DEFS, "oneOf": [TO_A, TO_B]}, ['{"a": 1}', '{"b": 1}'], ['{"a": 1, "b": 2}']),
    "anyOf of what is required": (
        {
            "type": "object",
            "properties": {"a": {}, "b": {}},
            "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
        },
        ['{"a": 1}', '{"b": 1}', '{"a": 1, "b": 2}'],
        ["{}", '{"a": 1, "c": 2}'],
    ),
    "patternProperties": (
        {"type": "object", "patternProperties": {"^x_": {"type": "integer"}}},
        ['{"x_1": 1, "x_2": 1}', "{}"],
        ['{"a": 1}', '{"x_1": "a"}'],
    ),
    "properties and patterns": (
        {"type": "object", "properties": {"a": {}}, "patternProperties": {"^x_": {}}},
        ['{"a": 1, "x_2": 1}'],
        ['{"b": 1}'],
    ),
    "explicit properties": (
        {"type": "object", "properties": {"a": {}}, "additionalProperties": {"type": "integer"}},
        ['{"a": 1, "z": 1}'],
        ['{"z": "x"}'],
    ),
    "explicitly open": (
        {"type": "object", "properties": {"a": {}}, "additionalProperties": True},
        ['{"a": 1, "z": 1}'],
        [],
    ),
    "unevaluatedProperties": (
        {"allOf": [A], "unevaluatedProperties": False},
        ['{"a": 1}'],
        ['{"a": 1, "b": 1}'],
    ),
    "several types": (
        {"type": ["object", "null"], "properties": {"a": {}}},
        ['{"a": 1}', "{}", "null"],
        ['{"b": "x"}'],
    ),
    "items": (
        {"type": "array", "items": {"type": "object", "properties": {"a": {}}}},
        ['[{"a": 1}]', "[]"],
        ['[{"b": 1}]'],
    ),
    "prefixItems": (
        {"type": "array", "prefixItems": [A], "items": False},
        ['[{"a": 1}]'],
        ['[{"a": 1, "b": 1}]'],
    ),
    "values of a map": (
        {"type": "object", "additionalProperties": A},
        ['{"z": {"a": 1}}'],
        ['{"z": {"a": 1, "b": 1}}'],
    ),
    "recursion": (
        {"$defs": {"N": NODE}, "$ref": "#/$defs/N"},
        ['{"v": 1, "n": {"v": 2, "n": null}}'],
        ['{"v": 1, "n": {"w": 2}}', '{"w": 1}'],
    ),
    "recursion beside others": (
        {"$defs": {"N": NODE}, "allOf": [{"$ref": "#/$defs/N"}, {"properties": {"z": {}}}]},
        ['{"v": 1, "n": {"v": 2}, "z": 1}'],
        ['{"v": 1, "n": {"z": 2}}', '{"y": 1}'],
    ),
    "a reference to the whole": (
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
        ['{"a": {"a": {}}}'],
        ['{"a": {"b": 1}}'],
    ),
    "definitions": (
        {"definitions": {"a/b": A}, "properties": {"x": {"$ref": "#/definitions/a~1b"}}},
        ['{"x": {"a": 1}}'],
        ['{"x": {"a": 1, "b": 1}}'],
    ),
    "what is no schema": (
        {"enum": [{"properties": {"q": 1}}]},
        ['{"properties": {"q": 1}}'],
        ['{"properties": {}}'],
    ),
    "names that are keywords": (
        {"type": "object", "properties": {"properties": {"properties": {"p": {}}}}},
        ['{"properties": {"p": 1}}'],
        ['{"properties": {"q": 1}}'],
    ),
    "more than are named": (
        {"type": "object", "properties": {"a": {}}, "required": ["a"], "minProperties": 2},
        ['{"a": 1, "b": 2}'],
        ['{"a": 1}'],
    ),
    "conditions": (
        {"properties": {"a": {}}, "if": {"required": ["a"]}, "then": {"required": ["b"]}},
        ['{"a": 1, "b": 2}'],
        ['{"a": 1, "c": 1}'],
    ),
}


@cache
def compiler() -> tuple[Tokenizer, Grammars]:
    return parts("bytes")


def takes(schema: dict[str, Any], text: str) -> bool:
    tokenizer, grammars = compiler()
    constraint = json_schema(schema, "schema", strict=False)
    grammars.check(constraint)
    guide = grammars.start(constraint)
    for token in tokenizer.encode(text, special=False):
        if not guide.allowed()[token]:
            return False
        if guide.take(token):
            return True
    return bool(guide.allowed()[256])


@pytest.mark.parametrize("name", CASES)
def test_a_closed_schema_takes_what_it_names_and_nothing_else(name: str) -> None:
    schema, good, bad = CASES[name]
    before = json.dumps(schema)
    made = closed(schema)
    assert json.dumps(schema) == before
    for text in good:
        Draft202012Validator(schema).validate(json.loads(text))
        assert takes(made, text), text
    for text in bad:
        assert not takes(made, text), text


OBJECTS = st.deferred(
    lambda: st.builds(
        lambda names, extra: (
            {"type": "object", "properties": {key: {"type": "null"} for key in names}} | extra
        ),
        st.sets(st.sampled_from("abcd"), max_size=2).map(sorted),
        st.just({})
        | st.builds(lambda parts: {"allOf": parts}, st.lists(OBJECTS, min_size=1, max_size=2))
        | st.builds(lambda parts: {"anyOf": parts}, st.lists(OBJECTS, min_size=1, max_size=2)),
    )
)


@examples(60)
@given(schema=OBJECTS, seed=st.integers(0, 99))
def test_whatever_is_written_ends_and_is_valid(schema: dict[str, Any], seed: int) -> None:
    """The random walk stands for a model that knows nothing, and would never stop by itself."""
    constraint = json_schema(closed(schema), "schema", strict=False)
    text, complete = walk("bytes", constraint, seed)
    assert complete, text
    value = json.loads(text)
    Draft202012Validator(schema).validate(value)
    assert set(value) <= set("abcd")
    assert text.count(":") == len(value)  # each name once
