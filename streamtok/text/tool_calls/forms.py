"""The forms that calls of functions have in texts: JSON in a tag, or a tag for each argument.

    <tool_call>                             <tool_call>
    {"name": "f", "arguments": {"a": 1}}    <function=f>
    </tool_call>                            <parameter=a>
                                            1
                                            </parameter>
                                            </function>
                                            </tool_call>

The first is the form of Hermes, Qwen and others, and ours. The second is Qwen3-Coder's; GLM's and
others differ from it in their tags only. There an argument that is text stands as it is, and any
other as JSON. A form gives the rules of a grammar for its calls, in llguidance's Lark, and a reader
of them. Pure. Read next: `streamtok.text.tool_calls.grammar`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from msgspec import Struct

from streamtok.text.tool_calls.arguments_reader import ArgumentsReader, Kind, Tags
from streamtok.text.tool_calls.reader import OPEN, CallReader, TagReader

Schema = Mapping[str, Any]

KEY = re.compile(r"[\w.-]+")
NOTES = frozenset({"title", "description", "default", "examples", "$comment", "deprecated"})
SHARED = frozenset({"$defs", "definitions", "x-guidance"})
OBJECT = frozenset({"type", "properties", "required", "additionalProperties", *SHARED, *NOTES})
EITHER = ("anyOf", "oneOf")
MAX_REFERENCES = 16


class CallForm(Protocol):
    """A form of calls; each begins with `tag`."""

    @property
    def tag(self) -> str:
        """What a call begins with."""

    def fits(self, parameters: Schema) -> bool:
        """Whether arguments that a schema describes can be written in this form."""

    def rules(self, schemas: Mapping[str, Schema], most: int) -> Iterator[str]:
        """Yield the rules of `calls` after the first tag: `most` at most, of these functions."""

    def reader(self, schemas: Mapping[str, Schema]) -> TagReader:
        """Return a reader of a text with calls of these functions."""


class JsonForm(Struct, frozen=True):
    """A function's name and its arguments, as one JSON object."""

    tag: str = OPEN

    def fits(self, _: Schema) -> bool:
        """Whether arguments can be written in this form: all can."""
        return True

    def rules(self, schemas: Mapping[str, Schema], most: int) -> Iterator[str]:
        """Yield the rules of calls."""
        tag, close = _pattern(self.tag), _pattern(self.tag.replace("<", "</"))
        between = f"/\\n?{tag}\\n?/"
        yield f"calls: /\\n?/ call{_others(between, most)}"
        yield f"call: ({_each('call', len(schemas))}) END"
        yield f"END: /\\}}\\n?{close}/"
        for number, (name, schema) in enumerate(schemas.items()):
            yield f"call_{number}: HEAD_{number} %json {json.dumps(schema)}"
            yield f'HEAD_{number}: /\\{{"name": ?"{name}", ?"arguments": ?/'

    def reader(self, _: Mapping[str, Schema]) -> TagReader:
        """Return a reader of calls."""
        return CallReader()


class ArgumentsForm(Struct, frozen=True):
    """A function's name, and then each of its arguments, between `tags`."""

    tags: Tags

    @property
    def tag(self) -> str:
        """What a call begins with."""
        return self.tags.tag

    def write(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Return a call as text."""
        tags = self.tags
        parts = [tags.tag, tags.opening, name, tags.named]
        for key, value in arguments.items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            parts += [tags.key, key, tags.value, text, tags.end]
        return "".join((*parts, tags.close))

    def fits(self, parameters: Schema) -> bool:
        """Whether arguments can be written: no more than those named, of one kind each."""
        properties = parameters.get("properties", {})
        return (
            parameters.keys() <= OBJECT
            and parameters.get("additionalProperties", False) is False
            and set(parameters.get("required", ())) <= properties.keys()
            and all(map(KEY.fullmatch, properties))
            and all(kind_of(value, parameters) for value in properties.values())
        )

    def rules(self, schemas: Mapping[str, Schema], most: int) -> Iterator[str]:
        """Yield the rules of calls."""
        between = f"/\\n?{_pattern(self.tag)}/"
        yield f"calls: call{_others(between, most)}"
        yield f"call: {_each('call', len(schemas))}"
        yield f"text[lazy]: /(?s:.*){_pattern(self.tags.end)}/"
        for number, (name, schema) in enumerate(schemas.items()):
            yield from self._call_rules(number, name, schema)

    def reader(self, schemas: Mapping[str, Schema]) -> TagReader:
        """Return a reader of calls."""
        kinds = {
            name: {
                key: kind_of(value, schema) or "json"
                for key, value in schema.get("properties", {}).items()
            }
            for name, schema in schemas.items()
        }
        return ArgumentsReader(self.tags, kinds)

    def _call_rules(self, number: int, name: str, schema: Schema) -> Iterator[str]:
        parts = [_quoted(f"{self.tags.opening}{name}{self.tags.named}")]
        for place, (key, value) in enumerate(schema.get("properties", {}).items()):
            rule = f"argument_{number}_{place}"
            parts.append(rule if key in schema.get("required", ()) else f"{rule}?")
            before = _quoted(f"{self.tags.key}{key}{self.tags.value}")
            yield f"{rule}: {before} {self._value(value, schema)}"
        yield f"call_{number}: {' '.join(parts)} {_quoted(self.tags.close)}"

    def _value(self, value: Schema, root: Schema) -> str:
        """Return the rule of a value and its end."""
        end = _quoted(self.tags.end)
        if texts := _choices(value, root):
            return f"({' | '.join(map(_quoted, texts))}) {end}"
        if kind_of(value, root) == "json":
            shared = {key: part for key, part in root.items() if key in SHARED}
            return f"%json {json.dumps({**shared, **value})} {end}"
        return "text"


def kind_of(value: Schema, root: Schema) -> Kind | None:
    """Return what values of a schema are; None if they may be text or something else.

    It is None too where a schema says more of a text, such as a pattern: text as it is cannot be
    held to that.
    """
    value = _resolved(value, root)
    if _texts(value):
        return "text"
    said = value.keys() - NOTES
    if said == {"type"} and value["type"] == "string":
        return "text"
    if said == {"type"} and value["type"] in (["string", "null"], ["null", "string"]):
        return "text or null"
    if len(said) == 1 and (name := next(iter(said))) in EITHER:
        kinds = {kind_of(one, root) for one in value[name] if one != {"type": "null"}}
        kind = kinds.pop() if len(kinds) == 1 else None
        return "text or null" if kind == "text" and {"type": "null"} in value[name] else kind
    types = value.get("type")
    return "json" if types and "string" not in types and types != "string" else None


def _texts(value: Schema) -> list[str] | None:
    """Return the texts that a value is one of, if it is."""
    texts = value.get("enum", [value["const"]] if "const" in value else [])
    return texts if texts and all(isinstance(text, str) for text in texts) else None


def _choices(value: Schema, root: Schema) -> list[str] | None:
    """Return the texts that a value is one of, null among them where it may be that."""
    value = _resolved(value, root)
    found: list[str] = []
    for one in next((value[name] for name in EITHER if name in value), [value]):
        texts = ["null"] if one == {"type": "null"} else _texts(_resolved(one, root))
        if not texts:
            return None
        found += texts
    return found


def _resolved(value: Schema, root: Schema) -> Schema:
    """Return the schema that a schema refers to and does nothing else."""
    for _ in range(MAX_REFERENCES):
        said = value.keys() - NOTES
        if said == {"allOf"} and len(value["allOf"]) == 1:
            value = value["allOf"][0]
        elif said == {"$ref"} and (found := _found(value["$ref"], root)) is not None:
            value = found
        else:
            break
    return value


def _found(reference: str, root: Schema) -> Schema | None:
    """Return what a reference such as `#/$defs/Unit` refers to, if it is in these schemas."""
    start, _, name = reference.rpartition("/")
    found = root.get(start.removeprefix("#/"), {}).get(name) if start.startswith("#/") else None
    return found if isinstance(found, dict) else None


# Lark


def _each(rule: str, count: int) -> str:
    return " | ".join(f"{rule}_{number}" for number in range(count))


def _others(before: str, most: int) -> str:
    return f" ({before} call){{0,{most - 1}}}" if most > 1 else ""


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _pattern(text: str) -> str:
    """Return a regular expression that matches `text`."""
    return re.sub(r"([^\w\s<>=:])", r"\\\1", text).replace("\n", "\\n")
