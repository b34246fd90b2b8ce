"""Work that takes long where much was sent, such as tokenising: off the event loop, in turns.

What is short is done at once: another thread would cost more than the work. What is longer goes to
a thread, so that no stream waits for it; there are two, so that a request of usual size does not
wait for one of megabytes. In each, callers take turns, so that one who sends many does not keep
another waiting for more than the piece of work that is being done.
"""

import asyncio
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from streamtok.api.services import Offload

Result = TypeVar("Result")

SHORT_BYTES = 1024  # of a request's body: worked on in about a millisecond
LONG_BYTES = 64 * 1024
NICENESS = 5  # of the thread for long work, where each has its own: the engine comes first


class Lane:
    """A thread for one piece of work after the other."""

    def __init__(self, name: str, niceness: int = 0) -> None:
        self._thread = ThreadPoolExecutor(1, name, initializer=_give_way, initargs=(niceness,))
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # whose turn it is stands first
        self._busy = False

    async def run(self, caller: str, work: Callable[[], Result]) -> Result:
        """Return the result of `work` when it has been the turn of `caller`."""
        loop = asyncio.get_running_loop()
        if self._busy:
            turn = loop.create_future()
            self._waiting.setdefault(caller, deque()).append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._next()
                raise
        self._busy = True
        try:
            return await loop.run_in_executor(self._thread, work)
        finally:
            self._next()

    def close(self) -> None:
        """End the thread, behind the work it is at."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _next(self) -> None:
        """Let the next in turn begin; a caller's next comes after all others'."""
        while self._waiting:
            caller, turns = next(iter(self._waiting.items()))
            del self._waiting[caller]
            turn = turns.popleft()
            if turns:
                self._waiting[caller] = turns
            if not turn.done():  # its client may have left
                turn.set_result(None)
                return
        self._busy = False


class Lanes(Offload):
    """The lanes of a server: for short work and for long."""

    def __init__(self) -> None:
        self._short = Lane("prompts")
        self._long = Lane("long prompts", NICENESS)

    async def run(self, size: int, caller: str, work: Callable[[], Result]) -> Result:
        """See `Offload.run`."""
        if size <= SHORT_BYTES:
            return work()
        lane = self._short if size <= LONG_BYTES else self._long
        return await lane.run(caller, work)

    def close(self) -> None:
        """End the threads."""
        self._short.close()
        self._long.close()


def _give_way(niceness: int) -> None:
    """Let the engine's threads come first, where threads have priorities of their own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
