"""Exercise 1: a chunked response by hand."""

from collections.abc import Iterator
from pathlib import Path

from streamtok.teach.build.exercise import Exercise, check, shown
from streamtok.teach.build.kit import PAUSE_S, TOKENS
from streamtok.teach.build.program import Program, serving
from streamtok.teach.build.wire import Response, ask, get, read_chunks, read_head

TRIES = 3  # while all comes at once
EXPECTED = tuple(filter(None, TOKENS))


def grade(file: Path) -> Iterator[str]:
    """Send one request, and read its response byte by byte."""
    with serving(file) as program:
        response = ask_paced(program)
    _, start = read_head(response.raw)
    yield "the head is a head, and says that chunks follow"
    chunks = read_chunks(response.raw, start, EXPECTED)
    yield f"{len(chunks)} chunks are framed right, and the zero chunk ends the body"
    text = b"".join(data for _, data in chunks)
    check(text == "".join(TOKENS).encode(), f"the text is not that of the tokens: {shown(text)}")
    check(
        len(chunks) == len(EXPECTED),
        f"the tokens are {len(EXPECTED)} without the empty one, and came in {len(chunks)} chunks: "
        "send one for each",
    )
    yield "each token is a chunk"
    check_pace(response, chunks)
    yield "each was sent as soon as it existed"


def ask_paced(program: Program) -> Response:
    """Return a response; up to three times where all came at once, as on a busy machine."""
    for _ in range(TRIES):
        response = ask(program, get(program))
        if response.times[-1][1] - response.times[0][1] > PAUSE_S:
            break
    return response


def check_pace(response: Response, chunks: list[tuple[int, bytes]]) -> None:
    """Check that the chunks did not all come at the end. Raises Wrong."""
    first_s, last_s = (response.at_s(offset) for offset, _ in (chunks[0], chunks[-1]))
    check(
        last_s - first_s > PAUSE_S,
        f"all chunks came at once, after {1000 * last_s:.0f} ms: send each before you ask for the "
        "next token",
    )


EXERCISE = Exercise(
    name="chunked",
    title="A chunked response by hand",
    task=(
        "Write `respond`. It sends the head of a response whose length nobody knows yet, then each "
        "token as a chunk of its own as soon as it exists, then the end. The text is UTF-8."
    ),
    hints=(
        (
            "A head: `HTTP/1.1 200 OK`, a line for each field (`Content-Type: text/plain; "
            "charset=utf-8`, `Transfer-Encoding: chunked`, `Connection: close`), an empty line. "
            "Each line ends with \\r\\n."
        ),
        (
            'A chunk: the number of bytes in hexadecimal, \\r\\n, the bytes, \\r\\n. `b"%x" % 23` '
            "is `17`. Encode the text first, then count."
        ),
        (
            "A chunk of size 0 ends the body: `0\\r\\n\\r\\n`. So an empty token must not become a "
            "chunk."
        ),
    ),
    real=(
        "Netty left out the zero chunk (netty/netty #1861, 2013). POCO's client took a body "
        "without it for complete (pocoproject/poco #5032), and so did Node's parser "
        "(nodejs/llhttp #20)."
    ),
    grade=grade,
)
