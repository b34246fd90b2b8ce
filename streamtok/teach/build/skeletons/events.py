"""Exercise 2: server-sent events in chunks. `streamtok learn build 2` grades this file."""

import socket

from streamtok.teach.build.kit import LAST_CHUNK, chunk, serve, story


def respond(connection: socket.socket) -> None:
    """Send the head, each of `story()` as an event in a chunk, and the end."""
    # YOUR CODE
    raise NotImplementedError


if __name__ == "__main__":
    serve(respond)
