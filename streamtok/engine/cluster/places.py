"""The replicas as a server knows them: what each computes for it, and how it is reached.

`Cluster` and `Link` are what `streamtok.engine.cluster.ray` implements and tests replace. Read
next: `streamtok.engine.cluster.client`.
"""

from collections.abc import Collection, Sequence
from typing import Protocol

from msgspec import Struct, field

from streamtok.engine.cluster.replica import Steps
from streamtok.engine.cluster.router import Load
from streamtok.engine.cluster.stats import ReplicaStats
from streamtok.engine.commands import Command, EngineInfo
from streamtok.engine.remote.journal import Journal


class ReplicaLost(Exception):
    """A replica cannot be reached any more; its node is gone if `outside`, else it has ended."""

    def __init__(self, reason: str, *, outside: bool = False) -> None:
        super().__init__(reason)
        self.outside = outside


class Link(Protocol):
    """A server's attachment to a replica, from when its engine is loaded until it is lost."""

    @property
    def info(self) -> EngineInfo:
        """The replica's engine."""

    @property
    def place(self) -> str:
        """Which node and process it is, for people."""

    def send(self, commands: Sequence[Command]) -> None:
        """Send commands; they are dropped if the replica is gone. Raises nothing."""

    async def receive(self) -> Steps:
        """Return what happens next.

        Raises:
            ReplicaLost: nothing more will.
        """

    async def close(self) -> None:
        """Detach; what has been asked for is cancelled. Raises nothing."""


class Cluster(Protocol):
    """Where replicas run."""

    async def connect(self, name: str) -> Link:
        """Attach to a replica, which is started if there is none; wait until it has a place.

        Raises:
            ReplicaLost: it has ended before it was ready.
            StreamtokError: its engine cannot be started.
        """

    async def draining(self) -> Collection[str]:
        """Return the names of replicas whose node is about to go.

        Raises:
            ReplicaLost: that cannot be found out now.
        """

    async def move(self, name: str) -> None:
        """End a replica, so that it is started on another node.

        Raises:
            ReplicaLost: it cannot be reached now.
        """

    async def close(self) -> None:
        """Leave the cluster."""


class Place(Struct, eq=False):
    """A replica: its link, if there is one, and the journal of what it computes for this server."""

    name: str
    link: Link | None = None
    journal: Journal = field(default_factory=Journal)
    draining: bool = False
    moving: bool = False  # it is empty, and the cluster was asked to start it elsewhere
    others: int = 0  # sequences that it computes for other servers
    prompts: dict[tuple[str, int], int] = field(default_factory=dict)  # positions that still wait
    outbox: list[Command] = field(default_factory=list)
    restarts: int = 0
    resumed: int = 0  # by its journals before
    tokens: int = 0

    @property
    def open(self) -> bool:
        """Whether new requests may go there."""
        return self.link is not None and not self.draining

    @property
    def load(self) -> Load:
        """How busy it is."""
        streams = self.link.info.streams if self.link else 0
        waiting = sum(self.prompts.values())
        return Load(len(self.journal) + self.others, waiting, streams)

    @property
    def stats(self) -> ReplicaStats:
        """How busy it is, and what it has done for this server."""
        running = self.journal.running
        return ReplicaStats(
            running,
            len(self.journal) - running,
            self.restarts,
            self.resumed + self.journal.resumed,
            name=self.name,
            place=self.link.place if self.link else "",
            ready=self.open,
            tokens=self.tokens,
        )

    def connect(self, link: Link) -> None:
        """Begin with a replica that has nothing of this server's."""
        self.link, self.others = link, 0
        self.draining = self.moving = False

    def disconnect(self) -> None:
        """Note that the replica is gone; the journal has been emptied."""
        self.resumed += self.journal.resumed
        self.link, self.journal = None, Journal()
        self.outbox.clear()
        self.prompts.clear()
        self.restarts += 1
