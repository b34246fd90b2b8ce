"""An engine with everything plugged in, and one that says what a test wants it to."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

from streamtok.config import EngineConfig
from streamtok.engine.base import HIGH_WATER, TokenStream
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
        self.ready = True
        self.width = len(EMBEDDING)
        self.fingerprint = "fp_scripted"
        self.cancelled: list[tuple[str, int | None]] = []
        self.requests: dict[str, tuple[SequenceRequest, ...]] = {}
        self._tokens = tuple(tokens)
        self._held = held
        self._streams: dict[str, TokenStream] = {}
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
        stream = TokenStream(len(sequences), lambda _: None)
        self._streams[request_id] = stream
        self.requests[request_id] = tuple(sequences)
        self._changed.set()
        self._open |= {(request_id, sequence.index) for sequence in sequences}
        if not self._held:
            for sequence in sequences:
                tokens = self._tokens[: sequence.max_tokens]
                self._start(request_id, sequence)
                for token in tokens:
                    self.emit(request_id, _event(sequence, token))
                embedding = EMBEDDING if sequence.embed else None
                end = Finished(sequence.index, "length", len(tokens), embedding=embedding)
                self.emit(request_id, end)
        return stream

    def emit(self, request_id: str, event: Event) -> None:
        """Let `event` happen."""
        if isinstance(event, Finished | Failed):
            self._open.discard((request_id, event.index))
        self._streams[request_id].deliver(event)

    def step(self) -> int:
        """Give each open sequence whose reader keeps up its next token, or its end.

        Return how many there were.
        """
        open_now = [key for key in sorted(self._open) if self._streams[key[0]].unread < HIGH_WATER]
        for request_id, index in open_now:
            made, sequence = self._made[request_id, index], self.requests[request_id][index]
            wanted = self._tokens[: sequence.max_tokens]
            if not made:
                self._start(request_id, sequence)
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

    def _start(self, request_id: str, sequence: SequenceRequest) -> None:
        self.emit(request_id, Started(sequence.index))
        if sequence.prompt_logprobs:
            scores = tuple(_certainty(sequence, token) for token in sequence.prompt_ids[1:])
            self.emit(request_id, PromptScored(sequence.index, scores))


def _event(sequence: SequenceRequest, token: int) -> TokenEvent:
    wanted = sequence.sampling.top_logprobs is not None
    return TokenEvent(sequence.index, token, _certainty(sequence, token) if wanted else None)


def _certainty(sequence: SequenceRequest, token: int) -> TokenLogprobs:
    return TokenLogprobs(0.0, ((token, 0.0),)[: sequence.sampling.top_logprobs])
