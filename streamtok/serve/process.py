"""One serving process: runs an App on an event loop until it is told to stop.

What may be asked of it is in `Control`; who asks is the caller's business: signals ask a process
that serves alone, its supervisor asks a worker (`streamtok.serve.workers`).
"""

import asyncio
import resource
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from streamtok.app import App

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOPPING = "stopping: running streams may finish; once more to stop at once"


class Control:
    """What can be asked of a process that serves. Called on the event loop."""

    def __init__(self, app: App) -> None:
        self.reload = app.reload
        self.stopping = asyncio.Event()

    def stop(self) -> None:
        """Accept no more, let streams finish, and end."""
        self.stopping.set()

    def abort(self, number: int) -> None:
        """End at once, with the exit status of a process that the signal `number` has ended."""
        raise SystemExit(128 + number)


def run(
    make_app: Callable[[], App],
    attach: Callable[[Control], None],
    ready: Callable[[str], None],
) -> int:
    """Serve until told to stop, and return the exit status.

    `attach` connects the Control to whoever asks, `ready` is told the URL.

    Raises:
        StreamtokError: the server cannot be started.
    """
    allow_many_files()
    return _runner()(_serve(make_app, attach, ready))


def allow_many_files() -> None:
    """Raise the limit on open files, each connection being one, to what the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS allows less than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def handle_signals(control: Control) -> None:
    """Let SIGINT or SIGTERM stop, the second one at once, and SIGHUP read files again."""

    def stop(number: int) -> None:
        if control.stopping.is_set():
            control.abort(number)
        print(STOPPING, file=sys.stderr)
        control.stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    loop.add_signal_handler(signal.SIGHUP, control.reload)


@contextmanager
def signal_socket() -> Iterator[socket.socket]:
    """Give a socket from which the numbers of SIGNALS can be read, without an event loop."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    before = [signal.signal(number, lambda *_: None) for number in SIGNALS]
    signal.set_wakeup_fd(writer.fileno())
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)
        reader.close()
        writer.close()


def _runner() -> Callable[[Coroutine[Any, Any, int]], int]:
    try:
        import uvloop  # the extra "fast"
    except ImportError:
        return asyncio.run
    runner: Callable[[Coroutine[Any, Any, int]], int] = uvloop.run
    return runner


async def _serve(
    make_app: Callable[[], App],
    attach: Callable[[Control], None],
    ready: Callable[[str], None],
) -> int:
    app = make_app()
    control = Control(app)
    attach(control)
    starting = asyncio.ensure_future(app.start())
    stopping = asyncio.ensure_future(control.stopping.wait())
    await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.wait((starting,))
    try:
        if not starting.cancelled():
            ready(starting.result())
            await stopping
    finally:
        stopping.cancel()
        await app.stop()
    return 0
