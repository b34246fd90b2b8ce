"""Exercise 3: a client that reads chunks cut anywhere."""

import json
import socket
import sys
from collections.abc import Callable, Iterator

from streamtok.teach.build.kit import reads


def body(receive: Callable[[], bytes]) -> Iterator[bytes]:
    """Yield the data of each chunk. Raises EOFError."""
    buffer = b""

    def until(end: bytes) -> bytes:
        """Return what stands before the next `end`, and drop both."""
        nonlocal buffer
        while end not in buffer:
            buffer += more()
        found, _, buffer = buffer.partition(end)
        return found

    def more() -> bytes:
        data = receive()
        if not data:
            raise EOFError
        return data

    until(b"\r\n\r\n")  # the head
    while True:
        size = int(until(b"\r\n").partition(b";")[0], 16)
        if size == 0:
            return
        while len(buffer) < size + 2:
            buffer += more()
        yield buffer[:size]
        buffer = buffer[size + 2 :]


def lines(chunks: Iterator[bytes]) -> Iterator[str]:
    """Yield the lines of a body."""
    buffer = b""
    for chunk in chunks:
        buffer += chunk
        *complete, buffer = buffer.split(b"\n")
        for line in complete:
            yield line.removesuffix(b"\r").decode()


def texts(receive: Callable[[], bytes]) -> Iterator[str]:
    """Yield the text of each event in a chunked response, whose head comes first.

    `receive()` returns the bytes that have arrived; b"" when the connection is closed.

    Raises:
        EOFError: the connection closes before the zero chunk.
    """
    data = ""
    for line in lines(body(receive)):
        if line.startswith("data:"):
            data += line.removeprefix("data:").removeprefix(" ")
        elif not line and data:
            if data != "[DONE]":
                yield json.loads(data)["choices"][0]["text"]
            data = ""


def main() -> None:
    """Read from each port in the arguments; print [text, how it ended] as JSON."""
    for port in sys.argv[1:]:
        found, ends = [], "complete"
        with socket.create_connection(("127.0.0.1", int(port))) as connection:
            try:
                for text in texts(reads(connection)):
                    found.append(text)
            except EOFError:
                ends = "cut"
            except Exception as error:
                ends = repr(error)
        print(json.dumps(["".join(found), ends]))


if __name__ == "__main__":
    main()
