"""What an answer must be, where a request says so: `response_format` and `grammar`.

`response_format` is OpenAI's. `grammar` is an extension in the form of OpenAI's grammars for custom
tools: `{"syntax": "lark" | "regex", "definition": "..."}`.
Read next: `streamtok.engine.extras.grammars`, which enforces it.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from streamtok.engine.extras.grammars import json_schema
from streamtok.errors import InvalidRequest
from streamtok.messages import Constraint

# Python's `$` is before a last line break too
Name = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]{1,64}$(?!\n)")]


class TextFormat(Struct, tag="text", tag_field="type"):
    """Any text, which is the default."""


class ObjectFormat(Struct, tag="json_object", tag_field="type"):
    """Any JSON object."""


class NamedSchema(Struct):
    """A JSON schema; without `strict`, what cannot be enforced of it is passed over."""

    name: Name
    schema: dict[str, Any] = {}
    strict: bool | None = None
    description: str | None = None


class SchemaFormat(Struct, tag="json_schema", tag_field="type"):
    """JSON that a schema describes."""

    json_schema: NamedSchema


class Grammar(Struct, forbid_unknown_fields=True):
    """What matches a grammar or a regular expression, from end to end."""

    syntax: Literal["lark", "regex"]
    definition: Annotated[str, Meta(min_length=1)]


ResponseFormat = TextFormat | ObjectFormat | SchemaFormat


class StructuredFields(Struct, kw_only=True):
    """The fields of a request that say what its answer must be."""

    response_format: ResponseFormat | None = None
    grammar: Grammar | None = None
    ignore_eos: bool | None = None


def constraint(fields: StructuredFields) -> Constraint | None:
    """Return what the answer must be, if anything is asked for.

    Raises:
        InvalidRequest: two things are, or that the text does not end where it is complete.
    """
    asked = _format(fields.response_format)
    if fields.grammar is not None:
        if asked is not None:
            raise InvalidRequest(
                "grammar: response_format says already what the answer must be", param="grammar"
            )
        asked = Constraint(fields.grammar.syntax, fields.grammar.definition, "grammar")
    if asked is not None:
        check_end(fields, asked.param)
    return asked


def check_end(fields: StructuredFields, field: str) -> None:
    """Check that a text may end where `field` says that it is complete.

    Raises:
        InvalidRequest: it may not.
    """
    if fields.ignore_eos:
        raise InvalidRequest(f"ignore_eos: {field} says where the text ends", param="ignore_eos")


def _format(asked: ResponseFormat | None) -> Constraint | None:
    if isinstance(asked, ObjectFormat):
        return json_schema({"type": "object"}, "response_format")
    if isinstance(asked, SchemaFormat):
        named = asked.json_schema
        field = "response_format.json_schema.schema"
        return json_schema(named.schema, field, strict=bool(named.strict))
    return None
