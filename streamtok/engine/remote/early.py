"""The engine's process, started before the server has imported what it needs itself.

Both take as long to import, and the engine's process has the model to load besides. So a command
that serves starts it first: it imports and loads while the server does the same, and waits for its
`Setup`. This module imports next to nothing, so that it can be used at once.

Read next: `streamtok.engine.remote.spawn`.
"""

import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import streamtok

MODULE = "streamtok.engine.remote.child"


class EarlyProcess:
    """A process with one end of a socket pair, and the other end, for whoever takes them.

    If nobody does, `close` ends the process. `folder` is the model that it loads meanwhile.

    Raises:
        OSError: the system has no room for one more process.
    """

    def __init__(self, folder: Path, log_level: int) -> None:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = popen(theirs, str(folder), str(log_level))
        except BaseException:
            ours.close()
            raise
        self._ours: socket.socket | None = ours

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def take(self) -> tuple[subprocess.Popen[bytes], socket.socket] | None:
        """Return the process and the socket to it, once."""
        ours, self._ours = self._ours, None
        return (self._process, ours) if ours is not None else None

    def close(self) -> None:
        """End the process, unless it was taken."""
        if taken := self.take():
            process, ours = taken
            ours.close()
            process.kill()
            process.wait()


def start(folder: Path, log_level: int) -> EarlyProcess | None:
    """Start a process, where that is possible so early: not on Windows."""
    if not hasattr(socket, "AF_UNIX") or hasattr(socket.socket, "share"):
        return None
    with suppress(OSError):  # the server tries again, and says what is wrong
        return EarlyProcess(folder, log_level)
    return None


def popen(theirs: socket.socket, *arguments: str) -> subprocess.Popen[bytes]:
    """Start the process, which gets the socket `theirs`, in a process group of its own.

    Ctrl-C in a terminal is then sent to the server alone.
    """
    paths = [str(Path(streamtok.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    if not hasattr(theirs, "share"):
        return subprocess.Popen(
            [sys.executable, "-m", MODULE, str(theirs.fileno()), *arguments],
            env=environment,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            process_group=0,
        )
    process = subprocess.Popen(
        [sys.executable, "-m", MODULE],
        env=environment,
        stdin=subprocess.PIPE,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )
    assert process.stdin is not None
    with suppress(OSError), process.stdin:  # it may have ended already
        process.stdin.write(theirs.share(process.pid))
    return process
