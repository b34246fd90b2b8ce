"""What an answer must be, as one constraint that can be compiled.

Read next: `streamtok.api.constraints.tools`, then `streamtok.engine.extras.grammars`.
"""

from collections.abc import Mapping
from typing import Any

from streamtok.api.constraints.closed import closed
from streamtok.api.conversation import Form, Wanted
from streamtok.engine.extras.grammars import json_schema
from streamtok.errors import InvalidRequest
from streamtok.messages import Constraint


def constraint(wanted: Wanted, *, close: bool = True) -> Constraint | None:
    """Return what the text of an answer must be, if a form is wanted.

    With `close`, objects have no properties but those that their schemas name.

    Raises:
        InvalidRequest: two forms are wanted, or that the text does not end where it is complete.
    """
    if not wanted.forms:
        return None
    form, *others = wanted.forms
    for other in others:
        raise InvalidRequest(
            f"{_top(other.field)}: {_top(form.field)} says already what the answer must be",
            param=_top(other.field),
            code="invalid_value",
        )
    check_end(wanted, _top(form.field))
    if form.kind != "json_schema":
        return Constraint(form.kind, form.value, form.field)
    return schema_constraint(form.value, form, close=close)


def schema_constraint(schema: Mapping[str, Any], form: Form, *, close: bool) -> Constraint:
    """Return the constraint to JSON of a `schema`, which is that of `form`."""
    return json_schema(closed(schema) if close else schema, form.field, strict=form.strict)


def check_end(wanted: Wanted, field: str) -> None:
    """Check that a text may end where `field` says that it is complete.

    Raises:
        InvalidRequest: it may not.
    """
    if wanted.endless:
        raise InvalidRequest(f"ignore_eos: {field} says where the text ends", param="ignore_eos")


def _top(field: str) -> str:
    return field.partition(".")[0]
