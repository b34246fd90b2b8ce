"""All resumable answers: those of this process, and those that can be computed again.

A client that has left may come back for `window_s` seconds, also after a restart of the server.
After that its answer is cancelled, if it still runs, and forgotten. An answer that was found in the
ledger is computed again from its request, once, however many clients ask for it; the bytes are the
same (`streamtok.api.resume.recording`). If they would not be, because the model or the program is
another one, there is an error instead.

Read next: `streamtok.api.resume.endpoints`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from msgspec import Struct

from streamtok.answer.ask import Alarm
from streamtok.api.resume.answers import BACKGROUND, Answer, StreamChanged
from streamtok.api.resume.owners import is_alive
from streamtok.api.resume.recording import Recording
from streamtok.api.resume.rows import Rows, StoredRequest, StreamRow
from streamtok.api.route import Endpoint
from streamtok.api.services import Call, Services
from streamtok.errors import NotFound, RateLimited, RequestError, Unavailable
from streamtok.http.request import Request
from streamtok.http.response import Response

log = logging.getLogger(__name__)

KEPT_HEADERS = ("accept", "content-type")  # what an endpoint reads
Later = Callable[[float, Callable[[], None]], Alarm]


class Settings(Struct, frozen=True):
    """How long a client may be away, in seconds; how many ended answers are stored; whose they are.

    `later` is the timer; without it, the event loop's.
    """

    window_s: float
    most: int
    owner: str
    later: Later | None = None


class Streams:
    """The resumable answers of a server; `endpoints` make them again, by their paths."""

    def __init__(self, rows: Rows, settings: Settings) -> None:
        self.endpoints: dict[str, Endpoint] = {}
        self._rows = rows
        self._settings = settings
        self._answers: dict[str, Answer] = {}
        self._restoring: dict[str, asyncio.Task[Answer]] = {}
        self._alarms: dict[str, Alarm] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        # Awaited with each answer in the background that is made, once it is being made
        self.on_background: Callable[[Services, Answer], Coroutine[None, None, None]] | None = None
        # And with each one of an earlier process that cannot go on
        self.on_lost: Callable[[Services, StreamRow, RequestError], Awaitable[None]] | None = None

    def offered(self, services: Services) -> bool:
        """Whether a stream can be resumed: not if a model's answers vary with the load."""
        return services.engine.exact and self._settings.most > 0

    # The life of a server

    async def start(self, services: Services) -> None:
        """Take over the answers of processes that are gone; those in the background go on now.

        Raises:
            Unavailable: the ledger's database cannot do it.
        """
        await self._rows.start()
        dead = [owner for owner in await self._rows.owners() if not is_alive(owner)]
        rows = await self._rows.of(dead) if dead else []
        taken = [row for row in rows if await self._rows.claim(row, self._settings.owner)]
        for row in taken:
            if row.kind == BACKGROUND and not row.ended:
                self._spawn(self._go_on(services, row))
            elif row.kind != BACKGROUND:
                self._set_alarm(row.id, partial(self._forget, row.id))
        if taken:
            log.info("%d streams of an earlier process can be resumed", len(taken))

    async def close(self) -> None:
        """Break off what still runs; it can be resumed in another process."""
        self._closed = True
        for alarm in self._alarms.values():
            alarm.cancel()
        tasks: list[asyncio.Task[Any]] = [*self._restoring.values(), *self._tasks]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for answer in list(self._answers.values()):
            await answer.log.stop()

    # One answer

    def new(self, call: Call, kind: str = "") -> Answer:
        """Return an answer to `call` that nobody has begun to make."""
        request = call.request
        kept = tuple(pair for pair in request.headers if pair[0] in KEPT_HEADERS)
        row = StreamRow(
            id="",
            key=call.key,
            owner=self._settings.owner,
            request=StoredRequest(
                request.method, request.target, kept, request.body.decode("utf-8", "replace")
            ),
            recording=Recording(),
            fingerprint="",
            digest="",
            kind=kind,
        )
        return Answer(row, self._rows, self._idle, is_replay=False)

    async def add(self, services: Services, answer: Answer) -> None:
        """Store an answer that is being made, so that it can be found from now on.

        Raises:
            Unavailable: it cannot be stored.
        """
        answer.row.fingerprint = services.engine.fingerprint
        answer.row.created_s = services.meter.clock.wall_s()
        await answer.store(self._settings.most)
        self._answers[answer.id] = answer

    async def find(self, services: Services, call: Call, answer_id: str) -> Answer:
        """Return an answer of the caller's key; if it is only stored, it is made again.

        Raises:
            NotFound: there is none, or it is another's.
            StreamChanged: this server would continue with other bytes.
            RequestError: it cannot be made now.
        """
        answer = self._answers.get(answer_id)
        if answer is None:
            row = await self._rows.get(answer_id)
            if row is None or row.key != call.key:
                raise unknown(answer_id)
            answer = await self._restored(services, row)
        if answer.key != call.key:
            raise unknown(answer_id)
        return answer

    def make(
        self, services: Services, answer: Answer, call: Call, endpoint: Endpoint
    ) -> asyncio.Task[None]:
        """Have an answer in the background made; the task ends when it is under way."""

        async def make() -> None:
            self._run(services, answer, await answer.make(services, call, endpoint))

        answer.making = self._spawn(make())
        return answer.making

    def running(self, answer_id: str) -> Answer | None:
        """Return an answer that this process makes or has made lately."""
        return self._answers.get(answer_id)

    async def made(self, answer_id: str) -> Answer | None:
        """Do the same, after waiting for one that is about to be made again."""
        if task := self._restoring.get(answer_id):
            await asyncio.wait([task])
        return self.running(answer_id)

    def read(self, answer: Answer, position: int, *, numbered: bool = True) -> Response:
        """Return the events of an answer after the first `position` ones; 204 if it has no more."""
        if answer.log.ended and position >= len(answer.log.events):
            return Response(204, ())
        return self.attach(answer, position, numbered=numbered)

    def attach(self, answer: Answer, position: int, *, numbered: bool = True) -> Response:
        """Return the events of an answer after the first `position` ones, if there are any."""
        if alarm := self._alarms.pop(answer.id, None):
            alarm.cancel()
        return answer.read(position, numbered=numbered)

    async def cancel(self, answer: Answer) -> None:
        """Stop an answer and forget it; returns when it is booked."""
        self._answers.pop(answer.id, None)
        if alarm := self._alarms.pop(answer.id, None):
            alarm.cancel()
        self._rows.drop(answer.id, self._settings.owner)
        if answer.making is not None:
            answer.making.cancel()
            await asyncio.wait([answer.making])
        await answer.log.stop()

    # Answers that are made again

    async def _restored(self, services: Services, row: StreamRow) -> Answer:
        """Return the answer of a row, made by this process."""
        if row.id in self._answers:  # since the row was read
            return self._answers[row.id]
        if row.id not in self._restoring:
            task = asyncio.get_running_loop().create_task(self._restore(services, row))
            self._restoring[row.id] = task
            task.add_done_callback(lambda _: self._restoring.pop(row.id))
        return await asyncio.shield(self._restoring[row.id])

    async def _restore(self, services: Services, row: StreamRow) -> Answer:
        if not row.fingerprint:
            raise StreamChanged("it failed when it was to go on")
        if not services.engine.exact or row.fingerprint != services.engine.fingerprint:
            raise StreamChanged("the model has changed since it began")
        if not row.digest:  # the model had no part in it
            raise StreamChanged("it was answered by a script")
        request = row.request
        path = request.target.partition("?")[0]
        call = Call(
            Request(
                *(request.method, request.target, request.headers, request.body.encode()),
                *("1.1", ""),
            ),
            row.key,
            sees_all=False,
        )
        answer = Answer(row, self._rows, self._idle, is_replay=True)
        response = await answer.make(services, call, self.endpoints[path])
        try:
            await self._rows.claim(row, self._settings.owner)
        except BaseException:
            response.close()
            raise
        self._answers[row.id] = answer
        self._run(services, answer, response)
        self._idle(answer)
        log.info("%s is computed again", row.id)
        return answer

    def _run(self, services: Services, answer: Answer, response: Response) -> None:
        answer.run(response)
        if answer.row.kind == BACKGROUND and self.on_background is not None:
            self._spawn(self.on_background(services, answer))

    async def _go_on(self, services: Services, row: StreamRow) -> None:
        """Make an answer of an earlier process again, as soon as there is room for it."""
        found: StreamRow | None = row
        while found is not None:
            try:
                await self._restored(services, found)
                return
            except (Unavailable, RateLimited) as error:
                pause_s = max(1, error.retry_after_s)
                log.warning("%s waits %d s to go on: %s", row.id, pause_s, error.message)
            except RequestError as error:
                log.error("%s cannot go on: %s", row.id, error.message)
                await self._rows.fail(row.id)
                if self.on_lost is not None:
                    await self.on_lost(services, row, error)
                return
            await self._pause(pause_s)
            found = await self._rows.get(row.id)

    async def _pause(self, seconds: float) -> None:
        over = asyncio.Event()
        self._later(seconds, over.set)
        await over.wait()

    async def abandon(self, answer_id: str) -> bool:
        """Forget an answer that waits to go on; return False if another process makes it."""
        row = await self._rows.get(answer_id)
        if row is not None and row.owner != self._settings.owner:
            return False
        self._rows.drop(answer_id, self._settings.owner)
        return True

    # Answers that nobody reads

    def _idle(self, answer: Answer) -> None:
        """Give whoever reads an answer time to come back, if nobody does now."""
        answer.rebook()
        is_done = answer.log.ended or answer.log.broken
        if answer.log.has_readers or (answer.row.kind == BACKGROUND and not is_done):
            return

        def ring() -> None:
            self._spawn(self._end(answer))

        self._set_alarm(answer.id, ring)

    def _set_alarm(self, answer_id: str, ring: Callable[[], None]) -> None:
        if self._closed:
            return
        if alarm := self._alarms.pop(answer_id, None):
            alarm.cancel()
        self._alarms[answer_id] = self._later(self._settings.window_s, ring)

    def _later(self, seconds: float, ring: Callable[[], None]) -> Alarm:
        return (self._settings.later or asyncio.get_running_loop().call_later)(seconds, ring)

    async def _end(self, answer: Answer) -> None:
        """Cancel an answer that nobody has come back to, and forget it."""
        self._alarms.pop(answer.id, None)
        self._answers.pop(answer.id, None)
        if answer.row.kind != BACKGROUND:
            self._rows.drop(answer.id, self._settings.owner)
        await answer.log.stop()

    def _forget(self, answer_id: str) -> None:
        """Drop the row of an earlier process, unless its answer is made again."""
        self._alarms.pop(answer_id, None)
        if answer_id not in self._answers and answer_id not in self._restoring:
            self._rows.drop(answer_id, self._settings.owner)

    def drop(self, answer_id: str) -> None:
        """Forget an answer that has ended."""
        self._answers.pop(answer_id, None)
        self._rows.drop(answer_id, self._settings.owner)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def unknown(answer_id: str) -> NotFound:
    """Return the error for an answer that there is not, for this key: the same for all reasons."""
    return NotFound(f"there is no stream {answer_id!r}", code="stream_not_found")
