"""The live server that lessons talk to, and plain sockets to do it with.

The server is a real one with the shipped model, in a thread of this process, on a free port of the
loopback. Two things differ from `streamtok serve`, so that lessons are short: it waits for the rest
of a request a second, not ten, and its sockets' send buffers are small. Nothing here interprets
what comes: see `streamtok.teach.doctor.recording`.
"""

import json
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, Literal

from msgspec import Struct

from streamtok.config import ServeConfig
from streamtok.model.load import read_config
from streamtok.serve.background import running_server
from streamtok.teach.doctor.eventstream import Stream, read_stream
from streamtok.teach.doctor.recording import Answer, Read, Recording, read_answer

PATIENCE_S = 60.0  # for the next bytes; the server gives up much earlier
SEND_BUFFER_BYTES = 8192
ORDINARY_IDS = 300  # ids from here on are words and parts of words

Enough = Callable[[bytes], bool]


class Exchange(Struct, frozen=True):
    """What went over one connection, both ways."""

    sent: bytes
    recording: Recording

    @property
    def raw(self) -> bytes:
        """All that came."""
        return b"".join(read.data for read in self.recording.reads)

    @property
    def answer(self) -> Answer:
        """The first answer in it."""
        return read_answer(self.recording)

    @property
    def stream(self) -> Stream:
        """The first answer's events."""
        return read_stream(self.answer)

    def at_s(self, offset: int) -> float:
        """Return when the byte at `offset` came, in seconds since the request was sent."""
        for read in self.recording.reads:
            offset -= len(read.data)
            if offset < 0:
                return read.at_s
        raise ValueError("so much did not come")


class Talk:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sent = b""
        self._reads: list[Read] = []
        self._begun_s = time.perf_counter()

    def send(self, data: bytes) -> None:
        """Send bytes; times count from now on."""
        self._begun_s = time.perf_counter()
        self._sent += data
        self._connection.sendall(data)

    def read(self, enough: Enough = lambda _: False) -> Exchange:
        """Read until the server closes, falls silent, or `enough` of all that came is true."""
        ended: Literal["answered", "closed", "reset", "silent"] = "answered"
        raw = b"".join(read.data for read in self._reads)
        try:
            while not enough(raw):
                data = self._connection.recv(65536)
                if not data:
                    ended = "closed"
                    break
                self._reads.append(Read(time.perf_counter() - self._begun_s, data))
                raw += data
        except TimeoutError:
            ended = "silent"
        except OSError:
            ended = "reset"
        return Exchange(self._sent, Recording(tuple(self._reads), ended))


class Lab:
    """A running server, as lessons see it."""

    def __init__(
        self,
        address: tuple[str, int],
        config: ServeConfig,
        engine_pid: Callable[[], int | None] = lambda: None,
    ) -> None:
        self.address = address
        self._engine_pid = engine_pid
        self.config = config
        self.model = read_config(config.model_folder)
        self._seeds = count()

    @contextmanager
    def connect(self, receive_buffer_bytes: int = 0) -> Iterator[Talk]:
        """Connect for the length of the block."""
        with socket.socket() as connection:
            if receive_buffer_bytes:  # to be effective it must be set before
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
            connection.settimeout(PATIENCE_S)
            connection.connect(self.address)
            yield Talk(connection)

    def exchange(self, request: bytes, enough: Enough = lambda _: False) -> Exchange:
        """Send bytes over a connection of their own and read, as `Talk.read` does."""
        with self.connect() as talk:
            talk.send(request)
            return talk.read(enough)

    def ask(self, path: str, body: Any) -> Any:
        """Return what the server answers to a JSON value, as a JSON value."""
        return json.loads(self.exchange(post(path, body)).answer.body)

    def kill_engine(self) -> None:
        """Kill the process that computes the model, as `kill -9` does."""
        if (pid := self._engine_pid()) is not None:
            os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))

    def new_ids(self, length: int) -> list[int]:
        """Return a prompt of token ids that the server has not seen yet."""
        ids = range(ORDINARY_IDS, self.model.vocab)
        return random.Random(next(self._seeds)).choices(ids, k=length)


@contextmanager
def open_lab() -> Iterator[Lab]:
    """Run a server for the length of the block.

    Raises:
        StreamtokError: it cannot be started.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    # What it accepts inherits this.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    config = ServeConfig(
        fd=listening.detach(),
        ledger=":memory:",
        drain_timeout_s=0,
        header_timeout_s=1,
        body_timeout_s=0.5,
    )
    with running_server(config) as server:
        yield Lab(server.address, config, lambda: getattr(server.app.engine, "pid", None))


def get(target: str, *fields: str, version: str = "1.1") -> bytes:
    """Return a request without a body."""
    lines = [f"GET {target} HTTP/{version}", "Host: localhost", *fields]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def post(path: str, body: Any, *fields: str) -> bytes:
    """Return a request with a JSON value, after which the connection ends."""
    data = json.dumps(body, ensure_ascii=False).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Connection: close", *fields]
    return "\r\n".join([*lines, f"Content-Length: {len(data)}", "", ""]).encode() + data


def answered(raw: bytes) -> bool:
    """Whether a complete answer has come."""
    return read_answer(Recording((Read(0.0, raw),), "answered")).complete
