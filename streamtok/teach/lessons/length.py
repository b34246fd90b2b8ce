"""Why Content-Length cannot work."""

from streamtok.observe.annotate import escape
from streamtok.teach.lessons.lab import Exchange, Lab, answered, post
from streamtok.teach.lessons.lesson import Blocks, Lesson, Question, Table, Wire, whole_number

FRAMING = frozenset({"content-length", "transfer-encoding"})
BODY = b'{"prompt": "Once upon", "max_tokens": 2}\n'
TOKENS = 24


def head(exchange: Exchange) -> bytes:
    """Return the head of an answer."""
    return exchange.raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


def ms(seconds: float) -> str:
    """Return a time for people."""
    return f"{1000 * seconds:.1f} ms"


def show(lab: Lab) -> Blocks:
    """Get the same text whole and streamed."""
    body = {"prompt": "Once upon", "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
    whole = lab.exchange(post("/v1/completions", body))
    streamed = lab.exchange(post("/v1/completions", {**body, "stream": True}))
    chunks = streamed.answer.chunks
    first_s, last_s = chunks[0].at_s, chunks[-3].at_s  # behind it: why it ended, [DONE]
    yield (
        f"We ask for the same {TOKENS} tokens twice. Once whole: the server says how many bytes "
        "there are and sends them."
    )
    yield Wire(head(whole), fields=FRAMING)
    yield "And once as a stream:"
    yield Wire(head(streamed), fields=FRAMING)
    yield Table(
        ("", "whole", "streamed"),
        (
            ("the head came after", ms(whole.at_s(0)), ms(streamed.at_s(0))),
            ("the first token after", ms(whole.answer.at_s(1)), ms(first_s)),
            ("the last token after", ms(whole.answer.at_s(1)), ms(last_s)),
        ),
    )
    yield (
        "`Content-Length` stands in the head, in front of the body, and must be exact (RFC 9112 "
        "section 6.2): a client stops reading there. But a model does not know what it will say, "
        "nor when it will stop. It makes one token from all before it, then the next."
    )
    half_s = (first_s + last_s) / 2
    yield Question(
        "Suppose that the stream had to begin with `Content-Length`. When could its first token "
        "leave the server, at the earliest?",
        f"After about {ms(last_s)}",
        "The length is known when the last token is. Until then the server could only wait, as it "
        "does for the whole answer. Chunks need no length in advance.",
        "When does the server know how long the text is?",
        (
            f"After about {ms(first_s)}",
            f"After about {ms(half_s)}",
            f"After about {ms(last_s)}",
        ),
    )


def change(lab: Lab, given: str) -> Blocks:
    """Send a body with the length that the learner says."""
    length = whole_number(given, 0, 99)
    fields = f"Host: localhost\r\nContent-Length: {length}\r\n"
    request = f"POST /v1/completions HTTP/1.1\r\n{fields}\r\n".encode() + BODY
    exchange = lab.exchange(request, answered if length >= len(BODY) else lambda _: False)
    yield Wire(request, sent=True)
    yield Wire(exchange.raw, fields=FRAMING | {"connection"})
    if length == len(BODY):
        yield "The length is right."
    elif length > len(BODY):
        yield "The server waited for the bytes that were promised. Then it gave up: 408."
    else:
        yield (
            f"The server took {length} bytes for the body, and what was left for the beginning of "
            "the next request. Where a proxy and a server differ in this, one can smuggle requests "
            "past the proxy (RFC 9112 section 11.2)."
        )


LESSON = Lesson(
    name="length",
    title="Why Content-Length cannot work",
    module="streamtok/answer/render.py",
    show=show,
    invitation=(
        "For what you send the length is known: the body "
        f"`{''.join(escape(BODY))}` has {len(BODY)} bytes. Say something else in `Content-Length`."
    ),
    default="30",
    change=change,
)
