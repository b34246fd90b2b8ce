"""JSON that a client sent, checked against a type and converted to it; errors name the field.

Types are msgspec structs, whose annotations hold every rule (`Annotated[int, Meta(ge=1)]`). A field
that is null is a field that is not given, at every depth.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
from msgspec import Struct, inspect

from streamtok.api.input.documented import Documented
from streamtok.api.input.shapes import fields_of, inner_types, struct_of
from streamtok.api.input.words import explained
from streamtok.api.validation import Kind, too_deep
from streamtok.errors import BodyTooLarge, InvalidRequest

EXTRA = "extra"  # the field of a struct for what it does not name
SIMPLE = (str, bool, int)  # of these there is nothing to take out


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
        message, param = explained(str(error), given, info)
        raise InvalidRequest(message, param=param, code="invalid_value") from error


@cache
def _info(kind: type[Struct]) -> inspect.Type:
    return inspect.type_info(kind)


def _without_nulls(value: Any, members: Sequence[inspect.Type]) -> Any:
    """Return `value` without the fields that are null, as far as types say what is a field.

    Numbers such as 2.0 are integers where integers are expected.

    What is free JSON, such as a schema or the arguments of a call, stays as it is. Where a struct
    has the field `extra`, that gets all that it does not name.
    """
    if isinstance(value, list):
        items = inner_types(value, members, 0)
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
    if struct := struct_of(value, members):
        types, known, kept = fields_of(struct.cls)
        if EXTRA in known:
            names = known - {EXTRA} | kept | {struct.tag_field}
            others = {key: inner for key, inner in value.items() if key not in names}
            value = {key: value[key] for key in value.keys() & names} | {EXTRA: others}
        return {
            key: inner if type(inner) in SIMPLE else _without_nulls(inner, types.get(key, ()))
            for key, inner in value.items()
            if inner is not None or key not in known
        }
    if any(isinstance(m, inspect.DictType) for m in members):
        types_of_values = inner_types(value, members, "")
        anything = types_of_values == (inspect.AnyType(),)
        return {
            key: _without_nulls(inner, types_of_values)
            for key, inner in value.items()
            if inner is not None or anything
        }
    return value


def _from_text(text: Any) -> Any:
    """Return the number that a text is, if it is one."""
    try:
        return msgspec.json.decode(text, type=float | int)
    except msgspec.DecodeError:
        return text
