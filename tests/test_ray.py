"""Real replicas on Ray: `streamtok serve --engine ray` as an operator runs it.

`test_cluster` has what does not need Ray. These take some minutes: `pytest -m ray`.
"""

import asyncio
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from postgres_server import PostgresServer
from processes import Serving, refused, serving

SCRIPTS = Path(__file__).parent.parent / "scripts" / "bench"


@pytest.fixture(scope="module")
def scripts() -> None:
    """Make the scripts importable that try a cluster."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")
    if not SCRIPTS.exists():
        pytest.skip("not a checkout")
    sys.path.insert(0, str(SCRIPTS))


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")
    given = ("--port", "0", "--frozen-clock", "--engine", "ray", "--replicas", "2")
    with serving(*given, "--ray-cpus", "0.5") as running:
        yield running
        running.stop()


def health(server: Serving) -> list[dict[str, object]]:
    found: list[dict[str, object]] = httpx.get(f"{server.url}/health").json()["replicas"]
    return found


@pytest.mark.ray
def test_streams_of_all_dialects_survive_a_killed_replica(scripts: None, server: Serving) -> None:
    from survive import comparable, read, streams

    found = streams(30, "fireside")
    arrived = 0
    killed = False

    def count(size: int) -> None:
        nonlocal arrived, killed
        arrived += size
        if arrived > 20_000 and not killed:
            killed = True
            os.kill(pids[0], signal.SIGKILL)

    async def run(local: str = "") -> list[tuple[int, str]]:
        answers = await asyncio.gather(*(read(local or server.url, s, count) for s in found))
        return [(status, comparable(data)) for status, data in answers]

    pids = [int(server.wait_for(r"is open: node \w+, process (\d+)")[1]) for _ in range(2)]
    with serving("--port", "0", "--frozen-clock") as local:
        killed = True
        expected = asyncio.run(run(local.url))
    killed, arrived = False, 0
    answers = asyncio.run(run())
    assert killed
    assert answers == expected
    replicas = health(server)
    assert sum(int(str(replica["restarts"])) for replica in replicas) == 1
    assert sum(int(str(replica["resumed"])) for replica in replicas) > 0
    server.wait_for("is lost: ")
    server.wait_for("is open: ")  # Ray has started it again


@pytest.mark.ray
def test_answers_and_metrics_say_which_replica(server: Serving) -> None:
    answer = httpx.post(f"{server.url}/v1/completions", json={"prompt": "A", "max_tokens": 2})
    name = answer.headers["x-streamtok-replica"]
    assert name in [replica["name"] for replica in health(server)]
    metrics = httpx.get(f"{server.url}/metrics").text
    line = rf'^streamtok_replica_tokens_total{{replica="{name}"}} (\S+)'
    (tokens,) = re.findall(line, metrics, re.MULTILINE)
    assert float(tokens) >= 2


@pytest.mark.ray
def test_streams_survive_a_killed_node_of_three(scripts: None) -> None:
    import cluster

    assert cluster.survive(40) == 0


@pytest.mark.ray
@pytest.mark.postgres
def test_clients_change_between_servers_that_share_replicas_and_a_ledger(
    scripts: None, postgres_server: PostgresServer
) -> None:
    import servers

    assert servers.main(postgres_server.database(), 40, 0) == 0


@pytest.mark.ray
def test_an_address_without_a_cluster_is_refused() -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")
    message = refused("--engine", "ray", "--ray-address", "127.0.0.1:1")
    assert message.startswith("streamtok: --ray-address 127.0.0.1:1: ")


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from streamtok.config import EngineConfig
    from streamtok.engine.cluster.config import RayConfig
    from streamtok.engine.cluster.start import start_ray
    from streamtok.errors import ConfigError

    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "streamtok.engine.cluster.ray", raising=False)
    with pytest.raises(ConfigError, match=r"--engine ray needs pip install 'streamtok\[ray\]'"):
        asyncio.run(start_ray(RayConfig(), EngineConfig(), lambda _: None))
