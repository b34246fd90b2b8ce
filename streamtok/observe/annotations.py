"""What a line of HTTP or of a body says, in a few words for people. No IO.

Read next: `streamtok.observe.annotate`, which cuts bytes into these lines.
"""

import json
from typing import Any

from msgspec import Struct

FIELDS = {  # field -> what it says
    b"accept": "what the client can read",
    b"cache-control": "not for caches",
    b"content-length": "so many bytes of body follow",
    b"content-type": "what the body is",
    b"date": "when the answer began",
    b"host": "required since HTTP/1.1",
    b"retry-after": "come back in so many seconds",
    b"server": "who answers",
    b"te": "trailers are welcome",
    b"trailer": "what will follow the zero chunk",
    b"transfer-encoding": "the length is not known yet",
    b"x-accel-buffering": "nginx is to pass chunks on",
    b"x-request-id": "its name in the server's log",
}


class Note(Struct, frozen=True):
    """What a line is; `choice` is that whose text it carries, if it carries any."""

    text: str = ""
    choice: int | None = None


def of_field(name: bytes, value: bytes) -> str:
    """Return what a header field says; `name` is in lower case."""
    if name == b"connection":
        return "the last one here" if b"close" in value.lower() else ""
    return FIELDS.get(name, "")


def of_event_line(line: bytes) -> Note:
    """Return what a line of an event stream is."""
    if not line.strip(b"\r\n"):
        return Note("an empty line ends the event")
    if line.startswith(b":"):
        return Note("a comment: a sign of life")
    if line.startswith(b"event:"):
        return Note("what kind of event it is")
    if line.startswith(b"data: [DONE]"):
        return Note("OpenAI's mark for the end")
    return of_json(line.removeprefix(b"data:"))


def of_json(line: bytes) -> Note:
    """Return what a chunk of an answer says, which is JSON."""
    try:
        return _of_chunk(json.loads(line))
    except (ValueError, LookupError, TypeError):
        return Note()


def _of_chunk(value: Any) -> Note:
    if "error" in value:
        return Note("an error")
    if not value["choices"]:
        return Note("the usage")
    choice = value["choices"][0]
    if choice["finish_reason"]:
        return Note(f"why it ended: {choice['finish_reason']}")
    delta = choice.get("delta", choice)
    if "role" in delta:
        return Note("the role, said once")
    text = json.dumps(delta.get("text", delta.get("content")), ensure_ascii=False)
    return Note(f"text: {text}", choice.get("index"))
