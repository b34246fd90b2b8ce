"""Imported at the start of every process: takes away what Windows does not have.

It stands in for Windows as far as Python's own interface differs: no Unix sockets, signals of its
own, no fork, no `resource`, an event loop that does not watch sockets, sockets that are handed to
other processes by `share`.
"""

import asyncio
import mmap
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from typing import Any

UNIX = socket.AF_UNIX


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        return one, listener.accept()[0]


def share(sock: socket.socket, process: int) -> bytes:
    """Hand over a socket; Windows duplicates it into the other process right away."""
    path = tempfile.mktemp()
    listener = socket.socket(UNIX)
    listener.bind(path)
    listener.listen()
    copy = sock.dup()

    def hand_over() -> None:
        with listener, listener.accept()[0] as connection, copy:
            os.unlink(path)
            socket.send_fds(connection, [b"."], [copy.fileno()])

    threading.Thread(target=hand_over, daemon=True).start()
    return path.encode()


def fromshare(data: bytes) -> socket.socket:
    with socket.socket(UNIX) as connection:
        connection.connect(data.decode())
        return socket.socket(fileno=socket.recv_fds(connection, 1, 1)[1][0])


def not_implemented(*_: Any, **__: Any) -> None:
    raise NotImplementedError


class WindowsPopen(subprocess.Popen[bytes]):
    """Refuses what only POSIX has."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        if unknown := options.keys() & {"pass_fds", "process_group", "preexec_fn"}:
            raise ValueError(f"{unknown} are not supported on Windows platforms")
        super().__init__(*arguments, **options)


class Proactor(asyncio.SelectorEventLoop):
    """The default event loop, which does not watch sockets."""

    add_reader = add_writer = not_implemented  # type: ignore[assignment]


asyncio.SelectorEventLoop.add_signal_handler = not_implemented  # type: ignore[assignment]
asyncio.SelectorEventLoop.create_unix_connection = not_implemented  # type: ignore[assignment]
asyncio.SelectorEventLoop.create_unix_server = not_implemented  # type: ignore[assignment]
asyncio.DefaultEventLoopPolicy._loop_factory = Proactor  # type: ignore[attr-defined]
subprocess.Popen = WindowsPopen  # type: ignore[misc]
socket.socketpair = tcp_pair  # type: ignore[assignment]
socket.socket.share = share  # type: ignore[attr-defined]
socket.fromshare = fromshare  # type: ignore[attr-defined]
socket.SO_EXCLUSIVEADDRUSE = socket.SO_REUSEADDR  # type: ignore[attr-defined]
multiprocessing.get_all_start_methods = lambda: ["spawn"]  # type: ignore[assignment]
os.process_cpu_count = os.cpu_count  # type: ignore[attr-defined,unused-ignore]  # since 3.13, as there
for module, names in (
    (socket, ("AF_UNIX", "SO_REUSEPORT", "SO_ACCEPTCONN")),
    (signal, ("SIGHUP", "SIGKILL", "SIGPIPE", "pthread_sigmask")),
    (os, ("fork", "sysconf", "sched_getaffinity", "fchmod")),
    (mmap, ("MADV_NOHUGEPAGE",)),
):
    for name in names:
        delattr(module, name)
for name in ("resource", "fcntl", "termios", "pwd", "grp", "readline", "uvloop"):
    sys.modules[name] = None  # type: ignore[assignment]
