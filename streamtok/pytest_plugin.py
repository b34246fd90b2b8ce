"""The pytest plugin: the fixture `streamtok_server`, a real server for each test that asks for it.

pytest loads this module in every project whose environment has streamtok, so it imports nothing
that takes time before a test asks. Read next: `streamtok.testing.fixture`, what such a test gets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from streamtok.testing.fixture import Models, TestedServer

FLAGS = "flags of `streamtok serve` for the fixture streamtok_server"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the setting `streamtok_args`."""
    parser.addini("streamtok_args", FLAGS, type="args", default=[])


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker `streamtok`."""
    config.addinivalue_line("markers", f"streamtok(*flags): {FLAGS}, after those of streamtok_args")


@pytest.fixture(scope="session")
def streamtok_models() -> Models:
    """Models that are loaded already, each once for all tests."""
    from streamtok.testing.fixture import Models

    return Models()


@pytest.fixture
def streamtok_server(
    request: pytest.FixtureRequest, streamtok_models: Models
) -> Iterator[TestedServer]:
    """A server of the test's own, on a free port; the same requests get the same bytes."""
    from streamtok.testing.fixture import fresh_server

    markers = reversed(list(request.node.iter_markers("streamtok")))
    flags = [*request.config.getini("streamtok_args"), *(f for m in markers for f in m.args)]
    with fresh_server(flags, streamtok_models) as server:
        yield server


@pytest.fixture(scope="session")
def streamtok_session_server(
    request: pytest.FixtureRequest, streamtok_models: Models
) -> Iterator[TestedServer]:
    """One server for all tests; its ids, books and faults go on from test to test."""
    from streamtok.testing.fixture import fresh_server

    with fresh_server(request.config.getini("streamtok_args"), streamtok_models) as server:
        yield server


@pytest.fixture
def streamtok_env(
    streamtok_server: TestedServer, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """The variables that send programs to the test's server: set in this process, and returned."""
    for name, value in streamtok_server.env.items():
        monkeypatch.setenv(name, value)
    return streamtok_server.env
