"""An engine with everything plugged in, and one that says what a test wants it to."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from streamtok.config import EngineConfig
from streamtok.engine.base import TokenStream
from streamtok.engine.commands import HIGH_WATER
from streamtok.engine.extras import all_extras
from streamtok.engine.extras.backlog import Backlog
from streamtok.engine.extras.grammars import Grammars
from streamtok.engine.local import LocalEngine
from streamtok.errors import Unavailable
from streamtok.messages import (
    EngineStats,
    Event,
    Failed,
    Finished,
    PromptScored,
    SequenceRequest,
    Started,
    TokenEvent,
    TokenLogprobs,
)
from streamtok.model.base import Decoder
from streamtok.testing.models import TINY

EMBEDDING = (0.6, -0.8)


def local_engine(
    decoder: Decoder, config: EngineConfig, grammars: Grammars | None = None
) -> LocalEngine:
    """Return an engine in a thread that can do all a server's can; see `LocalEngine`."""
    return LocalEngine(decoder, config, all_extras(grammars), Backlog)


class ScriptedEngine:
    """An engine whose sequences all get the same tokens, at once or when a test says so.

    With `held`, requests wait for `step` or `emit`. `cancelled` lists what was. It is certain of
    each token: where log-probabilities are asked for, they are 0.
    """

    def __init__(self, tokens: Sequence[int], *, held: bool = False, context: int = 1024) -> None:
        self.context = context
        self.vocab: int = TINY["vocab_size"]
        self.streams = 4
        self.room = 160
        self.ready = True
        self.exact = True
        self.width = len(EMBEDDING)
        self.fingerprint = "fp_scripted"
        self.cancelled: list[tuple[str, int | None]] = []
        self.requests: dict[str, tuple[SequenceRequest, ...]] = {}
        self._tokens = tuple(tokens)
        self._held = held
        self._streams: dict[str, TokenStream] = {}
        self._scripts: dict[str, Iterator[Event]] = {}
        self._late: dict[str, deque[Event]] = {}  # that have happened and are not in the queue
        self._open: set[tuple[str, int]] = set()
        self._changed = asyncio.Event()
        self._made: Counter[tuple[str, int]] = Counter()

    async def submitted(self) -> None:
        """Wait until there was a request."""
        await self.wait_for(lambda engine: bool(engine.requests))

    async def wait_for(self, condition: Callable[["ScriptedEngine"], bool]) -> None:
        """Wait until `condition` of this engine holds; requests and cancelling change it."""
        while not condition(self):
            self._changed.clear()
            await self._changed.wait()

    def submit(self, request_id: str, sequences: Sequence[SequenceRequest]) -> TokenStream:
        """See `streamtok.engine.base.Engine.submit`."""
        stream = TokenStream(len(sequences), lambda _: self._play(request_id))
        self._streams[request_id] = stream
        self._late[request_id] = deque()
        self.requests[request_id] = tuple(sequences)
        self._changed.set()
        self._open |= {(request_id, sequence.index) for sequence in sequences}
        if not self._held:
            self._scripts[request_id] = chain.from_iterable(map(self._script, sequences))
            self._play(request_id)
        return stream

    def emit(self, request_id: str, event: Event) -> None:
        """Let `event` happen; where its reader is behind, once there is room in the queue."""
        if isinstance(event, Finished | Failed):
            self._open.discard((request_id, event.index))
        self._late[request_id].append(event)
        self._put(request_id)

    def _put(self, request_id: str) -> None:
        late, queue = self._late[request_id], self._streams[request_id].queue
        while late and not queue.full():
            self._streams[request_id].put(late.popleft())

    def _script(self, sequence: SequenceRequest) -> Iterator[Event]:
        """Yield all that happens to a sequence."""
        tokens = self._tokens[: sequence.max_tokens]
        yield from _start(sequence)
        yield from (_event(sequence, token) for token in tokens)
        embedding = EMBEDDING if sequence.embed else None
        yield Finished(sequence.index, "length", len(tokens), embedding=embedding)

    def _play(self, request_id: str) -> None:
        """Let happen what the script has next, as far as the reader keeps up."""
        self._put(request_id)
        script = self._scripts.get(request_id, iter(()))
        while self._streams[request_id].unread < HIGH_WATER:
            if (event := next(script, None)) is None:
                break
            if (request_id, event.index) in self._open:
                self.emit(request_id, event)

    def step(self) -> int:
        """Give each open sequence whose reader keeps up its next token, or its end.

        Return how many there were.
        """
        open_now = [key for key in sorted(self._open) if self._streams[key[0]].unread < HIGH_WATER]
        for request_id, index in open_now:
            made, sequence = self._made[request_id, index], self.requests[request_id][index]
            wanted = self._tokens[: sequence.max_tokens]
            if not made:
                for event in _start(sequence):
                    self.emit(request_id, event)
            if made < len(wanted):
                self.emit(request_id, _event(sequence, wanted[made]))
                self._made[request_id, index] += 1
            else:
                self.emit(request_id, Finished(index, "length", made))
        return len(open_now)

    def cancel(self, request_id: str, index: int | None = None) -> None:
        """See `streamtok.engine.base.Engine.cancel`."""
        self.cancelled.append((request_id, index))
        self._changed.set()
        for open_id, open_index in sorted(self._open):
            if open_id == request_id and index in (None, open_index):
                self.emit(request_id, Finished(open_index, "cancelled", 0))

    def stats(self) -> EngineStats:
        """See `streamtok.engine.base.Engine.stats`."""
        return EngineStats(running=len(self._open), queued=0)

    async def close(self) -> None:
        """See `streamtok.engine.base.Engine.close`."""
        for request_id, index in sorted(self._open):
            self.emit(request_id, Failed(index, Unavailable("closed"), 0))


def _start(sequence: SequenceRequest) -> Iterator[Event]:
    yield Started(sequence.index)
    if sequence.prompt_logprobs:
        scores = tuple(_certainty(sequence, token) for token in sequence.prompt_ids[1:])
        yield PromptScored(sequence.index, scores)


def _event(sequence: SequenceRequest, token: int) -> TokenEvent:
    wanted = sequence.sampling.top_logprobs is not None
    return TokenEvent(sequence.index, token, _certainty(sequence, token) if wanted else None)


def _certainty(sequence: SequenceRequest, token: int) -> TokenLogprobs:
    return TokenLogprobs(0.0, ((token, 0.0),)[: sequence.sampling.top_logprobs])
