"""A request by hand."""

from streamtok.observe.annotate import unescape
from streamtok.teach.lessons.lab import Lab, answered, get
from streamtok.teach.lessons.lesson import Blocks, Lesson, Mistake, Question, Wire

TARGET = "/v1/generate?prompt=Once+upon+a+time&max_tokens=3&temperature=0"


def show(lab: Lab) -> Blocks:
    """Send three lines, and see what comes."""
    exchange = lab.exchange(get(TARGET, "Connection: close"))
    yield (
        "HTTP/1.1 is lines of text over a TCP connection. We open one to this server and write "
        "three lines and an empty one. Each ends with two bytes, carriage return and line feed, "
        "here written `\\r\\n`. Lines with `>` are what we send, with `<` what we get."
    )
    yield Wire(exchange.sent, sent=True)
    yield (
        "The answer has the same form (RFC 9112 section 2.1): a first line, fields of a name and "
        "a value, an empty line, and a body."
    )
    yield Wire(exchange.raw)
    yield (
        "The body is what a language model made, token by token. Each token left the server on its "
        "own, as soon as it existed: that is streaming. The lines with numbers in between are the "
        "next lesson's."
    )
    yield Question(
        "We never said where our request ends. How did the server know that no more would come?",
        "From the empty line, as no field announced a body",
        "A request has a body only if it has Content-Length or Transfer-Encoding (RFC 9112 section "
        "6.3). Without them the empty line is the end, and the connection may stay open.",
        "Look at the last bytes that we sent.",
        (
            "From the end of the connection",
            "It waited whether more would come",
            "From the empty line, as no field announced a body",
        ),
    )


def change(lab: Lab, given: str) -> Blocks:
    """Send what the learner typed, and nothing else."""
    try:
        data = unescape(given)
    except ValueError as error:
        raise Mistake(f"this is not a way to write bytes: {error}") from error
    # The answer to HEAD is a head, whatever it says of a body (RFC 9110 section 9.3.2).
    enough = head_came if data.startswith(b"HEAD ") else answered
    exchange = lab.exchange(data, enough)
    yield Wire(exchange.sent, sent=True)
    yield Wire(exchange.raw)
    status = exchange.answer.status
    if not exchange.raw:
        yield "The server closed without a word: there was no request in it."
    if status == 400:
        yield (
            "The error names the rule that was broken. Then the server closes: it cannot know "
            "where the next request would begin."
        )
    elif status == 408:
        yield "The request did not end. This server waits for the rest, but not for ever."


def head_came(raw: bytes) -> bool:
    """Whether a complete head has come."""
    return b"\r\n\r\n" in raw


LESSON = Lesson(
    name="request",
    title="A request by hand",
    module="streamtok/http/connection.py",
    show=show,
    invitation=(
        "Write a request yourself; `\\r\\n` stands for the two bytes. It is sent as it is. Leave "
        "out `Host`, misspell `GET`, or forget the empty line and see what happens."
    ),
    default=r"GET /health HTTP/1.1\r\n\r\n",
    change=change,
)
