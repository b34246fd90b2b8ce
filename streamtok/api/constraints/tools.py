"""Functions that a model may call: `tools`, `tool_choice` and `parallel_tool_calls`.

What a text with calls must be is a grammar: free text up to the first tag, if calls are not
required, and from there on calls of the functions there are, with arguments as each describes them.
Read next: `streamtok.text.tool_calls.reader`, the form of calls; then
`streamtok.api.openai.history`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from streamtok.api.constraints.structured import Name, StructuredFields, check_end, constraint
from streamtok.engine.extras.grammars import json_schema
from streamtok.errors import InvalidRequest
from streamtok.messages import Constraint
from streamtok.text.tool_calls.reader import CLOSE, OPEN

MAX_TOOLS = 128
NO_PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}


class Function(Struct, omit_defaults=True):
    """A function; without `strict`, what cannot be enforced of its parameters is passed over."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Struct, tag="function", tag_field="type"):
    """A function that may be called."""

    function: Function


class FunctionName(Struct):
    """Which function."""

    name: str


class NamedTool(Struct, tag="function", tag_field="type"):
    """The function that is to be called."""

    function: FunctionName


class AllowedTools(Struct):
    """The functions that may be called, or of which one must be."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Meta(min_length=1)]


class AllowedChoice(Struct, tag="allowed_tools", tag_field="type"):
    """A choice among some of the functions."""

    allowed_tools: AllowedTools


ToolChoice = Literal["none", "auto", "required"] | NamedTool | AllowedChoice


@dataclass(frozen=True, slots=True)
class Offer:
    """What the model is told of, as templates know it, and what its answer must then be.

    `parts` are the parameters of each function, to find the one that is wrong.
    """

    described: Sequence[dict[str, Any]]
    constraint: Constraint
    parts: Sequence[Constraint]


def offer(
    fields: StructuredFields, tools: Sequence[Tool], choice: ToolChoice | None, parallel: bool
) -> Offer | None:
    """Return what `tools` offer beside the form that `fields` give to the answer, if anything.

    Raises:
        InvalidRequest: a field does not fit the others.
    """
    if not tools and choice not in (None, "none", "auto"):
        raise _wrong("tool_choice", "there are no tools to choose from")
    _check(tools)
    if not tools or choice == "none":
        return None
    check_end(fields, "tools")
    if fields.grammar is not None:
        raise _wrong("grammar", "tools say already what the answer must be")
    names, required = _chosen(choice, [tool.function.name for tool in tools])
    parts = [_parameters(tool.function, index) for index, tool in enumerate(tools)]
    schemas = {tool.function.name: part.text for tool, part in zip(tools, parts, strict=True)}
    more = parallel and not isinstance(choice, NamedTool)
    start = REQUIRED if required else _beside(constraint(fields))
    lines = [start, *_calls({name: schemas[name] for name in names}, more)]
    return Offer(
        described=described(tools),
        constraint=Constraint("lark", "\n".join(lines), "tools"),
        parts=parts,
    )


def described(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Return `tools` as chat templates know them."""
    return [msgspec.to_builtins(tool) for tool in tools]


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
    yield "calls: call" + f" (/\\n?{_OPEN}\\n?/ call)*" * more
    yield f"call: ({' | '.join(f'call_{number}' for number in range(len(schemas)))}) END"
    yield f"END: /\\}}\\n?{_CLOSE}/"
    for number, (name, schema) in enumerate(schemas.items()):
        yield f"call_{number}: HEAD_{number} %json {schema}"
        yield f'HEAD_{number}: /\\{{"name": ?"{name}", ?"arguments": ?/'


def _parameters(function: Function, index: int) -> Constraint:
    """Return what the arguments of a function must be: an object."""
    field = f"tools[{index}].function.parameters"
    schema = function.parameters or NO_PARAMETERS
    if schema.get("type", "object") != "object":
        raise _wrong(f"{field}.type", "arguments are an object")
    return json_schema({"type": "object", **schema}, field, strict=bool(function.strict))


def _check(tools: Sequence[Tool]) -> None:
    seen = set()
    for index, tool in enumerate(tools):
        if tool.function.name in seen:
            raise _wrong(f"tools[{index}].function.name", "another function has this name")
        seen.add(tool.function.name)


def _chosen(choice: object, names: Sequence[str]) -> tuple[Sequence[str], bool]:
    """Return the functions that may be called, and whether one must be."""
    if isinstance(choice, NamedTool):
        asked, required, place = [choice.function.name], True, "tool_choice.function.name"
    elif isinstance(choice, AllowedChoice):
        allowed = choice.allowed_tools
        asked = list(dict.fromkeys(tool.function.name for tool in allowed.tools))
        required, place = allowed.mode == "required", "tool_choice.allowed_tools.tools"
    else:
        return names, choice == "required"
    for name in asked:
        if name not in names:
            raise _wrong(place, f"{name!r} is not among the tools")
    return asked, required


def _wrong(place: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"{place}: {problem}", param=place, code="invalid_value")
