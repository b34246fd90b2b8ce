"""Real replicas on Ray: `streamtok serve --engine ray` as an operator runs it.

`test_cluster` has what does not need Ray. These take some minutes: `pytest -m ray`.
"""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from postgres_server import PostgresServer
from processes import Serving, read_to_end, refused, serving

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "scripts" / "bench"
GOLDEN = ROOT / "tests" / "golden" / "hello.http"
WIRE = sorted((ROOT / "tests" / "wire").glob("*.http"))
REPEATABLE = ("--port", "0", "--frozen-clock", "--ids", "sequential")


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
    with serving(*REPEATABLE, "--engine", "ray", "--replicas", "2", "--ray-cpus", "0.5") as running:
        yield running
        running.stop()


@pytest.fixture(scope="module")
def local() -> Iterator[Serving]:
    """The same server with an engine of its own."""
    with serving(*REPEATABLE) as running:
        yield running


def health(server: Serving) -> list[dict[str, object]]:
    found: list[dict[str, object]] = httpx.get(f"{server.url}/health").json()["replicas"]
    return found


@pytest.mark.ray
def test_streams_of_all_dialects_survive_a_killed_replica(
    scripts: None, server: Serving, local: Serving
) -> None:
    from streams import comparable, streams
    from survive import read

    found = streams(30, "fireside")
    arrived = 0
    killed = False

    def count(size: int) -> None:
        nonlocal arrived, killed
        arrived += size
        if arrived > 20_000 and not killed:
            killed = True
            os.kill(pids[0], signal.SIGKILL)

    async def run(url: str) -> list[tuple[int, str]]:
        answers = await asyncio.gather(*(read(url, s, count) for s in found))
        return [(status, comparable(data)) for status, data in answers]

    pids = [int(server.wait_for(r"is open: node \w+, process (\d+)")[1]) for _ in range(2)]
    killed = True
    expected = asyncio.run(run(local.url))
    killed, arrived = False, 0
    answers = asyncio.run(run(server.url))
    assert killed
    assert answers == expected
    replicas = health(server)
    assert sum(int(str(replica["restarts"])) for replica in replicas) == 1
    assert sum(int(str(replica["resumed"])) for replica in replicas) > 0
    server.wait_for("is lost: ")
    server.wait_for("is open: ")  # Ray has started it again


def raw(server: Serving, data: bytes) -> bytes:
    """Return all bytes that a request gets, its ids numbered, without the name of the replica.

    Who sends no more may be asked for a sign of life (`test_wire`), which is left out too.
    """
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(data)
        with suppress(OSError):  # it was refused, and closed, before all of it was sent
            connection.shutdown(socket.SHUT_WR)
        answer = read_to_end(connection).replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    ids: dict[bytes, bytes] = {}
    answer = re.sub(
        rb"([a-z]+[_-])\d{24}",
        lambda found: found[1] + ids.setdefault(found[0], b"%024d" % (len(ids) // 2 + 1)),
        answer,
    )
    return re.sub(rb"(?i)x-streamtok-replica: \S+\r\n", b"", answer)


def post(path: str, media: str, body: object) -> bytes:
    text = json.dumps(body)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {media}\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(text)}\r\n\r\n{text}".encode()


@pytest.mark.ray
def test_the_bytes_are_those_of_a_local_engine_and_the_golden_ones(
    scripts: None, server: Serving, local: Serving
) -> None:
    from streams import streams

    hello = {"messages": [{"role": "user", "content": "Hello"}], "stream": True}
    body = hello | {"max_tokens": 5, "temperature": 0}
    assert raw(server, post("/v1/chat/completions", "*/*", body)) == GOLDEN.read_bytes()
    requests = {"/".join(map(str, found)): post(*found) for found in streams(20, "fireside")}
    for path in WIRE:
        lines = path.read_text("ascii").splitlines()[2:]
        requests[path.stem] = "".join(lines).encode().decode("unicode_escape").encode("latin-1")
    for name, request in requests.items():
        expected = raw(local, request)
        assert raw(server, request) == expected, name


@pytest.mark.ray
def test_the_suites_end_to_end_tests_pass_with_replicas(scripts: None) -> None:
    names = "e2e openai anthropic responses structured tools framings embeddings"
    check_tests([f"test_{name}.py" for name in names.split()], TESTS_ON_RAY="1")


@pytest.mark.ray
def test_the_examples_of_the_readme_and_the_help_pass_with_replicas(scripts: None) -> None:
    settings = {"ENGINE": "ray", "REPLICAS": "2", "RAY_CPUS": "0.5"}
    examples = ["test_readme.py", "-k", "test_a_command_works"]
    check_tests(examples, **{f"STREAMTOK_{name}": value for name, value in settings.items()})


def check_tests(arguments: list[str], **environment: str) -> None:
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(
        command,
        cwd=ROOT / "tests",
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]


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
    from streamtok.config import ServeConfig
    from streamtok.engine.cluster.start import start_ray
    from streamtok.errors import ConfigError

    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "streamtok.engine.cluster.ray", raising=False)
    with pytest.raises(ConfigError, match=r"--engine ray needs pip install 'streamtok\[ray\]'"):
        asyncio.run(start_ray(ServeConfig(), lambda _: None))
