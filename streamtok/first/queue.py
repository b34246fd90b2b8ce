"""Several clients in one batch: an engine thread, and an `asyncio.Queue` per request.

A step of the model takes milliseconds, for which an event loop must not stop, so it has a thread.
Each step computes the next token of every running sequence, since most of its time goes into
reading the weights. Its tokens cross over to the event loop in one call, `call_soon_threadsafe`: an
`asyncio.Queue` is not thread-safe. Uses the cache of `streamtok.model`: a slot for each sequence.

What this does not do: share the slots out among clients (`streamtok.engine.fairness`); outlive a
step that fails (`streamtok.engine.core`). Read next: `streamtok.first.leaving`, on clients that go.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue

import numpy as np

from streamtok.first import FOLDER
from streamtok.first.chunks import serve
from streamtok.first.events import Fields
from streamtok.first.framing import converse
from streamtok.first.tokens import choose, pieces
from streamtok.model import attention, batch, load
from streamtok.text.tokenizer import Tokenizer


class Sequence:
    """One answer on its way; `ids` are the prompt's, then those generated as well."""

    def __init__(self, ids: list[int], asked: Fields, slot: int) -> None:
        self.ids, self.asked, self.slot, self.made = ids, asked, slot, 0
        self.queue: asyncio.Queue[int | None] = asyncio.Queue()  # of tokens, then None

    def segment(self) -> batch.Segment:
        """Return the ids that have not been computed: the whole prompt, then one at a time."""
        new = 1 if self.made else len(self.ids)
        ids, at = np.array([self.ids[-new:]]), np.arange(len(self.ids))[None, -new:]  # [1, R] each
        return batch.Segment(slice(self.slot, self.slot + 1), ids, at, sampled=1)


class Engine:
    """The shipped model in a thread, for `slots` sequences at once; tokens go to `loop`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, slots: int = 8) -> None:
        self._loop, self._decoder = loop, load.load(FOLDER)
        self._cache = attention.KVCache(self._decoder.config, slots)
        self._orders: SimpleQueue[Callable[[], None]] = SimpleQueue()  # from the loop
        self._running: list[Sequence] = []
        self._free: asyncio.Queue[int] = asyncio.Queue()  # slots of the cache
        self._put([partial(self._free.put_nowait, slot) for slot in range(slots)])
        threading.Thread(target=self._run, daemon=True).start()

    async def generate(self, ids: list[int], asked: Fields) -> AsyncGenerator[int, None]:
        """Continue `ids` by one token after the other, as the thread makes them."""
        sequence = Sequence(ids, asked, await self._free.get())
        self._orders.put(partial(self._running.append, sequence))
        while (token := await sequence.queue.get()) is not None:
            yield token

    def _run(self) -> None:  # the thread
        while True:
            while not self._running or not self._orders.empty():
                self._orders.get()()  # between two steps; waits where there is nothing to compute
            self._step()

    def _step(self) -> None:
        puts: list[Callable[[], None]] = []
        scores = self._decoder.forward(self._cache, [s.segment() for s in self._running])  # [., V]
        for sequence, row in zip(self._running.copy(), scores, strict=True):
            sequence.ids.append(choose(row, sequence.asked, sequence.made))
            sequence.made += 1
            puts.append(partial(sequence.queue.put_nowait, sequence.ids[-1]))
            if sequence.made == sequence.asked.max_tokens:
                self._running.remove(sequence)
                puts.append(partial(sequence.queue.put_nowait, None))
                puts.append(partial(self._free.put_nowait, sequence.slot))
        self._loop.call_soon_threadsafe(self._put, puts)

    def _put(self, puts: list[Callable[[], None]]) -> None:
        for put in puts:
            put()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt), asyncio.Runner() as runner:
        respond = partial(pieces, Engine(runner.get_loop()).generate, Tokenizer(FOLDER))
        runner.run(serve(partial(converse, respond)))
