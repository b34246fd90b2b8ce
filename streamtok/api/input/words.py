"""What msgspec found wrong, in words: "temperature must be between 0 and 2 (got 9)"."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import inspect

from streamtok.api.input.shapes import inner_types, members_of

STEP = re.compile(r"\.(?P<field>[^.\[]+)|\[(?P<index>\d+)\]|(?P<key>\[\.\.\.\])")
FIELD = re.compile(r"^Object (?P<problem>missing required|contains unknown) field `(?P<name>.*)`$")
SHOWN = 60  # characters of a wrong value
JSON_NAMES = {
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}
# The JSON values that a type takes; true is no integer, and each integer is a number
TAKEN: Mapping[type[inspect.Type], tuple[type, ...]] = {
    inspect.BoolType: (bool,),
    inspect.IntType: (int,),
    inspect.FloatType: (float, int),
    inspect.StrType: (str,),
    inspect.ListType: (list,),
    inspect.DictType: (dict,),
    inspect.StructType: (dict,),
    inspect.NoneType: (type(None),),
}


def explained(error: str, value: Any, info: inspect.Type) -> tuple[str, str]:
    """Return what to say of msgspec's `error` in `value`, and the path of the field to blame."""
    problem, _, place = error.partition(" - at `$")
    members, path = members_of(info), ""
    for step in STEP.finditer(place.rstrip("`")):
        if step["key"]:  # msgspec does not say which
            members = inner_types(value, members, "")
            key = next(key for key in value if _problem(value[key], members))
            return f"{path}[{_short(key)}] {_problem(value[key], members)}", path
        inner = step["field"] or int(step["index"])
        tags = _tags(members, inner)
        members, value = tags or inner_types(value, members, inner), value[inner]
        path = f"{path}{step[0]}".lstrip(".")
    if lack := FIELD.match(problem):
        missing = lack["problem"] == "missing required"
        text = "missing required field" if missing else "unknown field"
        return f"{path or lack['name']}: {text} `{lack['name']}`", path or lack["name"]
    return f"{path} {_problem(value, members) or problem}", path


def _tags(members: Sequence[inspect.Type], field: str | int) -> Sequence[inspect.Type]:
    """Return what `field` may be where it says which of several structs an object is."""
    structs = [member for member in members if isinstance(member, inspect.StructType)]
    tags = [struct.tag for struct in structs if struct.tag_field == field]
    return (inspect.LiteralType(tuple(tags)),) if tags else ()


def _problem(value: Any, members: Sequence[inspect.Type]) -> str:
    """Return what is wrong with a value in itself, as what follows its name; nothing if nothing."""
    literals = [
        literal for m in members if isinstance(m, inspect.LiteralType) for literal in m.values
    ]
    if literals and isinstance(value, str):
        fits = value in literals
        return "" if fits else f"must be {_either(_names(members))} (got {_short(value)})"
    taking = list(_taking(value, members))
    if not taking:
        return f"must be {_either(_names(members))} (got {_short(value)})"
    return _out_of_range(value, taking[0])


def _names(members: Sequence[inspect.Type]) -> list[str]:
    """Return what a value may be, in words."""
    kinds = [TAKEN[type(m)][0] for m in members if type(m) in TAKEN]
    names = [JSON_NAMES[kind] for kind in kinds if kind is not type(None)]
    literals = [_short(x) for m in members if isinstance(m, inspect.LiteralType) for x in m.values]
    return list(dict.fromkeys([*literals, *names]))


def _out_of_range(value: Any, member: inspect.Type) -> str:
    """Return what is wrong with a value of the right kind; nothing if nothing."""
    if isinstance(member, inspect.IntType | inspect.FloatType):
        return _beyond(value, member.ge, member.le, "must be {} (got {})", _short(value))
    if isinstance(member, inspect.ListType):
        least, most = member.min_length, member.max_length
        return _beyond(len(value), least, most, "must have {} (got {})", str(len(value)), "item")
    if isinstance(member, inspect.StrType) and not value and member.min_length:
        return "must not be empty"
    if isinstance(member, inspect.StrType) and member.pattern:
        return f"must be {member.pattern} (got {_short(value)})"
    return ""


def _beyond(
    value: float, least: float | None, most: float | None, form: str, got: str, unit: str = ""
) -> str:
    """Return what is wrong with a value that is not between two bounds; nothing if it is."""
    if (least is None or value >= least) and (most is None or value <= most):
        return ""
    if most is None:
        bounds, last = f"at least {_number(least)}", least
    elif least is None:
        bounds, last = f"at most {_number(most)}", most
    else:
        bounds, last = f"between {_number(least)} and {_number(most)}", most
    return form.format(f"{bounds} {unit}{'s' * (last != 1)}" if unit else bounds, got)


def _number(value: float | None) -> str:
    """Return a bound; that of an integer has all its digits."""
    return str(value) if isinstance(value, int) else f"{value:g}"


def _either(options: Sequence[str]) -> str:
    """Return `options` as a list in words."""
    *others, last = options
    return f"{', '.join(others)} or {last}" if others else last


def _short(value: Any) -> str:
    """Return a value as it may stand in a message: what has members by its kind alone."""
    if isinstance(value, list | dict):
        return JSON_NAMES[type(value)]
    text = repr(value) if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _taking(value: Any, members: Sequence[inspect.Type]) -> Iterator[inspect.Type]:
    """Yield the `members` that take this kind of JSON value."""
    for member in members:
        if isinstance(member, inspect.LiteralType):
            takes: tuple[type, ...] = tuple({type(literal) for literal in member.values})
        else:
            takes = TAKEN.get(type(member), ())
        if type(value) in takes:
            yield member
