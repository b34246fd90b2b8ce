"""Accepts connections on one socket, with or without TLS, and makes a transport of each.

TCP_NODELAY is set on all of them, so that a chunk leaves when it is written.

asyncio's own server is not used, for one reason: when file descriptors run out, it tries and logs a
thousand times in a row. This one says so once, and tries again after a pause, while connections
wait in the kernel's backlog.

Read next: `streamtok.http.transport`.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

log = logging.getLogger(__name__)

HANDSHAKE_S = 10.0  # for the client to agree on TLS
TLS_SHUTDOWN_S = 2.0  # for the client to agree that the connection is over
UNSENT_BYTES = 64 * 1024  # of a connection that the kernel keeps before the network takes them
PAUSE_S = 0.25  # until the next try when the system has no more to give

Tls = Callable[[], ssl.SSLContext | None]  # asked for each connection: certificates are renewed


class Listener:
    """A listening socket; what `make` returns is connected to what it accepts.

    No more than `most_pending` connections are between the two, where TLS handshakes take their
    time; beyond that, new ones are dropped.
    """

    def __init__(
        self,
        sock: socket.socket,
        make: Callable[[], asyncio.Protocol],
        tls: Tls,
        most_pending: int,
    ) -> None:
        self._socket = sock
        self._make = make
        self._tls = tls
        self._most_pending = most_pending
        self._loop = asyncio.get_running_loop()
        self._retry: asyncio.TimerHandle | None = None
        self._exhausted = False
        self._pending: set[asyncio.Task[None]] = set()

    def start(self, backlog: int) -> None:
        """Listen; `backlog` is how many connections may wait to be accepted."""
        self._socket.setblocking(False)
        self._socket.listen(backlog)
        self._resume()

    def close(self) -> None:
        """Accept no more. The socket is closed; what was accepted goes on."""
        if self._socket.fileno() < 0:
            return
        if self._retry:
            self._retry.cancel()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def abort(self) -> None:
        """Drop what has been accepted and is not connected yet."""
        for task in self._pending:
            task.cancel()

    def _resume(self) -> None:
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        """Accept one connection.

        One at a time, so that processes that share the socket share the connections, and so that a
        flood of them does not hold up what is already running.
        """
        try:
            accepted, _ = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # another process was faster, or the client has left again
        except OSError as error:  # no more file descriptors, or memory
            self._pause(error)
            return
        self._exhausted = False
        if len(self._pending) >= self._most_pending:
            accepted.close()
            return
        if accepted.family in (socket.AF_INET, socket.AF_INET6):
            with suppress(OSError):  # the client may be gone already
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                    # Otherwise the kernel takes megabytes for a client that does not read, and its
                    # stream is paused long after it should have given its slot to another.
                    lowat = socket.TCP_NOTSENT_LOWAT
                    accepted.setsockopt(socket.IPPROTO_TCP, lowat, UNSENT_BYTES)
        task = self._loop.create_task(self._connect(accepted))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    def _pause(self, error: OSError) -> None:
        """Stop listening to the socket for a while: it would be readable all the time."""
        if not self._exhausted:
            log.error("cannot accept connections for now: %s", error.strerror)
        self._exhausted = True
        self._loop.remove_reader(self._socket.fileno())
        self._retry = self._loop.call_later(PAUSE_S, self._resume)

    async def _connect(self, accepted: socket.socket) -> None:
        tls = self._tls()
        try:
            await self._loop.connect_accepted_socket(
                self._make,
                accepted,
                ssl=tls,
                ssl_handshake_timeout=HANDSHAKE_S if tls else None,
                ssl_shutdown_timeout=TLS_SHUTDOWN_S if tls else None,
            )
        except OSError as error:  # ssl.SSLError and TimeoutError among them
            log.debug("a connection failed before its first request: %s", error)
