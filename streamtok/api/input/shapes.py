"""What the parts of a value of some type may be. A union is the sequence of its members."""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect


class Fields(NamedTuple):
    """The fields of a struct, by their names in JSON: what each may be, and which are required."""

    types: Mapping[str, Sequence[inspect.Type]]
    optional: frozenset[str]
    required: frozenset[str]


def members_of(info: inspect.Type) -> Sequence[inspect.Type]:
    """Return what a value of this type may be; a pattern is replaced by its description."""
    if isinstance(info, inspect.UnionType):
        return tuple(chain.from_iterable(map(members_of, info.types)))
    if isinstance(info, inspect.Metadata):
        said = (info.extra_json_schema or {}).get("description")
        bare = info.type
        if said and isinstance(bare, inspect.StrType) and bare.pattern:
            bare = msgspec.structs.replace(bare, pattern=said)
        return members_of(bare)
    return (info,)


@cache
def fields_of(struct: type[msgspec.Struct]) -> Fields:
    """Return the fields of a struct: found once, since every request has them."""
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    required = frozenset(field.encode_name for field in info.fields if field.required)
    types = {field.encode_name: members_of(field.type) for field in info.fields}
    return Fields(types, frozenset(types) - required, required)


def struct_of(
    value: Mapping[str, Any], members: Sequence[inspect.Type]
) -> inspect.StructType | None:
    """Return the struct that an object is, by its tag where there are several."""
    for struct in members:
        if type(struct) is inspect.StructType and (
            struct.tag_field is None or value.get(struct.tag_field) == struct.tag
        ):
            return struct
    return None


def inner_types(
    value: Any, members: Sequence[inspect.Type], step: str | int
) -> Sequence[inspect.Type]:
    """Return what the value at a key or an index of `value` may be."""
    if isinstance(value, dict):
        if struct := struct_of(value, members):
            return fields_of(struct.cls).types.get(str(step), ())
        maps = (m for m in members if isinstance(m, inspect.DictType))
        return next((members_of(m.value_type) for m in maps), ())
    lists = (m for m in members if isinstance(m, inspect.ListType))
    return next((members_of(m.item_type) for m in lists), ())
