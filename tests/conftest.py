"""Fixtures for all tests: tiny models, and real servers on free ports of the loopback."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from streamtok.api.routing import Api, refuse
from streamtok.clock import Clock
from streamtok.config import ConnectionConfig, ServeConfig
from streamtok.http.connection import Connection, Service
from streamtok.http.transport import SocketStream
from streamtok.testing import RunningServer, running_server, write_model

settings.register_profile(
    "default", derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
settings.load_profile("default")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random model of two small layers and a tokenizer of bytes."""
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with the shipped model, as users run it; shared by all tests."""
    ledger = tmp_path_factory.mktemp("ledger") / "usage.sqlite3"
    with running_server(ServeConfig(port=0, ledger=str(ledger))) as running:
        yield running


@pytest.fixture
async def listen() -> AsyncIterator[Callable[[Api, Clock], Awaitable[str]]]:
    """Serve an Api on the test's own event loop, by any clock; give its URL."""
    connections: set[asyncio.Task[None]] = set()
    servers: list[asyncio.Server] = []

    async def start(api: Api, clock: Clock) -> str:
        service = Service(api.handle, refuse, clock, ConnectionConfig())

        def accept(stream: SocketStream) -> None:
            task = asyncio.ensure_future(Connection(stream, service).run())
            connections.add(task)
            task.add_done_callback(connections.discard)

        loop = asyncio.get_running_loop()
        servers.append(await loop.create_server(lambda: SocketStream(accept, 10), "127.0.0.1", 0))
        return f"http://127.0.0.1:{servers[-1].sockets[0].getsockname()[1]}"

    yield start
    for server in servers:
        server.close()
    for task in list(connections):
        task.cancel()
    if connections:
        await asyncio.wait(connections)
