"""One serving process: runs an application on an event loop until it is asked to stop.

`Control` is its controls; the caller attaches it to a source: to signals for a process that
serves alone, to the supervisor's socket for a worker (`streamtok.serve.workers`).
"""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from importlib import import_module
from typing import Any, Protocol

from streamtok.serve.signals import handle_signals, restored

# Windows' default event loop cannot watch sockets, which the listener does.
LOOP = asyncio.SelectorEventLoop
STOPPING = "stopping: running streams may finish; once more to stop at once"


class Application(Protocol):
    """What a process runs: `streamtok.app.App`, or `streamtok.proxy.app.ProxyApp`."""

    async def start(self) -> str:
        """Listen, and return the URL. Raises StreamtokError."""

    def reload(self) -> None:
        """Read the files again that may have changed."""

    async def stop(self) -> None:
        """Let what runs end, and close."""


class Control:
    """What can be asked of a process that serves. Called on the event loop."""

    def __init__(self, app: Application) -> None:
        self.reload = app.reload
        self.stopping = asyncio.Event()

    def stop(self) -> None:
        """Accept no more, let streams finish, and end."""
        self.stopping.set()

    def abort(self, number: int) -> None:
        """End at once, with the exit status of a process that the signal `number` has ended.

        Requests that run stay in the ledger as lost: asyncio need not say that their tasks are.
        """
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        raise SystemExit(128 + number)


def run(
    make_app: Callable[[], Application],
    attach: Callable[[Control], None],
    ready: Callable[[str], None],
) -> int:
    """Serve until asked to stop, and return the exit status.

    `attach` connects the Control to its source, `ready` is called with the URL.

    Raises:
        StreamtokError: the server cannot be started.
    """
    allow_many_files()
    with restored():
        return _run(_serve(make_app, attach, ready))


def allow_many_files() -> None:
    """Raise the limit on open files, each connection being one, to what the system allows."""
    try:
        resource: Any = import_module("resource")
    except ImportError:  # Windows has no such limit
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS allows less than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def attach_signals(control: Control) -> None:
    """Let SIGINT or SIGTERM stop, the second one at once, and SIGHUP read files again."""

    def stop(number: int) -> None:
        if control.stopping.is_set():
            control.abort(number)
        print(STOPPING, file=sys.stderr)
        control.stop()

    handle_signals(stop, control.reload)


def _run(serving: Coroutine[Any, Any, int]) -> int:
    try:
        import uvloop  # the extra "fast"
    except ImportError:
        with asyncio.Runner(loop_factory=LOOP) as runner:
            return runner.run(serving)
    status: int = uvloop.run(serving)
    return status


async def _serve(
    make_app: Callable[[], Application],
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
