"""Listens, gives each connection a task, and brings all of them to an orderly end."""

import asyncio
import socket

from streamtok.http.connection import Connection, Service
from streamtok.http.transport import SocketStream


class Server:
    """Listening sockets and the connections they accepted."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._listener: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], Connection] = {}
        self._finishing = False

    async def listen(self, host: str, port: int) -> list[tuple[str, int]]:
        """Start listening; return the addresses, with the port the system chose where 0 was asked.

        Raises:
            OSError: the address cannot be had.
        """
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: SocketStream(self._accept), host, port, backlog=1024
        )
        sockets: tuple[socket.socket, ...] = self._listener.sockets
        return [sock.getsockname()[:2] for sock in sockets]

    def finish(self) -> None:
        """Accept no more; connections end when their present answer is complete."""
        self._finishing = True
        if self._listener:
            self._listener.close()
        for connection in list(self._connections.values()):
            connection.finish()

    async def wait(self, timeout_s: float) -> bool:
        """Wait for all connections to end; return whether they did within `timeout_s`."""
        if self._connections:
            await asyncio.wait(self._connections, timeout=timeout_s)
        return not self._connections

    async def abort(self) -> None:
        """End what is left at once."""
        for task in list(self._connections):
            task.cancel()
        await self.wait(1.0)

    def _accept(self, stream: SocketStream) -> None:
        connection = Connection(stream, self._service)
        task = asyncio.get_running_loop().create_task(connection.run())
        self._connections[task] = connection
        task.add_done_callback(self._connections.pop)
        if self._finishing:
            connection.finish()
