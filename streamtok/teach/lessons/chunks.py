"""Chunk framing."""

from itertools import pairwise

from streamtok.observe.annotate import Line, annotate
from streamtok.teach.lessons.lab import Lab, answered, post
from streamtok.teach.lessons.lesson import Blocks, Lesson, Question, Table, Wire

FRAMING = frozenset({"content-type", "transfer-encoding"})
BODY = b'{"prompt": "Once", "max_tokens": 1}'


def sizes(raw: bytes) -> list[tuple[Line, int]]:
    """Return the line before each chunk's data, and how many bytes these are."""
    lines = annotate(raw)
    framing = [n for n, line in enumerate(lines) if line.kind == "framing"]
    return [
        (lines[size], sum(len(line.data) for line in lines[size + 1 : end]))
        for size, end in pairwise(framing)
        if end > size + 1
    ]


def show(lab: Lab) -> Blocks:
    """Read the chunks of two tokens."""
    body = {"prompt": "Once upon", "max_tokens": 2, "temperature": 0, "stream": True}
    exchange = lab.exchange(post("/v1/completions", body))
    found = sizes(exchange.raw)
    size = found[0][1]
    written = found[0][0].data.strip().decode()
    yield (
        "`Transfer-Encoding: chunked` says that the body comes in pieces (RFC 9112 section 7.1). A "
        "chunk is a line with its size, then so many bytes, then `\\r\\n`. Here the model made two "
        "tokens. The server sent each as an event in JSON, and two more that end the answer."
    )
    yield Wire(exchange.raw, fields=FRAMING, notes=False)
    yield (
        "The size is written in hexadecimal: after 9 the digits go on with a for 10, up to f for "
        "15, and the last digit but one counts sixteens. It is the size of the data only, without "
        "the `\\r\\n` behind them."
    )
    yield Question(
        f"The first chunk's line is `{written}`. How many bytes of data follow it?",
        str(size),
        f"0x{written} is {' + '.join(_places(written))} = {size}. A client reads the line, then "
        "exactly that many bytes, whatever they are: data may hold `\\r\\n` too.",
        f"Add up {' and '.join(place.partition(' = ')[0] for place in _places(written))}.",
    )
    rows = [(line.data.strip().decode(), str(count)) for line, count in found]
    yield Table(("size line", "bytes of data"), (*rows, ("0", "0")))
    total = sum(count for _, count in found)
    yield (
        f"Together {total} bytes: that is the body. The zero chunk says that it is complete. If it "
        "is missing, the client knows that something was lost."
    )


def change(lab: Lab, given: str) -> Blocks:
    """Send a chunk with the size that the learner says."""
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    size_line = given.encode() + b"\r\n"
    exchange = lab.exchange(head + size_line + BODY + b"\r\n0\r\n\r\n", answered)
    yield Wire(exchange.sent, sent=True, fields=FRAMING)
    yield Wire(exchange.raw, fields=frozenset({"connection"}))
    if exchange.answer.status == 200:
        yield "The size is right, and the server found the zero chunk where it looked for it."
    elif exchange.answer.status == 408:
        yield "The server waited for the rest of so large a chunk. It never came."
    elif exchange.answer.status == 413:
        yield "The server takes no body of that size, and does not wait for it."
    else:
        yield (
            f"{len(BODY)} bytes are 0x{len(BODY):x}. A receiver cannot guess what was meant; one "
            "that tries lets others smuggle requests past a proxy that guesses differently."
        )


def _places(written: str) -> list[str]:
    """Return what each digit of a hexadecimal number stands for."""
    powers = range(len(written) - 1, -1, -1)
    return [
        f"{int(digit, 16)} times {16**power}" for digit, power in zip(written, powers, strict=True)
    ]


LESSON = Lesson(
    name="chunks",
    title="Chunks: how a body is cut",
    module="streamtok/http/framings.py",
    show=show,
    invitation=(
        "A client may send chunks too. This one sends the body "
        f"`{BODY.decode()}`, {len(BODY)} bytes long, as one chunk. What should its size line say? "
        "Try a wrong size as well."
    ),
    default=f"{len(BODY) - 1:x}",
    change=change,
)
