"""Exercise 1: a chunked response by hand."""

import socket

from streamtok.teach.build.kit import serve, tokens

HEAD = (
    b"HTTP/1.1 200 OK\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n"
    b"Connection: close\r\n"
    b"\r\n"
)


def respond(connection: socket.socket) -> None:
    """Send the head, each of `tokens()` as a chunk, and the end. The request was read."""
    connection.sendall(HEAD)
    for token in tokens():
        data = token.encode()
        if data:  # a chunk of size 0 would end the body
            connection.sendall(b"%x\r\n%b\r\n" % (len(data), data))
    connection.sendall(b"0\r\n\r\n")


if __name__ == "__main__":
    serve(respond)
