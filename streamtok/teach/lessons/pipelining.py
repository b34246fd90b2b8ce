"""Keep-alive and pipelining."""

from streamtok.observe.annotate import answer_starts
from streamtok.teach.lessons.lab import Lab, get
from streamtok.teach.lessons.lesson import Blocks, Lesson, Question, Table, Wire, whole_number

TARGETS = (
    "/v1/generate?prompt=Once+upon+a+time&max_tokens=4&temperature=0",
    "/health",
    "/v1/models",
)
FRAMING = frozenset({"content-length", "transfer-encoding", "connection"})


def requests(last: int) -> bytes:
    """Return all requests, of which number `last` says that it is the last one."""
    return b"".join(
        get(target, *(["Connection: close"] if number == last else []))
        for number, target in enumerate(TARGETS, 1)
    )


def show(lab: Lab) -> Blocks:
    """Send three requests at once, and see the order of the answers."""
    exchange = lab.exchange(requests(last=3))
    yield (
        "Since HTTP/1.1 a connection stays open after an answer, unless one side says "
        "`Connection: close` (RFC 9112 section 9.3): the next request need not wait for a new one. "
        "A client may even send requests before it has any answer: pipelining. These three leave "
        "in one write:"
    )
    yield Wire(exchange.sent, sent=True)
    yield Question(
        "The first asks for a stream of tokens, the other two for a few bytes that the server has "
        "at hand. Which answer comes first?",
        "That of the first request",
        "Answers have no number that says what they answer. So they come in the order of the "
        "requests (RFC 9112 section 9.3.2), and a slow one holds up all behind it. Browsers open "
        "several connections instead; HTTP/2 gives each request a number.",
        "How could the client tell which answer belongs to which request?",
        (
            "That of the first request",
            "Those that are ready first",
            "None: a server refuses requests sent ahead",
        ),
    )
    yield Wire(exchange.raw, fields=FRAMING)
    times = [exchange.at_s(start) for start in answer_starts(exchange.raw)]
    yield Table(
        ("answer", "began after"),
        tuple((str(n), f"{1000 * time:.1f} ms") for n, time in enumerate(times, 1)),
    )
    yield (
        "The client finds where one answer ends and the next begins by the zero chunk and by "
        "`Content-Length`. Without correct framing there is no second answer."
    )


def change(lab: Lab, given: str) -> Blocks:
    """Let another request be the last."""
    last = whole_number(given, 1, len(TARGETS))
    exchange = lab.exchange(requests(last))
    yield Wire(exchange.raw, fields=FRAMING)
    count = len(answer_starts(exchange.raw))
    yield (
        f"Answered: {count} of {len(TARGETS)} requests. After the answer to the one that said "
        "`Connection: close` the server closes, and answers nothing behind it (RFC 9112 section "
        "9.6). What is lost so the client must send again, on another connection."
    )


LESSON = Lesson(
    name="pipelining",
    title="One connection, many requests",
    module="streamtok/http/connection.py",
    show=show,
    invitation="Which of the three requests (1 to 3) should say `Connection: close`?",
    default="1",
    change=change,
)
