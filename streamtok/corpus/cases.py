"""Streams by hand: what the WHATWG HTML standard says of them, section "Server-sent events".

The events beside each are written by hand too, and not what a decoder of this package makes of it.
Read next: `streamtok.corpus.answers`, the streams of a server.
"""

from collections.abc import Sequence

from msgspec import Struct

from streamtok.http.sse import ServerEvent as Event

BOM = b"\xef\xbb\xbf"
LONG = 100_000  # characters


class Case(Struct, frozen=True):
    """A stream: its `body`, and what a right parser makes of it.

    `http` is the whole response, where a server has sent it; `ends` how that ended: "complete", or
    "cut" or "reset" before its end. `pauses` are offsets in it, each with seconds. `retry_ms` is
    the last reconnection time. `text` is what the API's events say together, if it is an answer.
    """

    name: str
    about: str
    body: bytes
    events: Sequence[Event]
    retry_ms: int | None = None
    legal: bool = True
    http: bytes | None = None
    ends: str = "complete"
    pauses: Sequence[tuple[int, float]] = ()
    text: str | None = None


def _data(*texts: str) -> list[Event]:
    return [Event(text) for text in texts]


BY_HAND = (
    Case("empty", "no bytes", b"", []),
    Case("plain", "two events", b"data: a\n\ndata: b\n\n", _data("a", "b")),
    Case("no-space", "no space after the colon", b"data:a\n\n", _data("a")),
    Case("two-spaces", "only the first is removed", b"data:  a\n\n", _data(" a")),
    Case("tab", "a tab is not removed", b"data:\ta\n\n", _data("\ta")),
    Case("space-behind", "is data", b"data: a \n\n", _data("a ")),
    Case("colons", "the first one ends the name", b"data: a: b:c\n\n", _data("a: b:c")),
    Case("lines", "each data line is a line", b"data: a\ndata: b\n\n", _data("a\nb")),
    Case("empty-lines", "of data", b"data: a\ndata:\ndata: b\n\n", _data("a\n\nb")),
    Case("empty-data", "is an event", b"data:\n\n", _data("")),
    Case(
        "data-without-colon", "is an empty line of data", b"data\n\ndata\ndata\n\n", _data("", "\n")
    ),
    Case(
        "no-data", "is no event, and its type is forgotten", b"event: x\n\ndata: a\n\n", _data("a")
    ),
    Case("empty-blocks", "are no events", b"\n\n\n\ndata: a\n\n\n\n", _data("a")),
    Case("unended", "the last event needs its empty line", b"data: a\n\ndata: b\n", _data("a")),
    Case("unended-line", "and the end of its line", b"data: a\n\ndata: b", _data("a")),
    Case("cr", "CR ends a line", b"data: a\r\rdata: b\r\r", _data("a", "b")),
    Case(
        "crlf", "CR LF is one end", b"data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n", _data("a\nb", "c")
    ),
    Case("mixed-ends", "LF, CR and CR LF", b"data: a\rdata: b\r\ndata: c\n\r\n", _data("a\nb\nc")),
    Case("lf-cr", "are two ends", b"data: a\n\rdata: b\n\r", _data("a", "b")),
    Case("cr-at-the-end", "a last CR ends its line", b"data: a\n\r", _data("a")),
    Case(
        "other-line-ends",
        "VT, FF, NEL, U+2028 and U+2029 end no line",
        "data: a\vb\fc\x85d\u2028e\u2029f\n\n".encode(),
        _data("a\vb\fc\x85d\u2028e\u2029f"),
    ),
    Case("bom", "one at the beginning is skipped", BOM + b"data: a\n\n", _data("a")),
    Case(
        "two-boms",
        "the second belongs to the name",
        BOM + BOM + b"data: a\n\ndata: b\n\n",
        _data("b"),
    ),
    Case(
        "bom-later",
        "elsewhere it belongs to the name",
        b"data: a\n\n" + BOM + b"data: b\n\ndata: c\n\n",
        _data("a", "c"),
    ),
    Case("bom-in-data", "is data", b"data: " + BOM + b"a\n\n", _data("\ufeffa")),
    Case(
        "comments",
        "are skipped, within events too",
        b":\n: x\ndata: a\n:y\ndata: b\n\n",
        _data("a\nb"),
    ),
    Case(
        "heartbeats",
        "a comment with an empty line is no event",
        b": ping\n\ndata: a\n\n: ping\n\n",
        _data("a"),
    ),
    Case(
        "type",
        "an event has a type",
        b"event: x\ndata: a\n\ndata: b\n\n",
        [Event("a", "x"), Event("b")],
    ),
    Case(
        "types",
        "the last one counts; an empty one is none",
        b"event: x\nevent: y\ndata: a\n\nevent: x\nevent:\ndata: b\n\n",
        [Event("a", "y"), Event("b")],
    ),
    Case(
        "type-behind-data", "the order does not matter", b"data: a\nevent: x\n\n", [Event("a", "x")]
    ),
    Case(
        "id",
        "stays until another comes",
        b"id: 1\ndata: a\n\ndata: b\n\nid: 2\ndata: c\n\n",
        [Event("a", id="1"), Event("b", id="1"), Event("c", id="2")],
    ),
    Case("id-without-data", "counts from then on", b"id: 1\n\ndata: a\n\n", [Event("a", id="1")]),
    Case(
        "id-empty",
        "takes the id away",
        b"id: 1\ndata: a\n\nid\ndata: b\n\n",
        [Event("a", id="1"), Event("b")],
    ),
    Case(
        "id-with-null",
        "is ignored",
        b"id: 1\ndata: a\n\nid: 2\x003\ndata: b\n\n",
        [Event("a", id="1"), Event("b", id="1")],
    ),
    Case(
        "id-and-heartbeat",
        "an id makes no event of a comment",
        b"id: 1\ndata: a\n\n: ping\n\ndata: b\n\n",
        [Event("a", id="1"), Event("b", id="1")],
    ),
    Case("retry", "is the reconnection time", b"retry: 2500\n\ndata: a\n\n", _data("a"), 2500),
    Case(
        "retry-wrong",
        "digits only",
        b"retry: 100\nretry: 1.5\nretry: -3\nretry: x\nretry:\ndata: a\n\n",
        _data("a"),
        100,
    ),
    Case(
        "unknown-fields",
        "are ignored",
        b"foo: 1\nDATA: x\n data: y\ndata : z\ndata: a\n\n",
        _data("a"),
    ),
    Case("null", "is data", b"data: a\x00b\n\n", _data("a\x00b")),
    Case(
        "utf-8", "characters of two, three and four bytes", "data: é€🦊\n\n".encode(), _data("é€🦊")
    ),
    Case(
        "utf-8-wrong",
        "each wrong sequence is U+FFFD",
        b"data: a\xffb\xc3(\xf0\x9f\xa6\n\n",
        _data("a\ufffdb\ufffd(\ufffd"),
    ),
    Case("long-line", f"{LONG} characters", b"data: " + b"x" * LONG + b"\n\n", _data("x" * LONG)),
    Case(
        "many-events",
        "a thousand",
        b"".join(b"data: %d\n\n" % n for n in range(1000)),
        _data(*map(str, range(1000))),
    ),
    Case(
        "done",
        "OpenAI's mark of the end is an event like others",
        b"data: {}\n\ndata: [DONE]\n\n",
        _data("{}", "[DONE]"),
    ),
)
