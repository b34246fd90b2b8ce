"""What the skeletons import: tokens that come one after the other, and a server around `respond`.

It imports nothing else of the package, and the kits of later exercises stand in modules of their
own, so that a learner's program starts at once.
"""

import socket
import sys
import time
from collections.abc import Callable, Iterator

PAUSE_S = 0.02  # between tokens, in place of the model's computation
# Lengths above 9 and 15, letters of several bytes, and nothing at all: a token may be empty.
TOKENS = (
    "Once",
    " upon",
    " a time",
    ", a fox found a lantern",
    "",
    " in Zürich",
    " \U0001f98a",
    ".",
)
STORY = ("She said:", "\n", '"Run, little fox!"', " \U0001f98a", "\n\n", "The end.")
LAST_CHUNK = b"0\r\n\r\n"


def tokens() -> Iterator[str]:
    """Yield the tokens of exercise 1, with pauses."""
    return _paused(TOKENS)


def story() -> Iterator[str]:
    """Yield the tokens of exercise 2, with pauses."""
    return _paused(STORY)


def _paused(texts: tuple[str, ...]) -> Iterator[str]:
    for text in texts:
        time.sleep(PAUSE_S)
        yield text


def chunk(data: bytes) -> bytes:
    """Return `data` as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def serve(respond: Callable[[socket.socket], None]) -> None:
    """Listen on the port in the first argument; call `respond` once a request was read."""
    accept(lambda connection, _: respond(connection))


def accept(respond: Callable[[socket.socket, bytes], None]) -> None:
    """Listen as `serve` does; `respond` is given the request too."""
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
        while True:
            connection, _ = server.accept()
            with connection:
                request = b""
                while b"\r\n\r\n" not in request and (data := connection.recv(65536)):
                    request += data
                if request:
                    respond(connection, request)


# Exercise 3: a connection whose reads end where the exercise says

READY = b"."


def reads(connection: socket.socket) -> Callable[[], bytes]:
    """Ask for the stream, and return `receive`.

    Before each read it says so, and only then does the server send the next bytes: a read ends at
    the same place on a busy machine.
    """
    connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")

    def receive() -> bytes:
        connection.sendall(READY)
        return connection.recv(65536)

    return receive
