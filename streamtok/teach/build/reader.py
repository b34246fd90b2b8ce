"""Exercise 3: a client that reads chunks cut anywhere."""

import itertools
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec import Struct

from streamtok.teach.build.exercise import Exercise, Wrong, check, shown
from streamtok.teach.build.kit import LAST_CHUNK, READY, chunk
from streamtok.teach.build.program import output_of

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
TEXTS = ("A fox", " in Zürich", " \U0001f98a", " said:", ' "hm"', "\n")
COMPLETE, CUT = "complete", "cut"


def event(text: str, end: str = "\n", colon: str = "data: ") -> bytes:
    """Return an event with `text` in its JSON."""
    choice = {"index": 0, "text": text, "finish_reason": None}
    return f"{colon}{json.dumps({'choices': [choice]}, ensure_ascii=False)}{end}{end}".encode()


DONE = b"data: [DONE]\n\n"
EVENTS = [event(text) for text in TEXTS]
WHOLE = HEAD + b"".join(map(chunk, [*EVENTS, DONE])) + LAST_CHUNK


def _split(data: bytes, *places: int) -> list[bytes]:
    cuts = [0, *sorted(places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(cuts)]


def _inside(data: bytes, part: bytes, after: int) -> list[bytes]:
    """Return `data` in two reads, cut `after` so many bytes of `part`."""
    return _split(data, data.index(part) + after)


class Case(Struct, frozen=True):
    """One stream: the bytes of each read, the text in it, and what a wrong result means."""

    name: str
    reads: Sequence[bytes]
    problem: str
    ends: str = COMPLETE
    text: str = "".join(TEXTS)


CASES = (
    Case("one event in a read", [HEAD, *map(chunk, [*EVENTS, DONE]), LAST_CHUNK], "begin here"),
    Case(
        "several events in one read",
        [WHOLE],
        "several chunks came in one read: a read gives what has arrived, not one chunk",
    ),
    Case(
        "a read that ends inside an event's JSON",
        _inside(WHOLE, b"A fox", 2),
        "a read ended inside an event: keep what is not complete for the next read",
    ),
    Case(
        "a read that ends inside a chunk's size",
        _split(WHOLE, len(HEAD) + 1),
        "a read ended inside the line with a chunk's size: keep it until its \\r\\n has come",
    ),
    Case(
        "a read that ends inside a letter",
        _inside(WHOLE, "ü".encode(), 1),
        "a read ended inside a letter of two bytes: collect bytes, and decode a complete event",
    ),
    Case(
        "one event in three chunks",
        [HEAD + b"".join(map(chunk, _split(b"".join([*EVENTS, DONE]), 9, 30, 50))) + LAST_CHUNK],
        "an event came in several chunks: chunks are HTTP's, events are the body's, and their ends "
        "are found independently",
    ),
    Case(
        "all events in one chunk",
        [HEAD + chunk(b"".join([*EVENTS, DONE])) + LAST_CHUNK],
        "one chunk held several events: an empty line ends an event, not the chunk's end",
    ),
    Case("a byte in a read", [bytes([byte]) for byte in WHOLE], "each byte came in its own read"),
    Case(
        "comments, and a space that is missing",
        [
            HEAD
            + chunk(b": ping\n\n" + b"".join(event(text, colon="data:") for text in TEXTS) + DONE)
            + LAST_CHUNK
        ],
        "a line that begins with `:` is a comment, and the space behind `data:` is optional",
    ),
    Case(
        "lines that end with \\r\\n",
        [
            HEAD
            + chunk(b"".join(event(text, end="\r\n") for text in TEXTS) + b"data: [DONE]\r\n\r\n")
            + LAST_CHUNK
        ],
        "lines of events may end with \\r\\n too",
    ),
    Case(
        "a size with an extension, in capitals",
        [HEAD + b"".join(b"%X;a=b\r\n%b\r\n" % (len(e), e) for e in [*EVENTS, DONE]) + LAST_CHUNK],
        "behind a chunk's size there may be `;name=value` (RFC 9112 section 7.1.1), and its digits "
        "may be capitals",
    ),
    Case(
        "a connection that breaks between events",
        [WHOLE[: WHOLE.index(chunk(EVENTS[3]))]],
        "the connection closed before the zero chunk: that answer is not complete, raise EOFError",
        CUT,
        "".join(TEXTS[:3]),
    ),
    Case(
        "a connection that breaks inside an event",
        [WHOLE[: WHOLE.index(b"said")]],
        "the connection closed inside an event: that answer is not complete, raise EOFError",
        CUT,
        "".join(TEXTS[:3]),
    ),
)


def grade(file: Path) -> Iterator[str]:
    """Have the client read each stream, from a server that sends it in these pieces."""
    with _servers(CASES) as ports:
        output = output_of(file, *map(str, ports))
    lines = output.splitlines()
    check(len(lines) == len(CASES), f"expected a line of JSON for each port, found {shown(output)}")
    for case, line in zip(CASES, lines, strict=True):
        text, ends = _result(line)
        if (text, ends) == (case.text, case.ends):
            yield case.name
            continue
        raise Wrong(f"{case.name}: {_problem(case, text, ends)}")


def _problem(case: Case, text: str, ends: str) -> str:
    if case.ends == CUT and ends == COMPLETE:
        return case.problem
    if ends not in (COMPLETE, CUT):
        return f"{case.problem}. Your program raised {ends}"
    if case.ends == COMPLETE and ends == CUT:
        return f"{case.problem}. Your program raised EOFError, but the stream is complete"
    return f"{case.problem}. The text is {shown(case.text)}, yours {shown(text)}"


def _result(line: str) -> tuple[str, str]:
    try:
        text, ends = json.loads(line)
        return str(text), str(ends)
    except ValueError:
        raise Wrong(f"expected a line of JSON, [text, how it ended], found {shown(line)}") from None


@contextmanager
def _servers(cases: Sequence[Case]) -> Iterator[list[int]]:
    """Listen on a port for each case, which is sent to whoever connects there."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in cases]
    threads = [
        threading.Thread(target=_send, args=(sock, case.reads), daemon=True)
        for sock, case in zip(sockets, cases, strict=True)
    ]
    for thread in threads:
        thread.start()
    try:
        yield [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            with suppress(OSError):  # wakes a thread that nobody has connected to
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in threads:
            thread.join()


def _send(listening: socket.socket, reads: Sequence[bytes]) -> None:
    """Send each of the `reads` when the client is about to read; then the end, until it leaves."""
    with suppress(OSError):
        connection, _ = listening.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            request = connection.makefile("rb")
            while request.readline() not in (b"\r\n", b""):
                pass
            for data in reads:
                if request.read(len(READY)):
                    connection.sendall(data)
            if request.read(len(READY)):
                connection.shutdown(socket.SHUT_WR)
            request.read()


EXERCISE = Exercise(
    name="reader",
    title="A client that reads chunks cut anywhere",
    task=(
        "Write `texts`. It is given `receive`, which returns the bytes that have arrived (at least "
        'one, or b"" when the connection is closed), and yields the text of each event. The same '
        "stream comes in reads of every kind. Where the connection closes before the zero chunk, "
        "raise EOFError."
    ),
    hints=(
        (
            "Three layers, each with a buffer of its own for what is not complete: bytes to "
            "chunks, chunks to lines, lines to events. Write one generator for each."
        ),
        (
            "A chunk is complete when its size line, its data and the \\r\\n behind it have come. "
            "Until then, receive more."
        ),
        "Work on bytes. Only a complete line is decoded: UTF-8 letters can be cut too.",
    ),
    real=(
        "Web clients called JSON.parse on what one read gave, and showed `Unexpected end of JSON "
        "input` whenever a proxy cut differently (lianginx/chatgpt-nuxt #12, "
        "alexrudall/ruby-openai #332, atomantic/PortOS #7558). POCO's client took a stream that "
        "broke for a complete one (pocoproject/poco #5032)."
    ),
    grade=grade,
)
