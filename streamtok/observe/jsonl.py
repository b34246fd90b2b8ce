"""The trace as JSON, an object a line: the same lines and steps as in `streamtok.observe.text`."""

from typing import Any

import msgspec

from streamtok.observe.timeline import Moment, Passed, Story, Told
from streamtok.observe.trace import Accepted, Ended, Record, Step


class JsonTrace:
    """Records to lines of JSON."""

    def __init__(self) -> None:
        self._story = Story()
        self._encoder = msgspec.json.Encoder()

    def encode(self, record: Record) -> bytes:
        """Return the lines that `record` adds."""
        told = self._story.tell(record)
        return b"".join(self._encoder.encode(_object(one)) + b"\n" for one in told)


def _object(told: Told) -> dict[str, Any]:
    return _when(told.moment) | (_passed(told) if isinstance(told, Passed) else _what(told.record))


def _when(moment: Moment) -> dict[str, Any]:
    gap = {} if moment.gap_s is None else {"gap_ms": round(1000 * moment.gap_s, 3)}
    return {
        "at_s": round(moment.at_s, 6),
        "ms": round(1000 * moment.since_s, 3),
        **gap,
        "connection": moment.connection,
        "request": moment.request,
    }


def _passed(told: Passed) -> dict[str, Any]:
    """Return a line on the wire: as text where it is UTF-8, else in hexadecimal."""
    line = told.line
    try:
        data: dict[str, Any] = {"text": line.data.decode()}
    except UnicodeDecodeError:
        data = {"hex": line.data.hex()}
    given: dict[str, Any] = {
        "event": "sent" if told.sent else "received",
        "kind": line.kind,
        "bytes": len(line.data),
        **data,
        "note": line.note,
    }
    if told.tokens:
        given["token_ids"] = told.tokens
    if told.pieces > 1:
        given["writes" if told.sent else "reads"] = told.pieces
    return given


def _what(record: Accepted | Step | Ended) -> dict[str, Any]:
    if isinstance(record, Accepted):
        sides = {"client": record.client, "server": record.server}
        return {"event": "accept", **sides, "encrypted": record.encrypted}
    if isinstance(record, Ended):
        return {"event": "end", "side": record.side, "reset": record.reset}
    return {"event": record.name, **record.facts}
