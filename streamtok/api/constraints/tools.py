"""Functions that a model may call: what a text with their calls must be, as a grammar.

It is free text up to the first tag, if calls are not required, and from there on calls of the
functions there are, with arguments as each describes them.
Read next: `streamtok.text.tool_calls.reader`, the form of calls.
"""

from collections.abc import Iterator, Mapping, Sequence

from streamtok.api.constraints.structured import check_end, constraint, schema_constraint
from streamtok.api.conversation import Form, Tool, Wanted
from streamtok.errors import InvalidRequest
from streamtok.messages import Constraint
from streamtok.text.tool_calls.reader import CLOSE, OPEN

MAX_CALLS = 8  # in one answer: a small model may never stop calling
NO_PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}


def calls_constraint(wanted: Wanted, *, close: bool = True) -> tuple[Constraint, list[Constraint]]:
    """Return what an answer that may call tools must be, and the parameters of each tool.

    Raises:
        InvalidRequest: a field does not fit the others.
    """
    _check(wanted.tools)
    check_end(wanted, "tools")
    for form in wanted.forms:
        if form.kind != "json_schema":
            raise _wrong(form.field.partition(".")[0], "tools say already what the answer must be")
    names = _names(wanted)
    parts = [_parameters(tool, close=close) for tool in wanted.tools]
    schemas = {tool.name: part.text for tool, part in zip(wanted.tools, parts, strict=True)}
    start = REQUIRED if wanted.choice.required else _beside(constraint(wanted, close=close))
    lines = [start, *_calls({name: schemas[name] for name in names}, wanted.choice.several)]
    return Constraint("lark", "\n".join(lines), "tools"), parts


# The grammar, in llguidance's Lark

_OPEN, _CLOSE = OPEN, CLOSE.replace("/", "\\/")
# The end of a text may not come within a tag, so that no half of one is content.
_HALVES = "|".join(OPEN[:length] for length in range(1, len(OPEN)))
REQUIRED = f"start: /{_OPEN}\\n?/ calls"
FREE = f"""\
start: TEXT | tagged /\\n?/ calls
tagged[lazy]: /(?s:.*){_OPEN}/
TEXT: /(?s:.*)/ & ~/(?s:.*){_OPEN}(?s:.*)/ & ~/(?s:.*)({_HALVES})/"""


def _beside(answer: Constraint | None) -> str:
    """Return the rule for a text that may do without calls, and is then an `answer`."""
    if answer is None:
        return FREE
    return f"start: answer | /{_OPEN}\\n?/ calls\nanswer: %json {answer.text}"


def _calls(schemas: Mapping[str, str], more: bool) -> Iterator[str]:
    """Yield the rules for calls behind the first tag, of functions with these parameters."""
    others = f" (/\\n?{_OPEN}\\n?/ call){{0,{MAX_CALLS - 1}}}" if more else ""
    yield f"calls: call{others}"
    yield f"call: ({' | '.join(f'call_{number}' for number in range(len(schemas)))}) END"
    yield f"END: /\\}}\\n?{_CLOSE}/"
    for number, (name, schema) in enumerate(schemas.items()):
        yield f"call_{number}: HEAD_{number} %json {schema}"
        yield f'HEAD_{number}: /\\{{"name": ?"{name}", ?"arguments": ?/'


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
