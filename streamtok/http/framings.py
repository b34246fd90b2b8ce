"""How one stream of tokens is cut into chunks: three framings, and which one a client accepts.

All three carry the same tokens in the same order, each in a chunk of its own:

  * `text/event-stream`: JSON as server-sent events, closed by `[DONE]`;
  * `application/x-ndjson`: the same JSON, one object a line;
  * `text/plain`: the bare text.

Pure: values to bytes, no IO. Does not know what the JSON says.

Read next: `streamtok.http.sse`.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from streamtok.errors import NotAcceptable
from streamtok.http import sse
from streamtok.http.request import HeaderList
from streamtok.http.response import BrokenOff

UNBUFFERED: HeaderList = (
    ("cache-control", "no-cache"),
    ("x-accel-buffering", "no"),  # keeps nginx from buffering the chunks
)


class Framing(Protocol):
    """One way to cut a stream. `ping` is a sign of life where the format has one, else empty."""

    headers: HeaderList
    ping: bytes
    end: bytes

    def chunk(self, text: str, event: str, data: bytes) -> bytes:
        """Return the chunk for bare `text`, or for its JSON `data`.

        `event` is its name as an event, or empty.
        """

    def error(self, event: str, data: bytes) -> bytes:
        """Return the chunk that reports an error, given as JSON.

        Raises:
            BrokenOff: the format has no place for it.
        """


class EventStream:
    """Server-sent events, closed by `end`."""

    headers: HeaderList = (("content-type", "text/event-stream; charset=utf-8"), *UNBUFFERED)
    ping = sse.PING

    def __init__(self, end: bytes) -> None:
        self.end = end

    def chunk(self, text: str, event: str, data: bytes) -> bytes:
        """See `Framing.chunk`."""
        return sse.encode(data, event)

    def error(self, event: str, data: bytes) -> bytes:
        """See `Framing.error`."""
        return sse.encode(data, event)


class JsonLines:
    """One JSON object a line; an error is an object with the key `error`."""

    headers: HeaderList = (("content-type", "application/x-ndjson"), *UNBUFFERED)
    ping = b" "  # white space before the next object, which JSON allows; an empty line is no object
    end = b""

    def chunk(self, text: str, event: str, data: bytes) -> bytes:
        """See `Framing.chunk`."""
        return data + b"\n"

    def error(self, event: str, data: bytes) -> bytes:
        """See `Framing.error`."""
        return data + b"\n"


class PlainText:
    """Text and nothing else; what has no text has no chunk."""

    headers: HeaderList = (
        ("content-type", "text/plain; charset=utf-8"),
        # Browsers would collect the first chunks to guess the type, and could take it for HTML.
        ("x-content-type-options", "nosniff"),
        *UNBUFFERED,
    )
    ping = b""
    end = b""

    def chunk(self, text: str, event: str, data: bytes) -> bytes:
        """See `Framing.chunk`."""
        return text.encode()

    def error(self, event: str, data: bytes) -> bytes:
        """See `Framing.error`: only a missing zero chunk can say that the text is not complete."""
        raise BrokenOff


Offer = tuple[str, Framing]  # a media type, and the framing for whoever accepts it
EVENT_STREAM, JSON_LINES, PLAIN_TEXT = EventStream(sse.DONE), JsonLines(), PlainText()
TYPED_EVENTS = EventStream(end=b"")  # whose last event says that it is the last


def _offers(events: EventStream) -> Sequence[Offer]:
    """Return the offers of a stream. OpenAI's clients ask for JSON and expect events."""
    return (
        ("text/event-stream", events),
        ("application/x-ndjson", JSON_LINES),
        ("application/json", events),
        ("text/plain", PLAIN_TEXT),
    )


# Among equals the first wins.
OFFERS, TYPED_OFFERS = _offers(EVENT_STREAM), _offers(TYPED_EVENTS)


def negotiate(accept: str | None, offers: Sequence[Offer]) -> Framing:
    """Return the framing that `accept`, a header's value, likes best (RFC 9110 section 12.5.1).

    Raises:
        NotAcceptable: it likes none.
    """
    ranges = dict(_ranges(accept or "*/*"))
    best = max(offers, key=lambda offer: _quality(ranges, offer[0]))
    if not _quality(ranges, best[0]):
        types = ", ".join(media_type for media_type, _ in offers)
        raise NotAcceptable(f"nothing that {accept!r} accepts can be streamed; there is {types}")
    return best[1]


def _quality(ranges: dict[str, float], media_type: str) -> float:
    """Return the quality of `media_type`: that of the narrowest range it is in."""
    for name in (media_type, media_type.partition("/")[0] + "/*", "*/*"):
        if name in ranges:
            return ranges[name]
    return 0.0


def _ranges(accept: str) -> Iterator[tuple[str, float]]:
    """Yield each media range with its quality; parameters of the type itself make no difference."""
    for item in accept.lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            yield name, min(max(0.0, float(quality)), 1.0)
        except ValueError:
            yield name, 0.0
