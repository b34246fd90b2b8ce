"""The engine's own process: `python -m streamtok.engine.remote.child [FD [MODEL]]`.

FD is a socket to the server's process; without it, standard input says how to take one over, which
is Windows' way. With MODEL, a folder or nothing, it is loaded while the server is starting. A
`Setup` comes over the socket, `EngineInfo` or an error goes back, then commands come and events go,
all framed by `streamtok.engine.remote.frames`. When the other end is closed, this process ends.
Signals are handled by the server.

Read next: `streamtok.engine.remote.spawn`, the other end.
"""

import logging
import select
import signal
import socket
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

from streamtok.config import EngineConfig
from streamtok.engine.commands import Close
from streamtok.engine.core import EngineCore
from streamtok.engine.extras import all_extras
from streamtok.engine.extras.grammars import Grammars
from streamtok.engine.remote.frames import Frames, frame, pack
from streamtok.errors import StreamtokError
from streamtok.model.load import load

READ_BYTES = 64 * 1024


class ServerConnection:
    """The connection to the server, as the engine uses it: it waits for nothing but commands."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._frames = Frames()
        self._arrived: deque[Any] = deque()

    def next(self) -> Any:
        """Return the next message, waiting for it. The end of the connection is a Close."""
        while not self._arrived:
            self._read()
        return self._arrived.popleft()

    def take(self, wait: bool) -> Iterator[Any]:
        """Yield the messages that have arrived; if `wait`, once there is one."""
        while wait or self._arrived or select.select([self._connection], [], [], 0)[0]:
            message, wait = self.next(), False
            yield message
            if isinstance(message, Close):
                return

    def send(self, message: Any) -> None:
        """Send a message, unless the other end is gone."""
        with suppress(ConnectionError):  # the next read gives the Close
            self._connection.sendall(frame(message))

    def _read(self) -> None:
        try:
            data = self._connection.recv(READ_BYTES)
        except ConnectionError:  # the other end did not read what was sent last
            data = b""
        self._arrived += self._frames.feed(data) if data else [Close()]


def main(server: ServerConnection, folder: Path | None = None) -> None:
    """Serve until the other end says so, or is gone; `folder` is a model to load meanwhile."""
    decoder, root = None, logging.getLogger()
    # What is logged before the server has taken this process is of no interest if it never does.
    held = MemoryHandler(1000, flushLevel=logging.CRITICAL + 1)
    if folder is not None:
        root.setLevel(logging.DEBUG)
        root.addHandler(held)
        with suppress(StreamtokError):  # if the server still wants it, it is told then
            decoder = load(folder)
        all_extras()  # and import what they need
    setup = server.next()
    if isinstance(setup, Close):  # the process that started this one is gone
        return
    root.removeHandler(held)
    logging.basicConfig(
        level=setup.log_level, format="%(asctime)s engine %(levelname)s %(message)s"
    )
    held.buffer = [record for record in held.buffer if record.levelno >= setup.log_level]
    held.setTarget(root.handlers[0])
    held.close()
    try:
        grammars = Grammars(setup.vocabulary) if setup.vocabulary else None
        if decoder is None or setup.config.model_folder != folder:
            decoder = load(setup.config.model_folder)
        core = EngineCore(decoder, setup.config, all_extras(grammars))
    except StreamtokError as error:
        server.send(error)
        return
    server.send(core.info)
    core.serve(server.take, lambda events: server.send(pack(events)))


def _connect(arguments: list[str]) -> socket.socket:
    """Return the socket that the parent has handed over."""
    if arguments:
        return socket.socket(fileno=int(arguments[0]))
    if hasattr(socket, "fromshare"):
        shared: socket.socket = socket.fromshare(sys.stdin.buffer.read())
        return shared
    raise SystemExit("streamtok.engine.remote.child: expected the number of a socket")


if __name__ == "__main__":
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    early = EngineConfig(sys.argv[2]).model_folder if len(sys.argv) > 2 else None
    main(ServerConnection(_connect(sys.argv[1:])), early)
