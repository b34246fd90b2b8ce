"""Fixtures for all tests: tiny models, and real servers on free ports of the loopback."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from streamtok.config import ServeConfig
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
