"""The engine that a server sees where replicas compute: it routes, and moves what cannot go on.

Each replica has a `Place` with a journal of its own (`streamtok.engine.remote.journal`). A request
goes to the place that the router chooses. One task a place, `_supervise`, attaches to the replica,
takes its events, and attaches again when it was lost:

    connect -> compare -> open -> (lost) -> its requests go to other places -> connect

- A replica that dies: the ids that its sequences have got are in its journal; they go on in another
  place, with the same bytes.
- A replica whose node is drained: what its sequences have is computed in another place while they
  still run, one after the other; then each is moved, with only its last few tokens left to compute.
- A replica computes differently, as on a processor of another kind: it is compared with the first
  one by the log-probabilities of a fixed prompt, bit for bit, and is not used.
- No replica is left: requests wait PATIENCE_S for one, and then fail.

Read next: `streamtok.engine.cluster.start`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence

from streamtok.engine.client import EngineClient
from streamtok.engine.cluster.copies import Copies, Copy
from streamtok.engine.cluster.places import Cluster, Link, Place, ReplicaLost
from streamtok.engine.cluster.probe import Scores, connect_alike
from streamtok.engine.cluster.replica import Steps
from streamtok.engine.cluster.router import Router
from streamtok.engine.commands import ENDS, Addressed, Cancel, Close, Command, Submit
from streamtok.engine.extras.backlog import Backlog
from streamtok.engine.remote.frames import unpack
from streamtok.engine.remote.journal import Journal
from streamtok.engine.remote.restarts import Restarts
from streamtok.errors import EngineFailed, Unavailable
from streamtok.messages import EngineStats, Prefilled, SequenceRequest, TokenEvent

log = logging.getLogger(__name__)

PATIENCE_S = 60.0  # how long sequences wait for a replica
PLACING_S = 30.0  # how long a start waits for the others when one is ready
LOOK_S = 1.0  # between looks at which nodes are drained
ALIVE_S = 5.0  # between signs of life to replicas

Sleep = Callable[[float], Awaitable[object]]


class ClusterEngine(EngineClient):
    """An engine made of replicas that `streamtok.engine.cluster.start` has started.

    `first` is one of `names`, with its link and the scores that all others must give too.
    """

    def __init__(
        self,
        cluster: Cluster,
        names: Sequence[str],
        first: tuple[str, Link, Scores],
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        name, link, self._scores = first
        super().__init__(link.info, self._command, Backlog)
        self._cluster, self._sleep = cluster, sleep
        self._exact = link.info.exact
        self._router = Router(2 * link.info.streams * link.info.context // 16)
        self._places = {name: Place(name) for name in names}
        self._where: dict[str, Place] = {}  # the place of each unfinished request that has one
        self._lobby = Journal(up=False)  # those that wait for a place
        self._copies = Copies()
        self._complaint = ""  # the last one
        self._changed = asyncio.Event()  # a place was opened
        self._patience: asyncio.Task[None] | None = None
        links = {name: link}
        self._tasks = [
            self._loop.create_task(self._supervise(place, links.get(place.name)))
            for place in self._places.values()
        ]
        self._tasks += map(self._loop.create_task, (self._stay_known(), self._look_after()))

    async def opened(self) -> None:
        """Wait until all replicas are open, for PLACING_S at most."""
        try:
            async with asyncio.timeout(PLACING_S):
                while missing := [p.name for p in self._places.values() if not p.open]:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            log.warning("not ready yet, and used when they are: %s", ", ".join(missing))

    @property
    def ready(self) -> bool:
        """Whether it computes: False while there is no replica."""
        return self.refused is None and any(place.open for place in self._places.values())

    def stats(self) -> EngineStats:
        """Return how busy it is, and each of its replicas."""
        stats, replicas = super().stats(), tuple(p.stats for p in self._places.values())
        restarts = sum(replica.restarts for replica in replicas)
        resumed = sum(replica.resumed for replica in replicas)
        return EngineStats(stats.running, stats.queued, restarts, resumed, replicas=replicas)

    def headers_of(self, request_id: str) -> tuple[tuple[str, str], ...]:
        """Return the header that says which replica computes a request, if one does now."""
        place = self._where.get(request_id)
        return (("x-streamtok-replica", place.name),) if place else ()

    async def close(self) -> None:
        """Leave the replicas; what still runs or waits ends with Failed(Unavailable)."""
        self.refused = Unavailable("the server is shutting down", code="shutting_down")
        tasks = [*self._tasks, *filter(None, [self._patience])]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        self.fail(Unavailable("the server shut down before the answer was complete"))
        links = [place.link for place in self._places.values() if place.link]
        await asyncio.gather(*(link.close() for link in links))
        await self._cluster.close()

    # Commands and events

    def _command(self, command: Command) -> None:
        assert not isinstance(command, Close)
        if isinstance(command, Submit):
            place = self._choose(command.sequences)
            if place:
                self._put(command.request_id, place, command.sequences)
            self._journal(command.request_id).note(command)
        elif isinstance(command, Cancel):
            self.receive(self._journal(command.request_id).note(command))
        else:
            self._journal(command.request_id).note(command)
        if place := self._where.get(command.request_id):
            self._send_due(place)

    def receive(self, events: Iterable[Addressed]) -> None:
        """Give each event to the stream of its request, unless it is known there."""
        for request_id, event in list(events):
            super().receive(self._journal(request_id).accept([(request_id, event)]))
            self._forget(request_id)

    def _take(self, place: Place, steps: Steps) -> None:
        """Take what a replica has computed; what is not its to compute any more is dropped."""
        place.others = steps.others
        events = list(unpack(steps.events))
        mine = [(name, event) for name, event in events if self._where.get(name) is place]
        for name, event in mine:
            if isinstance(event, TokenEvent):
                place.tokens += 1
            elif isinstance(event, Prefilled):
                place.prompts.pop((name, event.index), None)
            elif isinstance(event, ENDS):  # the next turn of a chat has the answer in its prompt
                computed = place.journal[name].so_far()
                self._router.place(place.name, [r for r in computed if r.index == event.index])
        super().receive(place.journal.accept(mine))
        for name, event in events:
            if isinstance(event, ENDS):
                self._forget(name)
                if copy := self._copies.computed(name, event.index):
                    self._copied(copy)
                    self._copy_next(copy.source)
        self._send_due(place)

    def _journal(self, request_id: str) -> Journal:
        place = self._where.get(request_id)
        return place.journal if place else self._lobby

    def _forget(self, request_id: str) -> None:
        """Forget a request if it has ended."""
        if request_id not in self._streams and (place := self._where.pop(request_id, None)):
            for key in [key for key in place.prompts if key[0] == request_id]:
                del place.prompts[key]

    def _send_due(self, place: Place) -> None:
        self._post(place, place.journal.due())

    def _post(self, place: Place, commands: Sequence[Command]) -> None:
        """Send commands soon: all of this turn of the event loop at once."""
        if commands and not place.outbox:
            self._loop.call_soon(self._send_out, place)
        place.outbox += commands

    def _send_out(self, place: Place) -> None:
        if place.link and place.outbox:
            place.link.send(place.outbox)
        place.outbox = []

    # Which replica

    def _choose(
        self, sequences: Sequence[SequenceRequest], but: Collection[Place] = ()
    ) -> Place | None:
        open_ = [place for place in self._places.values() if place.open and place not in but]
        loads = {place.name: place.load for place in open_}
        return self._places[self._router.choose(sequences, loads)] if loads else None

    def _put(self, request_id: str, place: Place, sequences: Sequence[SequenceRequest]) -> None:
        """Note that a request is computed in a place."""
        uncached = self._router.uncached(place.name, sequences)
        self._router.place(place.name, sequences)
        self._where[request_id] = place
        place.prompts[request_id, sequences[0].index] = uncached

    def _move(self, request_id: str, old: Journal, target: Place | None = None) -> None:
        """Have another replica continue a request, or let it wait for one."""
        entry = old.release(request_id)
        place = target if target and target.open else self._choose(entry.requests)
        if place:
            self._put(request_id, place, entry.requests)
            place.journal.adopt(request_id, entry)
            self._send_due(place)
        else:
            self._where.pop(request_id, None)
            self._lobby.adopt(request_id, entry)

    # The life of a replica

    async def _supervise(self, place: Place, link: Link | None) -> None:
        """Attach to a replica again and again, until cancelled."""
        restarts = Restarts()
        while True:
            link = link or await connect_alike(
                self._cluster,
                place.name,
                (self.fingerprint, self._scores),
                lambda: self._sleep(restarts.delay_s(0.0)),
            )
            self._open(place, link)
            opened_s = self._loop.time()
            try:
                while True:
                    self._take(place, await link.receive())
            except ReplicaLost as lost:
                log.error("%s is lost: %s", place.name, lost)
                self._lose(place, outside=lost.outside)
            except Exception:  # a fault of ours: its streams must not wait for ever
                log.exception("%s is given up", place.name)
                self._lose(place, outside=False)
                await link.close()
            link = None
            if delay_s := restarts.delay_s(self._loop.time() - opened_s):
                await self._sleep(delay_s)

    def _open(self, place: Place, link: Link) -> None:
        place.connect(link)
        self._count_places()
        if self._patience:
            self._patience.cancel()
            self._patience = None
        self.refused = None
        self._changed.set()
        log.info("%s is open: %s", place.name, link.place)
        for request_id in self._lobby.names:
            self._move(request_id, self._lobby)

    def _lose(self, place: Place, *, outside: bool) -> None:
        """Move what a replica that is gone has not finished."""
        self.receive(place.journal.crashed(exact=self._exact, outside=outside))
        old = place.journal
        place.disconnect()
        self._router.forget(place.name)
        self._copies.lose(place)
        for request_id in old.names:
            self._move(request_id, old)
        self._count_places()
        if not self._patience and not any(p.link for p in self._places.values()):
            self._patience = self._loop.create_task(self._lose_patience())

    def _count_places(self) -> None:  # without any replica, there is as much room as there was
        infos = [place.link.info for place in self._places.values() if place.link]
        self.streams = sum(info.streams for info in infos) or self.streams
        self.room = sum(info.room for info in infos) or self.room

    async def _lose_patience(self) -> None:
        await self._sleep(PATIENCE_S)
        self.refused = Unavailable("the engine is being started again", code="engine_restarting")
        self.fail(EngineFailed("no replica of the engine was left, and none came in time"))

    # Nodes that are drained

    async def _stay_known(self) -> None:
        """Tell the replicas that this server lives, whatever Ray is busy with."""
        while True:
            await self._sleep(ALIVE_S)
            for place in self._places.values():
                if place.link:
                    place.link.send([])

    async def _look_after(self) -> None:
        """Empty the replicas whose node is drained. What fails is tried again at the next look."""
        while True:
            await self._sleep(LOOK_S)
            try:
                draining = await self._cluster.draining()
            except ReplicaLost as error:
                self._complain("it is not known which nodes are drained: %s", error)
                continue
            for place in self._places.values():
                if place.link and (place.draining or place.name in draining):
                    await self._drain(place)

    async def _drain(self, place: Place) -> None:
        """Begin to move what is in a place; when nothing is left, have the replica moved, once."""
        if not place.draining:
            log.warning(
                "the node of %s is drained: %d sequences move", place.name, len(place.journal)
            )
            place.draining = True
        self._copy_next(place)
        if not (place.journal.names or place.others or place.moving):
            place.moving = True
            try:
                await self._cluster.move(place.name)
            except ReplicaLost as error:
                place.moving = False
                self._complain(f"{place.name} cannot be moved: %s", error)

    def _complain(self, message: str, error: Exception) -> None:
        """Log what fails at each look, unless it is what failed at the look before."""
        if (complaint := message % error) != self._complaint:
            self._complaint = complaint
            log.error(complaint)

    def _copy_next(self, place: Place) -> None:
        """Begin copies from a place that is drained: one at a time to each other replica.

        A request that is moved there then waits for one of them at most.
        """
        for request_id in place.journal.names if place.draining else ():
            entry = place.journal[request_id]
            if request_id in self._copies or entry.cancelled:
                continue
            if target := self._choose(entry.requests, self._copies.targets):
                self._copy(request_id, place, target, rounds=1)

    def _copy(self, request_id: str, place: Place, target: Place, rounds: int) -> None:
        """Have another replica compute what a request has, or what it has more than was copied."""
        if submit := self._copies.begin(request_id, place, target, rounds):
            self._post(target, [submit])
            self._router.place(target.name, submit.sequences)

    def _copied(self, copy: Copy) -> None:
        """Move a request, nearly all of which is there; or copy the rest first."""
        request_id, source = copy.request_id, copy.source
        if self._where.get(request_id) is not source or source.journal[request_id].cancelled:
            return
        if not copy.is_enough:
            self._copy(request_id, source, copy.target, copy.rounds + 1)
            return
        self._move(request_id, source.journal, copy.target)
        self._post(source, [Cancel(request_id, None)])
