"""Exercise 3: a client that reads chunks cut anywhere. `streamtok learn build 3` grades this."""

import json
import socket
import sys
from collections.abc import Callable, Iterator

from streamtok.teach.build.kit import reads


def texts(receive: Callable[[], bytes]) -> Iterator[str]:
    """Yield the text of each event in a chunked response, whose head comes first.

    `receive()` returns the bytes that have arrived; b"" when the connection is closed.

    Raises:
        EOFError: the connection closes before the zero chunk.
    """
    # YOUR CODE
    raise NotImplementedError
    yield ""


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
