"""Listens, runs each connection in a task, and shuts all of them down in order.

Read next: `streamtok.http.listener`.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Sequence

from streamtok.errors import Unavailable
from streamtok.http.connection import Connection
from streamtok.http.deadline import BodyBudget
from streamtok.http.listener import Listener, Tls
from streamtok.http.service import Service
from streamtok.http.transport import READ_AHEAD_BYTES, SocketStream


class Server:
    """Listening sockets and the connections they accepted."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._limits = service.limits
        self._budget = BodyBudget(self._limits.max_buffered_bytes, READ_AHEAD_BYTES)
        self._addresses: Counter[str] = Counter()
        self._listeners: list[Listener] = []
        self._connections: dict[asyncio.Task[None], Connection] = {}
        self._finishing = False

    def listen(self, sockets: Sequence[socket.socket], tls: Tls, backlog: int) -> None:
        """Accept connections on `sockets`, over TLS where `tls` gives settings for it."""
        for sock in sockets:
            most = self._limits.max_connections
            self._listeners.append(Listener(sock, self._make_stream, tls, most))
        for listener in self._listeners:
            listener.start(backlog)

    def finish(self) -> None:
        """Accept no more; connections end when their present answer is complete."""
        self._finishing = True
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections.values()):
            connection.finish()

    async def wait(self, timeout_s: float) -> bool:
        """Wait for all connections to end; return whether they did within `timeout_s`."""
        if self._connections:
            await asyncio.wait(self._connections, timeout=timeout_s)
        return not self._connections

    async def abort(self) -> None:
        """End what is left at once."""
        for listener in self._listeners:
            listener.abort()
        for task in list(self._connections):
            task.cancel()
        await self.wait(1.0)

    def _make_stream(self) -> SocketStream:
        return SocketStream(self._accept, self._limits.stall_timeout_s, self._service.outbox)

    def _accept(self, stream: SocketStream) -> None:
        refusal = self._refusal(stream.peer)
        if len(self._connections) >= 2 * self._limits.max_connections:
            stream.abort()  # not even refusals may pile up
            return
        connection = self._connection(stream)
        task = asyncio.get_running_loop().create_task(connection.run(refusal))
        self._connections[task] = connection
        self._addresses[stream.peer] += 1
        task.add_done_callback(lambda task: self._forget(task, stream.peer))
        if self._finishing:
            connection.finish()

    def _connection(self, stream: SocketStream) -> Connection:
        if self._service.tracer is None:
            return Connection(stream, self._service, budget=self._budget)
        tapped, trace = self._service.tracer.tap(stream)
        return Connection(tapped, self._service, trace, self._budget)

    def _refusal(self, address: str) -> Unavailable | None:
        """Return why another connection from `address` is not served, if it is not."""
        limits = self._limits
        if len(self._connections) >= limits.max_connections:
            return Unavailable("the server has no room for more connections", code="connections")
        most = limits.max_connections_per_address
        if most and self._addresses[address] >= most and not self._service.peers.trusts(address):
            return Unavailable(f"{address} has {most} connections already", code="connections")
        return None

    def _forget(self, task: asyncio.Task[None], address: str) -> None:
        del self._connections[task]
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]
