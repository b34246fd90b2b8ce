"""Which processes have rows in the ledger, and which of these still run.

A process that died has left its rows. A process cannot be told from a later one with the same
number by that alone: each has a name of its own in addition.
"""

import os
import secrets
import socket

_here: set[str] = set()  # the owners in this process; tests have several


def new_owner(*, is_shared: bool) -> str:
    """Return a name for this process, with the machine's where several machines share a ledger."""
    machine = socket.gethostname() if is_shared else ""
    owner = f"{machine}:{os.getpid()}:{secrets.token_hex(8)}"
    _here.add(owner)
    return owner


def forget(owner: str) -> None:
    """Take note that an owner in this process has ended."""
    _here.discard(owner)


def is_alive(owner: str) -> bool:
    """Whether an owner may still run: not known of another machine, which may be down."""
    machine, _, rest = owner.partition(":")
    if owner in _here or machine not in ("", socket.gethostname()):
        return True
    pid = int(rest.partition(":")[0])
    if os.name == "nt" or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
