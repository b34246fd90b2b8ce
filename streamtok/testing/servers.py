"""Servers for tests: their parts around any engine, or a whole one in a thread."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

from streamtok.api.generation import Timer, Timers
from streamtok.api.limits import Limits
from streamtok.api.meter import Meter
from streamtok.api.planting import Faults
from streamtok.api.services import Services
from streamtok.app import App, ModelFiles, Share
from streamtok.clock import Clock
from streamtok.config import ApiConfig, ServeConfig
from streamtok.engine.base import Engine
from streamtok.errors import StreamtokError
from streamtok.http.server import Server
from streamtok.http.sockets import open_endpoint
from streamtok.ledger import Ledger
from streamtok.metrics import Metrics
from streamtok.text.detokenizer import Detokenizers
from streamtok.text.template import ChatTemplate
from streamtok.text.tokenizer import Tokenizer


def make_services(
    folder: Path,
    engine: Engine,
    clock: Clock,
    *,
    close_after_stream: bool = False,
    limits: ApiConfig | None = None,
    heartbeat: Timer | None = None,
    deadline: Timer | None = None,
    faults: Faults | None = None,
) -> Services:
    """Return what the endpoints need, around `engine` and the tokenizer in `folder`.

    Ids, seeds and the clock do not vary, so that answers are the same bytes each time.
    """
    tokenizer, numbers = Tokenizer(folder), count(1)
    return Services(
        engine=engine,
        model="tiny",
        created=int(clock.wall_s()),
        tokenizer=tokenizer,
        detokenizers=Detokenizers(tokenizer),
        template=ChatTemplate(tokenizer),
        defaults={"temperature": 1.0},
        meter=Meter(
            Ledger(":memory:"),
            Metrics(engine.stats),
            Limits(limits or ApiConfig(), clock),
            clock,
        ),
        new_id=lambda prefix: f"{prefix}-{next(numbers)}",
        new_seed=lambda: 0,
        close_after_stream=close_after_stream,
        timers=Timers(heartbeat, deadline),
        faults=faults,
    )


def listen_locally(server: Server) -> tuple[str, int]:
    """Let `server` accept connections on a free port of the loopback; return host and port."""
    sock = socket.create_server(("127.0.0.1", 0))
    server.listen([sock], lambda: None, backlog=1024)
    host, port = sock.getsockname()
    return host, port


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server in a thread of its own: `url` is where, `app` what, `loop` runs it."""

    url: str
    app: App
    loop: asyncio.AbstractEventLoop

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, for sockets."""
        parts = urlsplit(self.url)
        return str(parts.hostname), int(parts.port or 80)


@contextmanager
def running_server(config: ServeConfig, files: ModelFiles | None = None) -> Iterator[RunningServer]:
    """Run a real server for the length of the block; `files` are a model that is loaded already."""
    ready: Future[RunningServer] = Future()
    stopping: Future[Callable[[], object] | None] = Future()

    async def serve() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            app = App(config, Share(None, open_endpoint(config), files) if files else None)
        except StreamtokError as error:
            stopping.set_result(None)
            ready.set_exception(error)
            return
        try:
            ready.set_result(RunningServer(await app.start(), app, loop))
        except StreamtokError as error:
            stopping.set_result(None)
            await app.stop()
            ready.set_exception(error)
            return
        stopping.set_result(lambda: loop.call_soon_threadsafe(stop.set))
        await stop.wait()
        await app.stop()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="server")
    thread.start()
    try:
        yield ready.result()
    finally:
        if stop := stopping.result():
            stop()
        thread.join()
