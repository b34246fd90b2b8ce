"""Server-sent events: values to bytes, and bytes in any pieces back to values. No IO.

The format is the WHATWG HTML standard's, section "Server-sent events". This encoder writes the
plainest form there is, one `data:` line an event; the decoder reads all of it.

Read next: `streamtok.answer.steps`.
"""

import codecs

from msgspec import Struct

DONE = b"data: [DONE]\n\n"  # not JSON: OpenAI's mark for the end of a stream
# A comment. No empty line follows: that would be the end of an event, and openai-python fails on
# one without data.
PING = b": ping\n"


def encode(data: bytes, event: str = "") -> bytes:
    """Return one event that carries `data`, which holds no line break (JSON text never does).

    `event` is its type; without one it is a "message".
    """
    assert b"\n" not in data
    assert b"\r" not in data
    name = b"event: " + event.encode() + b"\n" if event else b""
    return name + b"data: " + data + b"\n\n"


class ServerEvent(Struct, frozen=True):
    """One dispatched event; `id` is the last one seen in the stream so far."""

    data: str
    event: str = "message"
    id: str = ""


class EventDecoder:
    """Reads events from bytes that may be cut anywhere, within a character or a line end too."""

    def __init__(self) -> None:
        self._text = codecs.getincrementaldecoder("utf-8")("replace")
        self._line = ""
        self._after_cr = False
        self._at_start = True
        self._data: list[str] = []
        self._event = ""
        self._id = ""

    def feed(self, data: bytes) -> list[ServerEvent]:
        """Return the events that `data` completes."""
        events = []
        for line in self._lines(self._text.decode(data)):
            if line:
                self._field(line)
            elif self._data:
                joined = "\n".join(self._data)
                events.append(ServerEvent(joined, self._event or "message", self._id))
            if not line:
                self._data, self._event = [], ""
        return events

    def _lines(self, text: str) -> list[str]:
        """Return the lines completed by `text`; a line ends with CR, LF or CR LF."""
        if self._at_start and text:
            text = text.removeprefix("\ufeff")
            self._at_start = False
        if self._after_cr and text:
            text = text.removeprefix("\n")
            self._after_cr = False
        if text.endswith("\r"):
            self._after_cr = True
        *lines, self._line = (
            (self._line + text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        )
        return lines

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
