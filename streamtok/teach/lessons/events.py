"""Server-sent events."""

from streamtok.http.sse import EventDecoder
from streamtok.teach.lessons.lab import Lab, post
from streamtok.teach.lessons.lesson import Blocks, Lesson, Question, Table, Wire, whole_number

FRAMING = frozenset({"content-type", "transfer-encoding"})
BODY = {
    "messages": [{"role": "user", "content": "Who are you?"}],
    "max_tokens": 2,
    "temperature": 0,
    "stream": True,
}


def show(lab: Lab) -> Blocks:
    """Read a chat's events."""
    exchange = lab.exchange(post("/v1/chat/completions", BODY))
    answer = exchange.answer
    joined = len(EventDecoder().feed(answer.body))
    yield (
        "Chunks say how bytes are cut. What the bytes mean is the body's own matter. Streams of "
        "tokens are `text/event-stream` (WHATWG HTML, section Server-sent events): lines of a "
        "field's name, a colon and its value. An empty line ends an event. A line that begins "
        "with a colon is a comment."
    )
    yield Wire(exchange.raw, fields=FRAMING)
    yield (
        "A line of an event may end with `\\n` alone; the lines of HTTP around it need `\\r\\n`. "
        "`[DONE]` is no part of the standard: it is how OpenAI's streams end."
    )
    yield Question(
        f"This body came in {len(answer.chunks)} chunks, one event in each. A proxy on the way may "
        "join all chunks to one, or cut them anew (RFC 9112 section 6.1). How many events does the "
        "client get then? (`[DONE]` is one too.)",
        str(joined),
        "Events end at empty lines, wherever chunks end. So a client must join the data of chunks, "
        "and look for empty lines itself. One that takes each read for an event works until a "
        "proxy, or a full buffer, comes in between.",
        "Does an empty line go away when chunks are joined?",
    )


def change(lab: Lab, given: str) -> Blocks:
    """Give a decoder the body in pieces of some size."""
    size = whole_number(given, 1, 10_000)
    body = lab.exchange(post("/v1/chat/completions", BODY)).answer.body
    decoder = EventDecoder()
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    counts = [len(decoder.feed(piece)) for piece in pieces]
    yield Table(
        ("bytes", "pieces", "pieces that completed no event", "events"),
        ((str(len(body)), str(len(pieces)), str(counts.count(0)), str(sum(counts))),),
    )
    yield "However the bytes are cut, the events are the same."


LESSON = Lesson(
    name="events",
    title="Server-sent events: what the bytes mean",
    module="streamtok/http/sse.py",
    show=show,
    invitation=(
        "A body of the same kind is given to this package's decoder, so many bytes at a time. How "
        "many?"
    ),
    default="7",
    change=change,
)
