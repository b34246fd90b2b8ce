"""One resumable answer in this process: its log, its recording, and what it costs.

Read next: `streamtok.api.resume.streams`.
"""

import asyncio
import logging
from asyncio import Task
from collections.abc import Callable, Coroutine, Sequence

from msgspec import structs
from msgspec.structs import replace

from streamtok.answer.ask import Ask
from streamtok.answer.meter import Meter, Tally
from streamtok.answer.render import Interceptor
from streamtok.api.resume.engine import recorded_engine
from streamtok.api.resume.log import EventLog, Source
from streamtok.api.resume.recording import RecordedClock, Recorder, digest
from streamtok.api.resume.rows import Rows, StreamRow
from streamtok.api.route import Endpoint
from streamtok.api.services import Call, FaultInjector, Services
from streamtok.errors import RequestError
from streamtok.http.framings import Framing
from streamtok.http.request import HeaderList, Request
from streamtok.http.response import Body, Response
from streamtok.ledger import UsageRecord
from streamtok.messages import SequenceRequest

log = logging.getLogger(__name__)

BACKGROUND = "background"


class Answer:
    """An answer that is being made, or was made, for any number of readers.

    `on_idle` is called with it when nobody reads it any more.
    """

    def __init__(
        self, row: StreamRow, rows: Rows, on_idle: Callable[["Answer"], None], *, is_replay: bool
    ) -> None:
        self.row = row
        self.key = row.key
        self.headers: HeaderList = ()
        self.meter: AnswerMeter | None = None
        self.making: asyncio.Task[None] | None = None  # in the background
        self.queued = b""  # the response while it waits for its turn
        # Done when the engine has it
        self.submitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._rows = rows
        self._is_replay = is_replay
        self._recorder = Recorder(row.recording, is_replay=is_replay)
        self._stored = is_replay
        independent = row.kind == BACKGROUND
        self.log = EventLog(self._on_events, lambda: on_idle(self), independent=independent)

    @property
    def id(self) -> str:
        """Its id."""
        return self.row.recording.id

    async def make(self, services: Services, call: Call, endpoint: Endpoint) -> Response:
        """Have `endpoint` answer `call`, with what is recorded; nothing is read of it yet.

        Raises:
            StreamChanged: this server would continue with other bytes.
            RequestError: the request cannot be carried out.
        """
        self.meter = AnswerMeter(services.meter, self._recorder, self.log)
        response: Response = await endpoint(
            replace(
                services,
                engine=recorded_engine(services.engine, self._recorder, self._on_submit),
                meter=self.meter,
                new_id=self._recorder.new_id(services.new_id),
                new_seed=self._recorder.new_seed(services.new_seed),
                faults=self._faults(services.faults),
            ),
            call,
        )
        self.headers = response.headers
        return response

    async def store(self, most: int) -> None:
        """Write its row; see `Rows.insert`."""
        self.row.id = self.id
        self._recorder.changed = False
        await self._rows.insert(self.row, most)
        self._stored = True

    def run(self, response: Response) -> None:
        """Take the events of the stream that `make` has returned."""
        assert not isinstance(response.body, bytes)
        self.log.write(self._source(response.body, response.close))

    async def _source(self, body: Body, close: Callable[[], None]) -> Source:
        try:
            async for chunks in body:
                yield (chunks,) if isinstance(chunks, bytes) else chunks
            self.row.ended = True
            await self._save()
        except RequestError as error:
            log.error("%s: its row cannot be written: %s", self.id, error.message)
        finally:
            await body.aclose()
            close()

    def read(self, position: int, *, numbered: bool = True) -> Response:
        """Return the events after the first `position` ones, with their numbers."""
        reader = self.log.read(position)
        prefix = b"id: %s/" % self.id.encode() if numbered else b""
        return Response(
            200,
            self.headers,
            reader.events(prefix),
            lambda: f"{self.id}, events {position + 1} to {reader.position}",
            reader.leave,
        )

    def rebook(self) -> None:
        """Correct what was booked as delivered, if more was delivered since."""
        if self.meter is not None:
            self.meter.rebook()

    def _faults(self, faults: FaultInjector | None) -> FaultInjector | None:
        return NoFaults(faults.field) if faults and self._is_replay else faults

    def _on_submit(self, _: str, sequences: Sequence[SequenceRequest]) -> None:
        found = digest(sequences)
        if self.row.digest and found != self.row.digest:
            raise StreamChanged("settings have changed since it began")
        self.row.digest = found
        if not self.submitted.done():
            self.submitted.set_result(None)

    async def _on_events(self, count: int) -> None:
        assert self.meter is not None
        self.meter.hand(count)
        if self._recorder.changed and self._stored:
            await self._save()

    async def _save(self) -> None:
        self._recorder.changed = False
        await self._rows.update(self.id, self.row.recording, ended=self.row.ended)


class StreamChanged(RequestError):
    """409: a stream would go on with other bytes than it began with; `reason` is why."""

    status = 409
    type = "invalid_request_error"
    default_code = "stream_changed"

    def __init__(self, reason: str) -> None:
        super().__init__(f"the stream cannot be continued after a restart: {reason}")


class AnswerMeter(Meter):
    """A meter for one answer, whose events may be made before anybody reads them.

    `handed` has for each event how many tokens its group and those before had, but for the last.
    """

    def __init__(self, meter: Meter, recorder: Recorder, events: EventLog) -> None:
        clock = RecordedClock(meter.clock, recorder)
        super().__init__(meter.ledger, meter.metrics, meter.limits, clock)
        self.on_begin, self.on_end = meter.on_begin, meter.on_end
        self.handed: list[int] = []
        self._meter = meter
        self._log = events
        self._tally: Tally | None = None
        self._booked: UsageRecord | None = None
        self._total = 0  # of the tokens of all events

    def tally(self, ask: Ask, sequences: int) -> Tally:
        """See `Meter.tally`."""
        self._tally = super().tally(ask, sequences)
        return self._tally

    def settle(self, work: Coroutine[None, None, None]) -> Task[None]:
        """See `Meter.settle`."""
        return self._meter.settle(work)

    async def record(self, record: UsageRecord) -> None:
        """See `Meter.record`."""
        self._total = record.delivered_tokens
        self._booked = self._corrected(record)
        await super().record(self._booked)

    def hand(self, events: int) -> None:
        """Take note of new events; how many tokens those before had is known now."""
        delivered = self._tally.delivered if self._tally else 0
        self.handed[-1:] = [delivered] * bool(self.handed)
        self.handed += [delivered] * events

    def rebook(self) -> None:
        """Write the row again, if more was delivered since."""
        if self._booked is not None:
            booked, self._booked = self._booked, self._corrected(self._booked)
            if self._booked != booked:
                self.ledger.record(self._booked)

    def _corrected(self, record: UsageRecord) -> UsageRecord:
        read = min(self._log.furthest, len(self.handed))
        delivered = self.handed[read - 1] if read else 0
        if read == len(self.handed):
            delivered = self._total
        return structs.replace(record, delivered_tokens=delivered)


class NoFaults:
    """The faults of a request that is answered again: it has had them."""

    def __init__(self, field: str) -> None:
        self.field = field

    def plan(self, request: Request, framing: Framing | None, ask: Ask) -> Interceptor | None:
        """See `FaultInjector.plan`."""
        return None

    def end(self) -> None:
        """See `FaultInjector.end`."""
