"""The engine in a thread of this process: numpy below, the event loop above.

Orders go through a thread-safe inbox; all events of a step come to the event loop in one crossing.
Thread and loop share the interpreter's lock; `streamtok.engine.remote.process` does without.
"""

import asyncio
import queue
import threading
from collections.abc import Iterator, Sequence

from streamtok.config import EngineConfig
from streamtok.engine.client import Front
from streamtok.engine.core import Close, Core, Order
from streamtok.engine.extras.grammars import Grammars
from streamtok.engine.scheduler import Addressed
from streamtok.errors import Unavailable
from streamtok.model.base import Decoder


class LocalEngine(Front):
    """An engine in a thread; see `streamtok.engine.core.Core` for what it is made of.

    Must be made on a running event loop, which receives the events.

    Raises:
        ConfigError: there is no memory for the keys and values of one context.
    """

    def __init__(
        self, decoder: Decoder, config: EngineConfig, grammars: Grammars | None = None
    ) -> None:
        core = self._core = Core(decoder, config, grammars)
        self._inbox: queue.SimpleQueue[Order] = queue.SimpleQueue()
        super().__init__(core.facts, self._inbox.put)
        arguments = (self._take, self._post)
        self._thread = threading.Thread(
            target=core.serve, args=arguments, name="engine", daemon=True
        )
        self._thread.start()

    async def close(self) -> None:
        """Stop the thread; what still runs or waits ends with Failed(Unavailable)."""
        self.refused = Unavailable("the server is shutting down", code="shutting_down")
        self._inbox.put(Close())
        await asyncio.to_thread(self._thread.join)

    # Called in the engine's thread

    def _take(self, wait: bool) -> Iterator[Order]:
        """Yield what is in the inbox; if `wait`, once there is something."""
        while wait or not self._inbox.empty():
            yield self._inbox.get()
            wait = False

    def _post(self, events: Sequence[Addressed]) -> None:
        self._loop.call_soon_threadsafe(self.receive, events)
