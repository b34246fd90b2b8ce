"""A server in a thread of this process, for the length of a block: for lessons and for tests.

Signals are none of its business: see `streamtok.serve.process` for a process that serves.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from streamtok.app import App, Share
from streamtok.config import ServeConfig
from streamtok.http.edge.sockets import open_endpoint
from streamtok.serve.process import LOOP
from streamtok.startup import ModelFiles


class RunningServer(Struct, frozen=True):
    """A server in a thread of its own: `url` is where, `app` what, `loop` runs it."""

    url: str
    app: App
    loop: asyncio.AbstractEventLoop

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, for sockets."""
        parts = urlsplit(self.url)
        return str(parts.hostname), int(parts.port or 80)


def _run(serving: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=LOOP) as runner:
        runner.run(serving)


@contextmanager
def running_server(config: ServeConfig, files: ModelFiles | None = None) -> Iterator[RunningServer]:
    """Run a real server for the length of the block; `files` are a model that is loaded already.

    Raises:
        StreamtokError: it cannot be started.
    """
    ready: Future[RunningServer] = Future()
    stopping: Future[Callable[[], object] | None] = Future()

    async def serve() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        app = None
        try:
            app = App(config, Share(None, open_endpoint(config), files) if files else None)
            ready.set_result(RunningServer(await app.start(), app, loop))
        except BaseException as error:
            stopping.set_result(None)
            if app:
                await app.stop()
            ready.set_exception(error)
            return
        stopping.set_result(lambda: loop.call_soon_threadsafe(stop.set))
        await stop.wait()
        await app.stop()

    thread = threading.Thread(target=_run, args=(serve(),), name="server")
    thread.start()
    try:
        yield ready.result()
    finally:
        if stop := stopping.result():
            stop()
        thread.join()
