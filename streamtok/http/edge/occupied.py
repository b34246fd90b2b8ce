"""A port that cannot be had: who listens there, as far as Linux tells it, and the next free one."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

PROC = Path("/proc")
LISTENING = "0A"  # the kernel's TCP_LISTEN, in hexadecimal
UNPRIVILEGED = 8000  # a port that needs no rights
NEARBY = 100  # ports that are tried
COMMAND_LENGTH = 60  # characters of a command line that are shown


def port_hint(error: Exception, port: int, is_free: Callable[[int], bool]) -> str:
    """Return what helps after `error`, for the end of its message; empty if nothing does."""
    number = error.errno if isinstance(error, OSError) else None
    if number not in (errno.EADDRINUSE, errno.EACCES):
        return ""
    holder = listener(port) if number == errno.EADDRINUSE else ""
    start = port + 1 if number == errno.EADDRINUSE else UNPRIVILEGED
    free = next(filter(is_free, range(start, min(start + NEARBY, 65536))), None)
    return (f"; {holder} listens there" if holder else "") + (
        f"; the next free one is --port {free}" if free else ""
    )


def listener(port: int) -> str:
    """Return which process listens on a TCP port: its command and number, or its user's name."""
    found = dict(_listening(port))  # inode of the socket -> user id
    with suppress(OSError):
        for folder in PROC.iterdir():
            if folder.name.isdecimal() and found.keys() & set(_sockets(folder)):
                return f"`{_command(folder)}` (process {folder.name})"
    with suppress(ImportError, KeyError, StopIteration):
        users: Any = import_module("pwd")  # Windows has none
        return f"a process of user {users.getpwuid(next(iter(found.values()))).pw_name}"
    return ""


def _listening(port: int) -> Iterator[tuple[str, int]]:
    """Yield inode and user id of each socket that listens on `port` (proc_net_tcp(5))."""
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (PROC / "net" / name).read_text().splitlines()[1:]:
                fields = line.split()
                is_port = int(fields[1].rpartition(":")[2], 16) == port
                if is_port and fields[3] == LISTENING:
                    yield fields[9], int(fields[7])


def _sockets(folder: Path) -> Iterator[str]:
    """Yield the inodes of a process's sockets; none of a process of another user."""
    with suppress(OSError):
        for link in (folder / "fd").iterdir():
            with suppress(OSError):
                target = os.readlink(link)
                if target.startswith("socket:["):
                    yield target[len("socket:[") : -1]


def _command(folder: Path) -> str:
    """Return a process's command line, shortened."""
    words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
    text = " ".join([Path(words[0]).name, *words[1:]]).strip()
    return text if len(text) <= COMMAND_LENGTH else f"{text[:COMMAND_LENGTH]} ..."
