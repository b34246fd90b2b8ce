"""An engine that says the tokens it is given, at their pace; the rest it leaves to the model's.

It keeps the engine's protocol: events in order, a pause where a reader is behind, cancelling, one
end for each sequence. It is certain of each token: log-probabilities are 0.
Read next: `streamtok.script.director`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from copy import copy

from msgspec import Struct
from msgspec.structs import replace

from streamtok.engine.base import Engine, TokenStream
from streamtok.engine.client import EngineClient
from streamtok.engine.commands import HIGH_WATER, Cancel, Command, EngineInfo, Read
from streamtok.errors import NotFound, Unavailable
from streamtok.messages import (
    EngineStats,
    Event,
    Finished,
    FinishReason,
    Prefilled,
    PromptScored,
    SequenceRequest,
    Started,
    TokenEvent,
    TokenLogprobs,
)
from streamtok.script.lines import Line

Post = Callable[[Event], None]


class Pause(Struct, frozen=True):
    """How time is read and waited for, in seconds."""

    now_s: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class ScriptEngine:
    """See `streamtok.engine.base.Engine`; must be created on the event loop.

    `saying` gives the same engine for one request, with what that is answered. Without a `model`
    nothing else can be asked.
    """

    def __init__(self, info: EngineInfo, model: Engine | None, pause: Pause | None = None) -> None:
        self.context = info.context
        self.vocab = info.vocab
        self.width = info.width
        self.streams = info.streams
        self.room = info.room
        self.fingerprint = info.fingerprint
        self.exact = model.exact if model else True
        self.model = model
        self._client = EngineClient(info, self._command)
        self._pause = pause or Pause(asyncio.get_running_loop().time)
        self._running: dict[str, Performance] = {}
        self._line: Line | None = None

    @property
    def ready(self) -> bool:
        """See `Engine.ready`."""
        return self.model.ready if self.model else self._client.ready

    def reaching(self, context: int) -> "ScriptEngine":
        """Return this engine with another length of prompt and answer together."""
        engine = copy(self)  # what runs is shared
        engine.context = context
        return engine

    def saying(self, line: Line, fingerprint: str) -> "ScriptEngine":
        """Return this engine as it is for a request that is answered with `line`."""
        engine = copy(self)
        engine._line, engine.fingerprint = line, fingerprint
        return engine

    def submit(self, request_id: str, sequences: Sequence[SequenceRequest]) -> TokenStream:
        """See `Engine.submit`."""
        if self._line is None:
            if self.model is None:
                raise NotFound("this server has a script only", code="no_rule")
            return self.model.submit(request_id, sequences)
        stream = self._client.submit(request_id, sequences)

        def post(event: Event) -> None:
            self._client.receive([(request_id, event)])

        performance = Performance(self._line, sequences, stream, post, self._pause)
        self._running[request_id] = performance
        performance.task = asyncio.get_running_loop().create_task(performance.run())
        performance.task.add_done_callback(lambda _: self._running.pop(request_id))
        return stream

    def cancel(self, request_id: str, index: int | None = None) -> None:
        """See `Engine.cancel`."""
        if request_id in self._running or self.model is None:
            self._client.cancel(request_id, index)
        else:
            self.model.cancel(request_id, index)

    def stats(self) -> EngineStats:
        """See `Engine.stats`."""
        own = self._client.stats()
        model = self.model.stats() if self.model else EngineStats(0, 0)
        running, queued = own.running + model.running, own.queued + model.queued
        return replace(model, running=running, queued=queued)

    async def close(self) -> None:
        """See `Engine.close`."""
        self._client.refused = Unavailable("the server is stopping", code="closing")
        for performance in list(self._running.values()):
            performance.stop()
        self._client.fail(self._client.refused)
        if self.model:
            await self.model.close()

    def _command(self, command: Command) -> None:
        if isinstance(command, Read | Cancel) and (on := self._running.get(command.request_id)):
            if isinstance(command, Read):
                on.read.set()
            else:
                on.cancel(command.index)


class Performance:
    """One request that is being answered: its sequences take turns, token by token."""

    def __init__(
        self,
        line: Line,
        sequences: Sequence[SequenceRequest],
        stream: TokenStream,
        post: Post,
        pause: Pause,
    ) -> None:
        self.read = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self._line = line
        self._open = {sequence.index: sequence for sequence in sequences}
        self._said = 0  # tokens of each sequence
        self._stream = stream
        self._post = post
        self._pause = pause

    async def run(self) -> None:
        """Say everything."""
        due_s = self._pause.now_s() + self._line.first_token_s
        for index, sequence in list(self._open.items()):
            self._post(Started(index))
            if sequence.prompt_logprobs:
                scores = tuple(_certain(sequence, token) for token in sequence.prompt_ids[1:])
                self._post(PromptScored(index, scores))
        await self._until(due_s)
        for index in self._open:
            self._post(Prefilled(index, cached=0))
        while True:
            for event in list(self._next()):
                self._post(event)
            if not self._open:
                return
            self._said += 1
            while self._stream.unread >= HIGH_WATER:
                self.read.clear()
                await self.read.wait()
            if self._line.tokens_per_s:
                await self._until(due_s + self._said / self._line.tokens_per_s)

    def cancel(self, index: int | None) -> None:
        """End one sequence, or all."""
        for one in [one for one in self._open if index in (None, one)]:
            del self._open[one]
            self._post(Finished(one, "cancelled", self._said))
        if not self._open:
            self.stop()

    def stop(self) -> None:
        """Say no more."""
        if self.task:
            self.task.cancel()

    def _next(self) -> Iterator[Event]:
        """Yield the next token of each sequence, or its end."""
        ids = self._line.ids
        for index, sequence in list(self._open.items()):
            if self._said < min(len(ids), sequence.max_tokens):
                yield _token(sequence, ids[self._said])
            else:
                del self._open[index]
                yield self._end(sequence, is_cut=self._said >= sequence.max_tokens)

    def _end(self, sequence: SequenceRequest, *, is_cut: bool) -> Finished:
        reason: FinishReason = "length" if is_cut else self._line.finish
        stop = None
        if reason == "stop" and sequence.stop_ids:  # as a model ends a text: usage counts it
            stop = _token(sequence, min(sequence.stop_ids))
        return Finished(sequence.index, reason, self._said + (stop is not None), stop)

    async def _until(self, due_s: float) -> None:
        if (left_s := due_s - self._pause.now_s()) > 0:
            await self._pause.sleep(left_s)


def _token(sequence: SequenceRequest, token: int) -> TokenEvent:
    wanted = sequence.sampling.top_logprobs is not None
    return TokenEvent(sequence.index, token, _certain(sequence, token) if wanted else None)


def _certain(sequence: SequenceRequest, token: int) -> TokenLogprobs:
    return TokenLogprobs(0.0, ((token, 0.0),)[: sequence.sampling.top_logprobs])
