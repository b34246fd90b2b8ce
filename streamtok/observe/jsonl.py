"""The trace as JSON, an object a line: the same lines and steps as in `streamtok.observe.text`."""

from typing import Any

import msgspec

from streamtok.observe.timeline import Entry, Moment, Passed, Timeline
from streamtok.observe.trace import Accepted, Ended, Record, Step


class JsonTrace:
    """Records to lines of JSON."""

    def __init__(self) -> None:
        self._timeline = Timeline()
        self._encoder = msgspec.json.Encoder()

    def encode(self, record: Record) -> bytes:
        """Return the lines that `record` adds."""
        entries = self._timeline.feed(record)
        return b"".join(self._encoder.encode(_object(entry)) + b"\n" for entry in entries)


def _object(entry: Entry) -> dict[str, Any]:
    return _when(entry.moment) | (
        _passed(entry) if isinstance(entry, Passed) else _what(entry.record)
    )


def _when(moment: Moment) -> dict[str, Any]:
    gap = {} if moment.gap_s is None else {"gap_ms": round(1000 * moment.gap_s, 3)}
    return {
        "at_s": round(moment.at_s, 6),
        "ms": round(1000 * moment.since_s, 3),
        **gap,
        "connection": moment.connection,
        "request": moment.request,
    }


def _passed(entry: Passed) -> dict[str, Any]:
    """Return a line on the wire: as text where it is UTF-8, else in hexadecimal."""
    line = entry.line
    try:
        data: dict[str, Any] = {"text": line.data.decode()}
    except UnicodeDecodeError:
        data = {"hex": line.data.hex()}
    given: dict[str, Any] = {
        "event": "sent" if entry.sent else "received",
        "kind": line.kind,
        "bytes": len(line.data),
        **data,
        "note": line.note,
    }
    if entry.tokens:
        given["token_ids"] = entry.tokens
    if entry.pieces > 1:
        given["writes" if entry.sent else "reads"] = entry.pieces
    return given


def _what(record: Accepted | Step | Ended) -> dict[str, Any]:
    if isinstance(record, Accepted):
        sides = {"client": record.client, "server": record.server}
        return {"event": "accept", **sides, "encrypted": record.encrypted}
    if isinstance(record, Ended):
        return {"event": "end", "side": record.side, "reset": record.reset}
    return {"event": record.name, **record.facts}
