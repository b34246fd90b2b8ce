"""Several processes behind one address, as an operator sees them: started, killed, stopped."""

import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import httpx
import pytest
import trustme
from processes import Serving, read_to_end, refused, serving, start_stream

from streamtok.config import default_model


@pytest.fixture
def flags(tmp_path: Path, tiny_model: Path) -> tuple[str, ...]:
    return ("--workers", "2", "--ledger", str(tmp_path / "usage"), "--model", str(tiny_model))


@pytest.fixture
def server(flags: tuple[str, ...]) -> Iterator[Serving]:
    with serving("--port", "0", *flags) as running:
        yield running


def get(server: Serving, path: str) -> bytes:
    with urlopen(f"{server.url}{path}") as answer:
        data: bytes = answer.read()
        return data


def worker_that_answers(server: Serving) -> int:
    """Ask for something, and return the process whose log line says that it answered."""
    get(server, "/health")
    return int(server.wait_for(r'\[(\d+)\] INFO .*"GET /health" 200')[1])


def complete(server: Serving, **body: Any) -> dict[str, Any]:
    answer = httpx.post(f"{server.url}/v1/completions", json={"prompt": "a", **body})
    parsed: dict[str, Any] = answer.json()
    return parsed


def test_both_serve_the_same_model_and_keep_one_ledger(server: Serving) -> None:
    seen: dict[str, set[str]] = {}
    requests = 0
    while len(seen) < 2:
        answer = complete(server, max_tokens=4, seed=1, ignore_eos=True)
        requests += 1
        text = get(server, "/metrics").decode()
        worker = re.search(r'^streamtok_running_streams\{worker="(\d)"\} 0\.0$', text, re.MULTILINE)
        assert worker
        seen.setdefault(worker[1], set()).add(answer["choices"][0]["text"])
        assert requests < 200
    assert len(set.union(*seen.values())) == 1
    # Each worker writes to the ledger after its answer has ended; the other may not have done so.
    for _ in range(1000):
        if (booked := json.loads(get(server, "/v1/usage"))["data"][0]["requests"]) == requests:
            break
    assert booked == requests


def test_a_worker_that_is_killed_is_replaced_again_and_again(server: Serving) -> None:
    killed: set[int] = set()
    for _ in range(3):
        worker = worker_that_answers(server)
        assert worker not in killed
        os.kill(worker, signal.SIGKILL)
        killed.add(worker)
        server.wait_for(r"worker \d ended \(SIGKILL\); it is replaced")
    living = {worker_that_answers(server)}
    while len(living) < 2:  # connections are spread by hash
        living.add(worker_that_answers(server))
    assert not living & killed
    server.stop()
    assert server.process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_all(server: Serving, number: signal.Signals) -> None:
    streams = [start_stream(server.port, 100) for _ in range(8)]
    log = server.stop(number)
    for connection in streams:
        assert read_to_end(connection).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert server.process.returncode == 0
    assert log.count("stopping:") == 1
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))


def test_a_group_signal_is_not_taken_for_a_second_one(flags: tuple[str, ...]) -> None:
    """Ctrl-C reaches every process of the group, and systemd's SIGTERM every one of a unit."""
    for number in (signal.SIGINT, signal.SIGTERM):
        with serving("--port", "0", *flags, start_new_session=True) as server:
            stream = start_stream(server.port, 100)
            os.killpg(server.process.pid, number)
            assert read_to_end(stream).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
            server.process.communicate(timeout=60)
            assert server.process.returncode == 0


def test_a_second_signal_stops_all_at_once(tmp_path: Path) -> None:
    flags = ("--workers", "2", "--port", "0", "--ledger", str(tmp_path / "usage"))
    with serving(*flags) as server:  # the shipped model: the streams are long
        streams = [start_stream(server.port, 1000) for _ in range(4)]
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("stopping:")
        server.stop()
        assert server.process.returncode == 128 + signal.SIGTERM
        for connection in streams:
            assert not read_to_end(connection).endswith(b"0\r\n\r\n")


def test_workers_end_when_their_supervisor_is_gone(server: Serving) -> None:
    stream = start_stream(server.port, 50)
    # The log ends when the last process that writes to it has ended.
    server.stop(signal.SIGKILL)
    assert read_to_end(stream).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


def test_sighup_reaches_all(flags: tuple[str, ...], tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(trustme.CA().issue_cert("a").private_key_and_cert_chain_pem.bytes())
    with serving("--port", "0", *flags, "--certfile", str(both)) as server:
        assert server.url.startswith("https://")
        server.process.send_signal(signal.SIGHUP)
        read = r"\[(\d+)\] INFO read the certificate again"
        assert server.wait_for(read)[1] != server.wait_for(read)[1]


def test_workers_share_a_unix_socket(flags: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "s"
    with (
        serving("--uds", str(path), *flags) as server,
        httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client,
    ):
        client.get("http://a/health")
        worker = int(server.wait_for(r"\[(\d+)\] INFO unix ")[1])
        os.kill(worker, signal.SIGTERM)  # this one alone: it is replaced, the file stays
        server.wait_for(r"worker \d ended \(exit status 0\); it is replaced")
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as other:
            assert other.get("http://a/health").json() == {"status": "ok"}
        server.stop()
        assert server.process.returncode == 0
    assert not path.exists()


def test_the_weights_are_in_memory_once(tmp_path: Path) -> None:
    flags = ("--workers", "2", "--port", "0", "--ledger", str(tmp_path / "usage"))
    with serving(*flags) as server:
        rollup = Path(f"/proc/{worker_that_answers(server)}/smaps_rollup")
        if not rollup.exists():
            pytest.skip("this system does not tell what memory is shared")
        sizes = dict(re.findall(r"^(\w+): +(\d+) kB", rollup.read_text(), re.MULTILINE))
        weights = (Path(default_model()) / "model.safetensors").stat().st_size
        assert int(sizes["Shared_Dirty"]) * 1024 > weights


def test_each_worker_answers_from_the_script(flags: tuple[str, ...], tmp_path: Path) -> None:
    script = tmp_path / "script.toml"
    script.write_text("rules = [{ answer = 'as written', match = { contains = 'a' } }]")
    seen: set[int] = set()
    with serving("--port", "0", *flags, "--script", str(script), "--script-only") as server:
        while len(seen) < 2:
            assert complete(server)["choices"][0]["text"] == "as written"
            seen.add(int(server.wait_for(r'\[(\d+)\] INFO .*"POST /v1/completions" 200')[1]))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--ledger", ":memory:"), "--ledger: with several --workers it must be a file"),
        (("--ledger", "/proc/none/usage"), "--ledger /proc/none/usage"),
        (("--certfile", "/nowhere"), "--certfile /nowhere: No such file"),
        (("--model", "/nowhere"), "/nowhere/config.json"),
        (("--host", "256.1.1.1"), "--host 256.1.1.1"),
    ],
)
def test_a_wrong_setting_is_told_once(
    flags: tuple[str, ...], arguments: tuple[str, ...], said: str
) -> None:
    assert refused("--port", "0", *flags, *arguments).count(said) == 1


def test_a_port_in_use_is_refused_even_by_workers(
    server: Serving, flags: tuple[str, ...], tmp_path: Path
) -> None:
    said = refused("--port", str(server.port), *flags, "--ledger", str(tmp_path / "other"))
    assert f"--port {server.port}: cannot listen" in said
