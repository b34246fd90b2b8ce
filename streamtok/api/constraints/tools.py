"""Functions that a model may call: what a text with their calls must be, as a grammar.

Here is what requests say of tools; `streamtok.text.tool_calls.grammar` makes the grammar.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from streamtok.api.constraints.structured import check_end, constraint, schema_constraint
from streamtok.api.conversation import Form, Tool, Wanted
from streamtok.errors import InvalidRequest
from streamtok.messages import Constraint
from streamtok.text.tool_calls.forms import CallForm
from streamtok.text.tool_calls.grammar import calls_grammar

MAX_CALLS = 8  # in one answer: a small model may never stop calling
NO_PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}


def calls_constraint(
    wanted: Wanted, form: CallForm, *, close: bool = True
) -> tuple[Constraint, dict[str, Constraint]]:
    """Return what an answer that may call tools must be, and the parameters of each tool.

    `form` is that of the calls.

    Raises:
        InvalidRequest: a field does not fit the others.
    """
    _check(wanted.tools)
    check_end(wanted, "tools")
    for other in wanted.forms:
        if other.kind != "json_schema":
            raise _wrong(other.field.partition(".")[0], "tools say already what the answer must be")
    names = _names(wanted)
    parts = {tool.name: _parameters(tool, close=close) for tool in wanted.tools}
    answer = constraint(wanted, close=close)
    grammar = calls_grammar(
        form,
        schemas_in({name: parts[name] for name in names}),
        most=MAX_CALLS if wanted.choice.several else 1,
        required=wanted.choice.required,
        answer=answer.text if answer else None,
    )
    return Constraint("lark", grammar, "tools"), parts


def schemas_in(parts: Mapping[str, Constraint]) -> dict[str, dict[str, Any]]:
    """Return the schemas that constraints to JSON hold."""
    return {name: msgspec.json.decode(part.text) for name, part in parts.items()}


def _parameters(tool: Tool, *, close: bool) -> Constraint:
    """Return what the arguments of a tool must be: an object."""
    schema = tool.parameters or NO_PARAMETERS
    if schema.get("type", "object") != "object":
        raise _wrong(f"{tool.field}.type", "arguments are an object")
    form = Form("json_schema", schema, tool.field, strict=bool(tool.strict))
    return schema_constraint({"type": "object", **schema}, form, close=close)


def _check(tools: Sequence[Tool]) -> None:
    seen = set()
    for tool in tools:
        if tool.name in seen:
            raise _wrong(tool.name_field, "another function has this name")
        seen.add(tool.name)


def _names(wanted: Wanted) -> Sequence[str]:
    """Return the names of the tools that may be called."""
    names = [tool.name for tool in wanted.tools]
    for name in wanted.choice.names or ():
        if name not in names:
            raise _wrong(wanted.choice.field, f"{name!r} is not among the tools")
    return names if wanted.choice.names is None else wanted.choice.names


def _wrong(place: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"{place}: {problem}", param=place, code="invalid_value")
