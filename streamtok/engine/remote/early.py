"""The engine's process, started before the server has imported what it needs itself.

Both take as long to import, and the engine's process has the model to load besides. So the command
that serves starts it first, before it knows its settings: the process imports and loads while the
server does the same, and waits for its `Setup`. This module imports next to nothing, so that it can
be used at once.

Read next: `streamtok.engine.remote.spawn`.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import streamtok

MODULE = "streamtok.engine.remote.child"
WITHOUT = ("-h", "--h", "--engine", "--script-only", "--workers")  # flags with which none is needed


class EarlyProcess:
    """A process with one end of a socket pair, and the other end, for whoever takes them.

    If nobody does, `close` ends the process. It loads `model` meanwhile, a folder, or the one that
    is shipped where that is empty.

    Raises:
        OSError: the system has no room for one more process.
    """

    def __init__(self, model: str) -> None:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = popen(theirs, model)
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


def ahead(arguments: Sequence[str], environment: Mapping[str, str]) -> EarlyProcess | None:
    """Start a process if `arguments` are a command line that seems to need one.

    The model is a guess too: the `Setup` says which one it is.
    """
    elsewhere = environment.get("STREAMTOK_ENGINE", "process") != "process"
    if elsewhere or arguments[:1] != ["serve"] or any(a.startswith(WITHOUT) for a in arguments):
        return None
    model = environment.get("STREAMTOK_MODEL", "")
    for word, after in pairwise((*arguments, "")):
        flag, equals, value = word.partition("=")
        model = (value if equals else after) if flag == "--model" else model
    return start(model)


def start(model: str) -> EarlyProcess | None:
    """Start a process, where that is possible so early: not on Windows."""
    if not hasattr(socket, "AF_UNIX") or hasattr(socket.socket, "share"):
        return None
    with suppress(OSError):  # the server tries again, and says what is wrong
        return EarlyProcess(model)
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
