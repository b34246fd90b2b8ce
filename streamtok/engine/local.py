"""The engine in a thread of this process: numpy below, the event loop above.

Commands go through a thread-safe inbox; all events of a step come to the event loop in one
crossing. Thread and loop share the interpreter's lock; `streamtok.engine.remote.process` does not.

Read next: `streamtok.engine.core`.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence

from streamtok.config import EngineConfig
from streamtok.engine.client import EngineClient, QueueEstimate
from streamtok.engine.commands import Addressed, Close, Command
from streamtok.engine.core import EngineCore, EngineExtras
from streamtok.errors import EngineFailed, Unavailable
from streamtok.model.base import Decoder

log = logging.getLogger(__name__)


class LocalEngine(EngineClient):
    """An engine in a thread; see `streamtok.engine.core.EngineCore` for the arguments.

    Must be created on a running event loop, which receives the events.

    Raises:
        ConfigError: there is no memory for the keys and values of one context.
    """

    def __init__(
        self,
        decoder: Decoder,
        config: EngineConfig,
        extras: EngineExtras | None = None,
        estimate: Callable[[int], QueueEstimate] | None = None,
    ) -> None:
        self._core = EngineCore(decoder, config, extras)
        self._inbox: queue.SimpleQueue[Command] = queue.SimpleQueue()
        super().__init__(self._core.info, self._inbox.put, estimate)
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Stop the thread; what still runs or waits ends with Failed(Unavailable)."""
        self.refused = Unavailable("the server is shutting down", code="shutting_down")
        self._inbox.put(Close())
        await asyncio.to_thread(self._thread.join)

    def _give_up(self) -> None:
        """Refuse everything from now on: a thread, unlike a process, cannot be replaced."""
        self.refused = self.refused or Unavailable("the engine has stopped", code="engine_stopped")
        self.fail(EngineFailed("the engine has stopped"))

    # Called in the engine's thread

    def _run(self) -> None:
        try:
            self._core.serve(self._take, self._post)
        except Exception:
            log.exception("the engine's thread has ended")
            self._loop.call_soon_threadsafe(self._give_up)

    def _take(self, wait: bool) -> Iterator[Command]:
        """Yield what is in the inbox; if `wait`, once there is something."""
        while wait or not self._inbox.empty():
            yield self._inbox.get()
            wait = False

    def _post(self, events: Sequence[Addressed]) -> None:
        self._loop.call_soon_threadsafe(self.receive, events)
