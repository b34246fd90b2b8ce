"""What a connection is given: handler, error format, limits, and trusted proxies.

Read next: `streamtok.http.connection`.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

from msgspec import Struct

from streamtok.clock import Clock
from streamtok.config import ConnectionConfig
from streamtok.errors import RequestError
from streamtok.http.body import BodyFramer
from streamtok.http.request import HeaderList, Request
from streamtok.http.response import Body, Response
from streamtok.http.tracer import Tracer
from streamtok.http.transport import ByteStream, Outbox


class Peers(Protocol):
    """Which client a peer speaks for; proxies are plugged in by `streamtok.app`."""

    def trusts(self, peer: str) -> bool:
        """Tell whether `peer` is a proxy, whose connections are those of many clients."""

    def client(self, peer: str, headers: HeaderList) -> str:
        """Return the address of the client that `peer` speaks for."""


class Direct:
    """Every peer speaks for itself."""

    def trusts(self, peer: str) -> bool:
        """See `Peers.trusts`."""
        return False

    def client(self, peer: str, headers: HeaderList) -> str:
        """See `Peers.client`."""
        return peer


class Service(Struct, frozen=True):
    """What a connection is given: who answers, how errors look, limits, tracer, where it writes."""

    handle: Callable[[Request], Awaitable[Response]]
    refuse: Callable[[RequestError], Response]
    clock: Clock
    limits: ConnectionConfig
    peers: Peers = Direct()
    tracer: Tracer | None = None
    outbox: Outbox = Outbox()
    attach: Callable[[Body, BodyFramer, ByteStream], None] = lambda *_: None  # `answer.direct`
