"""Objects of JSON have each name once, also where a schema lets them have any."""

import json
from typing import Any

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from test_grammars import parts, walk

from streamtok.engine.extras.grammars import json_schema
from streamtok.engine.extras.names import Names
from streamtok.messages import Constraint

OPEN = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "additionalProperties": {"type": "boolean"},
}
ANY = {"type": "object"}
KINDS = ("bytes", "byte level", "shipped")


def goes_through(kind: str, constraint: Constraint, text: str) -> bool:
    """Whether every token of a text is allowed where it comes."""
    tokenizer, grammars = parts(kind)
    guide = grammars.start(constraint)
    for token in tokenizer.encode(text, special=False):
        if not guide.allowed()[token]:
            return False
        guide.take(token)
    return True


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (OPEN, '{"a": 1, "b": true, "%s": true}'),
        (OPEN, '{"%s": true, "b": true}'),
        (ANY, '{"x": {"b": 1}, "y": [{"b": {"c": "d"}, "%s": 2}]}'),
        (ANY, '{"x": "b", "b": "\\"b\\", ", "%s": {}}'),
    ],
)
def test_a_name_comes_once(kind: str, schema: dict[str, Any], text: str) -> None:
    constraint = json_schema(schema, "response_format")
    for other in ("c", "bb", "B", "", "é", *(["\\u0063"] if schema is OPEN else [])):
        assert goes_through(kind, constraint, text % other), other
    for same in ("b", "\\u0062"):
        assert not goes_through(kind, constraint, text % same), same


@pytest.mark.parametrize("kind", KINDS)
def test_names_with_letters_of_several_bytes_and_escapes(kind: str) -> None:
    constraint = json_schema(ANY, "response_format")
    for name in ("\U0001f98a", "Zürich", '\\"', "\\\\", "\\n"):
        assert goes_through(kind, constraint, f'{{"{name}": 1, "{name}x": 2}}')
        assert not goes_through(kind, constraint, f'{{"{name}": 1, "{name}": 2}}')


@pytest.mark.parametrize("seed", range(6))
def test_any_way_through_an_open_object_has_no_name_twice(seed: int) -> None:
    schema = {"type": "object", "maxProperties": 12, "additionalProperties": {"type": "null"}}
    text, _ = walk("bytes", json_schema(schema, "f"), seed, 60)
    names = Names()
    assert not names.feed(text.encode())


def test_a_grammar_that_is_no_schema_is_left_alone() -> None:
    assert goes_through(
        "bytes", Constraint("regex", r'\{"b": 1, "b": 1\}', "g"), '{"b": 1, "b": 1}'
    )


VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=8,
)


@given(VALUES, st.booleans(), st.text(max_size=5), st.integers(1, 9))
@examples(60)
def test_names_are_followed_in_any_json(value: Any, plain: bool, before: str, cut: int) -> None:
    text = json.dumps(value, ensure_ascii=plain)
    repeated: list[bool] = []

    def once(pairs: list[tuple[str, Any]]) -> Any:
        repeated.append(len(pairs) != len(dict(pairs)))
        return dict(pairs)

    for data in (text, text.replace("0", "1")):
        json.loads(data, object_pairs_hook=once)
        names = Names()
        whole = f"{before.replace('{', '').replace('[', '')}{data}".encode()
        found = [names.feed(whole[at : at + cut]) for at in range(0, len(whole), cut)]
        assert any(found) == any(repeated)


def test_the_mask_of_a_text_without_objects_is_as_it_was() -> None:
    _, grammars = parts("shipped")
    guide = grammars.start(json_schema({"type": "array"}, "f"))
    plain = grammars.start(Constraint("lark", 'start: %json {"type": "array"}', "f"))
    assert np.array_equal(guide.allowed(), plain.allowed())
