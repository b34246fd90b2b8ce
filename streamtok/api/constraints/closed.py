"""JSON schemas whose objects have no properties but those that are named.

In JSON Schema an object may have any property that its schema does not forbid. Frameworks do not
forbid them, and a small model that may invent properties does so until its tokens are used up. So
an object that names properties is closed here, as llama.cpp does it, unless its schema says
otherwise (`additionalProperties`, `unevaluatedProperties`). What has no named property, such as
`{"type": "object"}`, remains an object of any properties.

`additionalProperties: false` counts only the properties beside it (JSON Schema 2020-12 core,
section 10.3.2.3). Where a schema is put together of several (`allOf`, `$ref`, `anyOf` ...), the
outermost one is therefore closed, for the names of all of them, and the others are left open.
Pure. Read next: `streamtok.engine.extras.grammars`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

VALUES = ("items", "additionalItems", "additionalProperties", "unevaluatedItems")  # one schema
LISTS = ("items", "prefixItems")  # several, of which each is for a value of its own
NAMED = ("properties", "patternProperties", "$defs", "definitions")
JOINED = ("allOf", "anyOf", "oneOf")  # all of them, or some, are for the same value
MAYBE = ("if", "then", "else")
EXPLICIT = ("additionalProperties", "unevaluatedProperties")
OPEN = "open:"  # what the name of a copied definition begins with, of which the original is closed


def closed(schema: Schema) -> dict[str, Any]:
    """Return `schema` with its objects closed."""
    return _Closer(schema).close()


class _Closer:
    def __init__(self, root: Schema) -> None:
        self._root = root
        self._copies: dict[str, dict[str, Any]] = {}  # by the name of their definition

    def close(self) -> dict[str, Any]:
        made: dict[str, Any] = self._closed(self._root)
        if self._copies:
            made["$defs"] = made.get("$defs", {}) | self._copies
        return made

    # Two forms of a schema: alone for its value, or beside others

    def _closed(self, schema: Any) -> Any:
        """Return what stands for a value alone."""
        if not isinstance(schema, dict):
            return schema
        if not self._is_put_together(schema):
            made = self._inside(schema)
            for key in JOINED:
                if isinstance(schema.get(key), list):
                    made[key] = [self._closed(one) for one in schema[key]]
            return made
        made = self._open(schema)
        parts = list(self._parts(schema, set()))
        if any(_is_explicit(part) for part in parts):
            return made
        names = dict.fromkeys(name for part in parts for name in _names(part))
        patterns = dict.fromkeys(
            name for part in parts for name in _mapping(part, "patternProperties")
        )
        if schema.get("minProperties", 0) > len(names) and not patterns:
            return made
        own = made.get("properties", {})
        made["properties"] = own | {name: True for name in names if name not in own}
        if patterns:
            own = made.get("patternProperties", {})
            made["patternProperties"] = own | {p: True for p in patterns if p not in own}
        made.pop("unevaluatedProperties", None)
        return made | {"additionalProperties": False}

    def _open(self, schema: Any) -> Any:
        """Return what stands beside others for the same value, one of which is closed."""
        if not isinstance(schema, dict):
            return schema
        made = self._inside(schema)
        for key in JOINED:
            if isinstance(schema.get(key), list):
                made[key] = [self._open(one) for one in schema[key]]
        if "$ref" in schema:
            made["$ref"] = self._copy(schema["$ref"])
        return made

    def _inside(self, schema: Schema) -> dict[str, Any]:
        """Return `schema` with the schemas closed that are for values within its own."""
        made = dict(schema)
        for key in VALUES:
            if isinstance(schema.get(key), dict):
                made[key] = self._closed(schema[key])
        for key in LISTS:
            if isinstance(schema.get(key), list):
                made[key] = [self._closed(one) for one in schema[key]]
        for key in NAMED:
            if isinstance(schema.get(key), dict):
                made[key] = {name: self._closed(one) for name, one in schema[key].items()}
        return made

    # What belongs together

    def _is_put_together(self, schema: Schema) -> bool:
        """Whether a schema is more than a choice between others, or a reference to one."""
        own = ("properties", "patternProperties", "required", "dependentRequired", "allOf")
        return any(key in schema for key in own) and any(
            key in part for part in self._parts(schema, set()) for key in own[:4]
        )

    def _parts(self, schema: Any, seen: set[str]) -> Iterator[Schema]:
        """Yield all that is for the same value, the schema itself first."""
        if not isinstance(schema, dict):
            return
        yield schema
        for key in JOINED:
            for one in schema[key] if isinstance(schema.get(key), list) else ():
                yield from self._parts(one, seen)
        for key in MAYBE:
            yield from self._parts(schema.get(key), seen)
        for one in _mapping(schema, "dependentSchemas").values():
            yield from self._parts(one, seen)
        if (reference := schema.get("$ref")) is not None and reference not in seen:
            seen.add(reference)
            found = self._find(reference)
            # Of what is not known here all properties may be
            yield from self._parts({EXPLICIT[0]: True} if found is None else found, seen)

    def _copy(self, reference: Any) -> Any:
        """Return a reference to an open copy of what `reference` leads to."""
        found = self._find(reference)
        if not isinstance(found, dict):
            return reference
        name = f"{OPEN}{reference.removeprefix('#/')}"
        if name not in self._copies:
            self._copies[name] = {}  # it may lead to itself
            self._copies[name] = self._open(found)
        return f"#/$defs/{name.replace('~', '~0').replace('/', '~1')}"

    def _find(self, reference: Any) -> Any:
        """Return the schema at a JSON pointer (RFC 6901); None if it leads elsewhere."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            return None
        found: Any = self._root
        for step in reference.split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and key.isdecimal() and int(key) < len(found):
                found = found[int(key)]
            elif isinstance(found, dict) and key in found:
                found = found[key]
            else:
                return None
        return found


def _is_explicit(part: Schema) -> bool:
    """Whether a schema says itself which other properties there may be."""
    return "additionalProperties" in part or part.get("unevaluatedProperties", False) is not False


def _names(part: Schema) -> Iterator[str]:
    """Yield the properties that a schema names."""
    yield from _mapping(part, "properties")
    yield from _strings(part.get("required"))
    for name, others in _mapping(part, "dependentRequired").items():
        yield name
        yield from _strings(others)


def _mapping(part: Schema, key: str) -> Mapping[str, Any]:
    value = part.get(key)
    return value if isinstance(value, dict) else {}


def _strings(value: Any) -> Iterator[str]:
    yield from (one for one in value if isinstance(one, str)) if isinstance(value, list) else ()
