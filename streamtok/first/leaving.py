"""A client that leaves, and a client that does not read: neither may cost the others anything.

A client that leaves does not say so. The first write after that is answered with a reset, and the
next one fails. Whatever ends an answer, `finally` cancels its sequence: otherwise the engine would
go on computing for nobody, and the slot would be lost.

A client that stays and does not read: unsent bytes fill the kernel's buffers and then ours, and
`drain` waits. So nothing takes tokens from the queue any more; it fills up to its bound, and the
engine leaves the sequence out of its steps until it is read again. That is backpressure: a slow
reader slows down its own stream and no other. One that takes nothing at all is dropped.

Changes this in `streamtok.first.queue`, and how `framing` waits for the client.

What this does not do: before the first token it writes nothing, and so does not see that a client
left (`streamtok.http.connection` sends interim responses); what was delivered is not recorded
(`streamtok.ledger`). Read next: `streamtok.app`, where the real server starts.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import suppress
from functools import partial

from streamtok.first import FOLDER
from streamtok.first.chunks import serve
from streamtok.first.events import Fields
from streamtok.first.framing import converse
from streamtok.first.queue import Engine, Sequence
from streamtok.first.tokens import pieces
from streamtok.text.tokenizer import Tokenizer

HIGH_WATER = 16  # unread tokens at which a sequence pauses
STALL_S = 30.0  # how long a client may read nothing


class CarefulEngine(Engine):
    """An engine that computes nothing that nobody reads."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._unread: Counter[Sequence] = Counter()

    async def generate(self, ids: list[int], asked: Fields) -> AsyncGenerator[int, None]:
        """Continue `ids` by one token after the other, until this is closed."""
        sequence = Sequence(ids, asked, await self._free.get())
        sequence.queue = asyncio.Queue(HIGH_WATER + 1)  # the last place is that of None
        self._orders.put(partial(self._running.append, sequence))
        try:
            while (token := await sequence.queue.get()) is not None:
                yield token  # returns when the client has been sent it
                self._orders.put(partial(self._note_read, sequence))
        finally:  # whatever ended it: the text, a failed write, the server's own end
            self._orders.put(partial(self._cancel, sequence))

    # In the thread

    def _step(self) -> None:
        self._unread.update(self._running)  # one token more for each of them
        super()._step()
        self._running[:] = [s for s in self._running if self._unread[s] < HIGH_WATER]

    def _note_read(self, sequence: Sequence) -> None:
        self._unread[sequence] -= 1
        was_paused = self._unread[sequence] == HIGH_WATER - 1
        if was_paused and sequence.made < sequence.asked.max_tokens:
            self._running.append(sequence)

    def _cancel(self, sequence: Sequence) -> None:
        del self._unread[sequence]
        if sequence.made < sequence.asked.max_tokens:
            self._running[:] = [s for s in self._running if s is not sequence]
            self._loop.call_soon_threadsafe(self._free.put_nowait, sequence.slot)


async def drain(writer: asyncio.StreamWriter) -> None:
    """Wait until the client has taken most of what was written; drop one that takes nothing."""
    try:
        async with asyncio.timeout(STALL_S):
            await writer.drain()
    except TimeoutError:
        writer.transport.abort()  # close() would wait for the client to read the rest
        raise


if __name__ == "__main__":
    with suppress(KeyboardInterrupt), asyncio.Runner() as runner:
        respond = partial(pieces, CarefulEngine(runner.get_loop()).generate, Tokenizer(FOLDER))
        runner.run(serve(partial(converse, respond, drain=drain)))
