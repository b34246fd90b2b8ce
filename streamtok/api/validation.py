"""JSON that a client sent, checked against a type and converted to it; errors name the field.

Types are msgspec structs, whose annotations hold every rule (`Annotated[int, Meta(ge=1)]`). Two
things are decided here, once for all endpoints: a field that is null is a field that is not given,
at every depth; and what an error says, such as "temperature must be between 0 and 2 (got 9)".
Read next: `streamtok.api.openai.types`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Struct, inspect

from streamtok.errors import BodyTooLarge, InvalidRequest
from streamtok.http.request import HeaderList

Kind = TypeVar("Kind", bound=Struct)
STEP = re.compile(r"\.(?P<field>[^.\[]+)|\[(?P<index>\d+)\]|(?P<key>\[\.\.\.\])")
FIELD = re.compile(r"^Object (?P<problem>missing required|contains unknown) field `(?P<name>.*)`$")
MAX_IGNORED = 2048  # characters of the header with the names of ignored fields
EXTRA = "extra"  # the field of a struct for what it does not name
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


@dataclass(frozen=True, slots=True)
class Documented:
    """What an API documents besides the fields of its type.

    `hints` have no effect on what is generated: they are accepted. `refused` has, for each field
    that is not supported, the values which ask for nothing (null always does); others are refused,
    with what to use `instead`, if there is anything.
    """

    hints: frozenset[str] = frozenset()
    refused: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    instead: Mapping[str, str] = field(default_factory=dict)


def read_object(body: bytes, most_values: int | None = None) -> dict[str, Any]:
    """Return the JSON object in a request's body.

    Raises:
        BodyTooLarge: it has about more than `most_values`, which take long to make.
        InvalidRequest: the body is not UTF-8, not JSON, or not an object.
    """
    # Their commas are counted, and those within strings too: nearly all of a text's are tokens
    if most_values is not None and body.count(b",") > most_values:
        raise BodyTooLarge(f"the body has more than {most_values} values")
    try:
        value = msgspec.json.decode(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"the body is not valid UTF-8: byte 0x{body[error.start]:02x} at offset {error.start}",
            code="invalid_utf8",
        ) from error
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}", code="invalid_json") from error
    except RecursionError as error:
        raise too_deep() from error
    if not isinstance(value, dict):
        raise InvalidRequest("the body must be a JSON object", code="invalid_json")
    return value


def too_deep() -> InvalidRequest:
    """Return the error for a body with more levels than can be read."""
    return InvalidRequest("the body is nested too deeply", code="invalid_json")


def ignored_header(names: tuple[str, ...]) -> HeaderList:
    """Return the header with the fields that are not known, if there are any.

    A name can be any text, a header cannot: what is more than a word is percent-encoded.
    """
    listed = ", ".join(quote(name, safe="[]") for name in names)
    if len(listed) > MAX_IGNORED:
        listed = listed[:MAX_IGNORED] + "..."
    return (("x-ignored-fields", listed),) if names else ()


def convert(
    value: Mapping[str, Any], kind: type[Kind], documented: Documented
) -> tuple[Kind, tuple[str, ...]]:
    """Return `value` as a `kind`, and the names of its fields that are not known.

    Raises:
        InvalidRequest: a field has the wrong type or value, or is not supported; names it.
    """
    refused = documented.refused
    for name in refused.keys() - kind.__struct_fields__:
        if value.get(name) is not None and value[name] not in refused[name]:
            instead = documented.instead.get(name)
            raise InvalidRequest(
                f"{name} is not supported by this server{f'; {instead}' if instead else ''}",
                param=name,
                code="unsupported_parameter",
            )
    known = {*kind.__struct_fields__, *refused, *documented.hints}
    return checked(value, kind), tuple(sorted(value.keys() - known))


def checked(value: Mapping[str, Any], kind: type[Kind], *, strict: bool = True) -> Kind:
    """Return `value` as a `kind`; if not `strict`, numbers and booleans may be text.

    Raises:
        InvalidRequest: a field has the wrong type or value; names it.
    """
    info = _info(kind)
    given = _without_nulls(value, (info,))
    try:
        return msgspec.convert(given, kind, strict=strict)
    except msgspec.ValidationError as error:
        if not strict:
            given = {key: _from_text(text) for key, text in given.items()}
        message, param = _explained(str(error), given, info)
        raise InvalidRequest(message, param=param, code="invalid_value") from error


@cache
def _info(kind: type[Struct]) -> inspect.Type:
    return inspect.type_info(kind)


# Types: a union is given as the sequence of its members


def _members(info: inspect.Type) -> Sequence[inspect.Type]:
    """Return what a value of this type may be; a pattern is replaced by its description."""
    if isinstance(info, inspect.UnionType):
        return tuple(chain.from_iterable(map(_members, info.types)))
    if isinstance(info, inspect.Metadata):
        said = (info.extra_json_schema or {}).get("description")
        bare = info.type
        if said and isinstance(bare, inspect.StrType) and bare.pattern:
            bare = msgspec.structs.replace(bare, pattern=said)
        return _members(bare)
    return (info,)


def _taking(value: Any, members: Sequence[inspect.Type]) -> Iterator[inspect.Type]:
    """Yield the `members` that take this kind of JSON value."""
    for member in members:
        if isinstance(member, inspect.LiteralType):
            takes: tuple[type, ...] = tuple({type(literal) for literal in member.values})
        else:
            takes = TAKEN.get(type(member), ())
        if type(value) in takes:
            yield member


def _struct(value: Mapping[str, Any], members: Sequence[inspect.Type]) -> inspect.StructType | None:
    """Return the struct that an object is, by its tag where there are several."""
    structs = [member for member in members if isinstance(member, inspect.StructType)]
    for struct in structs:
        if struct.tag_field is None or value.get(struct.tag_field) == struct.tag:
            return struct
    return None


def _inner(value: Any, members: Sequence[inspect.Type], step: str | int) -> Sequence[inspect.Type]:
    """Return what the value at a key or an index of `value` may be."""
    if isinstance(value, dict):
        if struct := _struct(value, members):
            return next((_members(f.type) for f in struct.fields if f.encode_name == step), ())
        maps = (m for m in members if isinstance(m, inspect.DictType))
        return next((_members(m.value_type) for m in maps), ())
    lists = (m for m in members if isinstance(m, inspect.ListType))
    return next((_members(m.item_type) for m in lists), ())


# Null


def _without_nulls(value: Any, members: Sequence[inspect.Type]) -> Any:
    """Return `value` without the fields that are null, as far as types say what is a field.

    Numbers such as 2.0 are integers where integers are expected.

    What is free JSON, such as a schema or the arguments of a call, stays as it is. Where a struct
    has the field `extra`, that gets all that it does not name.
    """
    if isinstance(value, list):
        items = _inner(value, members, 0)
        nested = any(isinstance(i, inspect.StructType | inspect.ListType) for i in items)
        if not nested and float not in set(map(type, value)):
            return value  # maybe many token ids
        return [_without_nulls(item, items) for item in value]
    if isinstance(value, float) and value.is_integer():
        # JSON Schema's integers may be written so (draft 2020-12, core section 4.2.3)
        whole = any(isinstance(member, inspect.IntType) for member in members)
        exact = any(isinstance(member, inspect.FloatType) for member in members)
        return int(value) if whole and not exact else value
    if not isinstance(value, dict):
        return value
    if struct := _struct(value, members):
        kept = {f.encode_name for f in struct.fields if f.required}
        known = {f.encode_name for f in struct.fields} - kept
        if EXTRA in known:
            names = known - {EXTRA} | kept | {struct.tag_field}
            others = {key: inner for key, inner in value.items() if key not in names}
            value = {key: value[key] for key in value.keys() & names} | {EXTRA: others}
    elif any(isinstance(m, inspect.DictType) for m in members):
        known = set(value) if _inner(value, members, "") != (inspect.AnyType(),) else set()
    else:
        return value
    return {
        key: _without_nulls(inner, _inner(value, members, key))
        for key, inner in value.items()
        if inner is not None or key not in known
    }


# Errors


def _from_text(text: Any) -> Any:
    """Return the number that a text is, if it is one."""
    try:
        return msgspec.json.decode(text, type=float | int)
    except msgspec.DecodeError:
        return text


def _explained(error: str, value: Any, info: inspect.Type) -> tuple[str, str]:
    """Return what to say of msgspec's `error` in `value`, and the path of the field to blame."""
    problem, _, place = error.partition(" - at `$")
    members, path = _members(info), ""
    for step in STEP.finditer(place.rstrip("`")):
        if step["key"]:  # msgspec does not say which
            members = _inner(value, members, "")
            key = next(key for key in value if _problem(value[key], members))
            return f"{path}[{_short(key)}] {_problem(value[key], members)}", path
        inner = step["field"] or int(step["index"])
        tags = _tags(members, inner)
        members, value = tags or _inner(value, members, inner), value[inner]
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
