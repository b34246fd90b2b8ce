"""Fixtures for all tests: tiny models, and real servers on free ports of the loopback."""

import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from postgres_server import PostgresServer, missing, running_postgres

from streamtok.api.routing import Api
from streamtok.clock import Clock
from streamtok.config import ServeConfig
from streamtok.http.server import Server
from streamtok.testing import (
    RunningServer,
    listen_locally,
    make_service,
    running_server,
    write_model,
)

pytest_plugins = ["streamtok.pytest_plugin"]

# In the background, shells have Ctrl-C ignored by tests, and so by the commands that they run
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "default", derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
# New examples in every run, and many, as `examples.py` has them too: `.ci/run explore`
settings.register_profile(
    "explore", settings.get_profile("default"), derandomize=False, max_examples=1000
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random model of two small layers and a tokenizer of bytes."""
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with the shipped model, as users run it; shared by all tests. See `test_ray`."""
    ledger = tmp_path_factory.mktemp("ledger") / "usage.sqlite3"
    on_ray: dict[str, Any] = {"engine": "ray", "replicas": 2, "ray_cpus": 0.5}
    given = on_ray if os.environ.get("TESTS_ON_RAY") else {}
    with running_server(ServeConfig(port=0, ledger=str(ledger), **given)) as running:
        yield running


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A real PostgreSQL; tests that use it are skipped where it is not installed."""
    if reason := missing():
        pytest.skip(reason)
    with running_postgres() as server:
        yield server


@pytest.fixture
async def listen() -> AsyncIterator[Callable[[Api, Clock], str]]:
    """Serve an Api on the test's own event loop, by any clock; give its URL."""
    servers: list[Server] = []

    def start(api: Api, clock: Clock) -> str:
        servers.append(Server(make_service(api, clock)))
        host, port = listen_locally(servers[-1])
        return f"http://{host}:{port}"

    yield start
    for server in servers:
        server.finish()
        await server.abort()
