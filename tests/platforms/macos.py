"""Imported at the start of every process: takes away what macOS does not have."""

import asyncio  # noqa: F401  before the platform has another name
import errno
import multiprocessing  # noqa: F401
import os
import socket
import subprocess  # noqa: F401
import sys
import urllib.request  # noqa: F401
import warnings
from typing import Any

getsockopt = socket.socket.getsockopt


def without_acceptconn(self: socket.socket, level: int, option: int, *rest: Any) -> Any:
    if (level, option) == (socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise OSError(errno.ENOPROTOOPT, "Protocol not available")
    return getsockopt(self, level, option, *rest)


socket.socket.getsockopt = without_acceptconn  # type: ignore[method-assign]
del os.sched_getaffinity
os.process_cpu_count = os.cpu_count  # type: ignore[attr-defined,unused-ignore]  # since 3.13, as there
sys.platform = "darwin"
warnings.filterwarnings("ignore", module="threadpoolctl")  # it looks for macOS itself
