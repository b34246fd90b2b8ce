"""The engine as one resumable answer sees it: events in order, and what was recorded of them.

Read next: `streamtok.api.resume.log`.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

from msgspec.structs import replace

from streamtok.api.resume.order import Order
from streamtok.api.resume.recording import Recorder
from streamtok.engine.base import Engine, TokenStream
from streamtok.engine.commands import HIGH_WATER
from streamtok.messages import Event, Prefilled, SequenceRequest, Waiting

OnSubmit = Callable[[str, Sequence[SequenceRequest]], None]


def recorded_engine(engine: Engine, recorder: Recorder, on_submit: OnSubmit) -> Engine:
    """Return `engine` for one answer; `on_submit` may refuse what is submitted, by an error."""
    return cast("Engine", _RecordedEngine(engine, recorder, on_submit))


class _RecordedEngine:
    """All but `submit` and `cancel` are the engine's own."""

    def __init__(self, engine: Engine, recorder: Recorder, on_submit: OnSubmit) -> None:
        self._engine = engine
        self._recorder = recorder
        self._on_submit = on_submit
        self._order: Order | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def submit(self, request_id: str, sequences: Sequence[SequenceRequest]) -> TokenStream:
        """See `Engine.submit`."""
        self._on_submit(request_id, sequences)
        stream = self._engine.submit(request_id, sequences)
        self._record_cached(stream, len(sequences))
        if len(sequences) == 1:
            return stream
        self._order = Order(sequence.index for sequence in sequences)
        return cast("TokenStream", _OrderedStream(stream, self._order))

    def cancel(self, request_id: str, index: int | None = None) -> None:
        """See `Engine.cancel`."""
        if self._order is not None:
            self._order.release(index)
        self._engine.cancel(request_id, index)

    def _record_cached(self, stream: TokenStream, prefills: int) -> None:
        """Have the recording's counts in the events; once all are known, events pass unseen."""
        put, left = stream.put, prefills

        def watch(event: Event) -> None:
            nonlocal left
            if isinstance(event, Prefilled):
                event = replace(event, cached=self._recorder.cached(event.index, event.cached))
                left -= 1
                if not left:
                    stream.put = put
            put(event)

        stream.put = watch


class _OrderedStream:
    """A `TokenStream` whose events are put in order as they are taken; it is its own `queue`."""

    def __init__(self, stream: TokenStream, order: Order) -> None:
        self._stream = stream
        self._order = order
        self.nudge = stream.nudge
        self.queue = stream.queue

    def __aiter__(self) -> "_OrderedStream":
        return self

    async def __anext__(self) -> Event | Waiting:
        while (event := self._order.take()) is None:
            came = await anext(self._stream)
            if isinstance(came, Waiting):
                return came
            self._order.put(came)
        return event

    async def group(self, most: int = HIGH_WATER) -> list[Event | Waiting]:
        """See `TokenStream.group`: here the next event, alone."""
        return [await anext(self)]
