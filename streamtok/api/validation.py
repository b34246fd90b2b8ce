"""From a request's body to a typed value. The types are msgspec structs, and hold every rule.

`streamtok.app` plugs in `streamtok.api.input`, which takes nulls for missing fields, names unknown
ones, and says in words what is wrong.

Read next: `streamtok.api.openai.types`.
"""

from typing import TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Struct

from streamtok.errors import InvalidRequest
from streamtok.http.request import HeaderList

Kind = TypeVar("Kind", bound=Struct)
MAX_IGNORED = 2048  # characters of the header with the names of ignored fields


class BodyReader:
    """Reads the JSON of requests, as msgspec does."""

    def read(self, body: bytes, kind: type[Kind]) -> tuple[Kind, tuple[str, ...]]:
        """Return a request's body as a `kind`, and the names of its fields that are not known.

        Raises:
            BodyTooLarge: it has more values than can be of use.
            InvalidRequest: it is no JSON object, or a field has a wrong value or is not supported.
        """
        try:
            return msgspec.json.decode(body, type=kind), ()
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"the body: {error}", code="invalid_json") from error


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
