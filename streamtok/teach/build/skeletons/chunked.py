"""Exercise 1: a chunked response by hand. `streamtok learn build 1` grades this file."""

import socket

from streamtok.teach.build.kit import serve, tokens


def respond(connection: socket.socket) -> None:
    """Send the head, each of `tokens()` as a chunk, and the end. The request was read."""
    # YOUR CODE: connection.sendall(b"...") sends bytes, `for token in tokens():` has the text
    raise NotImplementedError


if __name__ == "__main__":
    serve(respond)
