"""HTTP/1.0, and trailers."""

import re

from streamtok.teach.lessons.lab import Lab, get
from streamtok.teach.lessons.lesson import Blocks, Lesson, Mistake, Question, Wire

TARGET = "/v1/generate?prompt=Once+upon+a+time&max_tokens=3&temperature=0"
FRAMING = frozenset({"content-type", "connection", "trailer", "transfer-encoding"})
TYPED = re.compile(r"(1\.[01])(?: +([\x21-\x7e]+: ?[\x20-\x7e]*))?")


def show(lab: Lab) -> Blocks:
    """Ask in HTTP/1.0, and then for trailers."""
    old = lab.exchange(get(TARGET, version="1.0"))
    yield (
        "A server learns from the request's first line what the client understands. HTTP/1.0 has "
        "no chunks, so a server must not send it any (RFC 9112 section 6.1)."
    )
    yield Wire(old.sent, sent=True)
    yield Wire(old.raw, fields=FRAMING)
    yield (
        "It is a stream all the same: each token left as it was made. There is no length and "
        "there are no chunks. The body ends where the connection does (RFC 9112 section 6.3). The "
        "first line still says HTTP/1.1: a server states what it speaks itself (RFC 9110 section "
        "6.2)."
    )
    yield Question(
        "Suppose that a proxy on the way gives up and closes the connection after the first token. "
        "What does this client see?",
        "A complete body that is short",
        "The end of the connection is the only end there is, so it cannot tell a cut from an end "
        "(RFC 9112 section 8). In chunks the zero chunk would be missing, and the client would "
        "know.",
        "What marks the end of this body?",
        ("A status that says so", "A zero chunk", "A complete body that is short"),
    )
    yield (
        "Chunks can do more. Behind the zero chunk there is room for fields: trailers (RFC 9110 "
        "section 6.5). What is known only in the end can stand there, such as what the answer "
        "cost. They are for clients that say `TE: trailers` (section 10.1.4):"
    )
    new = lab.exchange(get(TARGET, "TE: trailers", "Connection: close, TE"))
    yield Wire(new.sent, sent=True)
    yield Wire(new.raw, fields=FRAMING)


def change(lab: Lab, given: str) -> Blocks:
    """Ask with the version and the field that the learner says."""
    typed = TYPED.fullmatch(given)
    if typed is None:
        raise Mistake("expected 1.0 or 1.1, and perhaps a field: 1.1 TE: trailers")
    version, field = typed.groups()
    fields = [field] if field else []
    if version == "1.1":
        fields.append("Connection: close, TE")
    exchange = lab.exchange(get(TARGET, *fields, version=version))
    yield Wire(exchange.sent, sent=True)
    yield Wire(exchange.raw, fields=FRAMING)
    if version == "1.0":
        yield "Without chunks there is no place for trailers, whoever asks."


LESSON = Lesson(
    name="trailers",
    title="HTTP/1.0, and trailers",
    module="streamtok/http/response.py",
    show=show,
    invitation=(
        "Ask again with a version and a field of your choice, such as `1.1 Accept: "
        "text/event-stream`, `1.1 TE: trailers` or just `1.1`."
    ),
    default="1.0 TE: trailers",
    change=change,
)
