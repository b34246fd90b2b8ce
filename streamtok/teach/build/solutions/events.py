"""Exercise 2: server-sent events in chunks."""

import json
import socket

from streamtok.teach.build.kit import LAST_CHUNK, chunk, serve, story

HEAD = (
    b"HTTP/1.1 200 OK\r\n"
    b"Content-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n"
    b"Connection: close\r\n"
    b"\r\n"
)


def event(text: str, reason: str | None) -> bytes:
    """Return one event as a chunk."""
    choice = {"index": 0, "text": text, "finish_reason": reason}
    return chunk(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())


def respond(connection: socket.socket) -> None:
    """Send the head, each of `story()` as an event in a chunk, and the end."""
    connection.sendall(HEAD)
    for token in story():
        connection.sendall(event(token, None))
    connection.sendall(event("", "stop"))
    connection.sendall(chunk(b"data: [DONE]\n\n") + LAST_CHUNK)


if __name__ == "__main__":
    serve(respond)
