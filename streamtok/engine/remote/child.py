"""The process that an engine has for itself: `python -m streamtok.engine.remote.child FD`.

FD is a socket to the server's process: a `Setup` comes over it, `Facts` or an error goes back, then
orders come and events go, all as `streamtok.engine.remote.frames` has it. When the other end is
closed, this process ends. Signals are the server's business.

Read next: `streamtok.engine.remote.process`, the other end.
"""

import logging
import select
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from streamtok.config import EngineConfig
from streamtok.engine.core import Close, Core
from streamtok.engine.extras.grammars import Grammars, Vocabulary
from streamtok.engine.remote.frames import Frames, frame, pack
from streamtok.errors import StreamtokError
from streamtok.model.load import load

READ_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Setup:
    """What the engine is made from; without a `vocabulary` there are no constraints."""

    config: EngineConfig
    vocabulary: Vocabulary | None
    log_level: int


class Line:
    """The socket, as the engine uses it: it waits for nothing but orders."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._frames = Frames()

    def take(self, wait: bool) -> Iterator[Any]:
        """Yield the messages that have come; if `wait`, once there is one. The end is a Close."""
        while wait or select.select([self._connection], [], [], 0)[0]:
            try:
                data = self._connection.recv(READ_BYTES)
            except ConnectionError:  # the other end did not read what was sent last
                data = b""
            if not data:
                yield Close()
                return
            for message in self._frames.feed(data):
                wait = False
                yield message

    def send(self, message: Any) -> None:
        """Send a message, unless nobody is there any more."""
        with suppress(ConnectionError):  # whose end comes as a Close
            self._connection.sendall(frame(message))


def main(line: Line) -> None:
    """Serve until the other end says so, or is gone."""
    (setup,) = line.take(True)
    if isinstance(setup, Close):  # whoever started it is gone already
        return
    logging.basicConfig(
        level=setup.log_level, format="%(asctime)s engine %(levelname)s %(message)s"
    )
    try:
        grammars = Grammars(setup.vocabulary) if setup.vocabulary else None
        core = Core(load(setup.config.model_folder), setup.config, grammars)
    except StreamtokError as error:
        line.send(error)
        return
    line.send(core.facts)
    core.serve(line.take, lambda events: line.send(pack(events)))


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    main(Line(socket.socket(fileno=int(sys.argv[1]))))
