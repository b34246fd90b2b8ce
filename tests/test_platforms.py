"""What runs on Windows and macOS, as far as that can be seen without them.

Processes run here without what those systems lack (`tests/platforms`). `.ci/run` lets mypy read the
package as if for them.
"""

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from shutil import copy
from urllib.request import Request, urlopen

import pytest
from processes import STREAMTOK, Serving, read_to_end, serving, start_stream

HERE = Path(__file__).parent


@pytest.fixture(params=["windows", "macos"])
def platform(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Have every process that is started run as if on this platform."""
    name: str = request.param
    copy(HERE / "platforms" / f"{name}.py", tmp_path / "sitecustomize.py")
    paths = (str(tmp_path), str(HERE.parent), os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv("STREAMTOK_LEDGER", ":memory:")
    return name


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*STREAMTOK, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def complete(server: Serving) -> str:
    body = json.dumps({"prompt": "Once", "max_tokens": 4, "temperature": 0}).encode()
    with urlopen(Request(f"{server.url}/v1/completions", body)) as answer:
        text: str = json.load(answer)["choices"][0]["text"]
        return text


@pytest.mark.parametrize("engine", ["process", "thread"])
def test_it_serves_streams_and_stops(platform: str, engine: str, tiny_model: Path) -> None:
    with serving("--port", "0", "--engine", engine, "--model", str(tiny_model)) as server:
        assert complete(server) == complete(server)
        stream = start_stream(server.port, 80)
        server.process.send_signal(signal.SIGINT)
        assert read_to_end(stream).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        _, errors = server.process.communicate(timeout=60)
    assert server.process.returncode == 0
    assert errors.count("stopping:") == 1
    assert "Traceback" not in errors


def test_a_second_signal_stops_at_once(platform: str) -> None:
    with serving("--port", "0") as server:
        stream = start_stream(server.port, 1000)
        server.process.send_signal(signal.SIGINT)
        server.wait_for("stopping")
        server.process.send_signal(signal.SIGINT)
        server.process.wait(timeout=30)
        assert not read_to_end(stream).endswith(b"0\r\n\r\n")
    assert server.process.returncode == 128 + signal.SIGINT


def test_the_engines_process_is_replaced(platform: str, tiny_model: Path) -> None:
    with serving("--port", "0", "--model", str(tiny_model)) as server:
        before = complete(server)
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
        server.wait_for("is running again")
        assert complete(server) == before


def test_what_the_platform_cannot_do_is_named(
    platform: str, tmp_path: Path, tiny_model: Path
) -> None:
    flags = ("serve", "--model", str(tiny_model))
    if platform == "windows":
        done = run(*flags, "--workers", "2", "--ledger", str(tmp_path / "usage"))
        assert (done.returncode, done.stderr) == (
            2,
            "streamtok: --workers: this system cannot fork; one process serves all it can\n",
        )
        done = run(*flags, "--uds", str(tmp_path / "socket"))
        assert done.returncode == 2
        assert re.fullmatch(r"streamtok: --uds .*: this system's .* no Unix sockets\n", done.stderr)


def test_the_commands_run(platform: str, tmp_path: Path, tiny_model: Path) -> None:
    model = ("--model", str(tiny_model), "--max-tokens", "3")
    done = run("generate", "Hello", *model)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()
    os.environ["STREAMTOK_PROGRESS"] = str(tmp_path / "progress")
    done = run("learn", "1", "--plain")
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run(
        [*STREAMTOK, "chat", *model],
        input="hi\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "bot " in done.stdout


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def test_an_inherited_socket_is_served(
    platform: str, listening: socket.socket, tiny_model: Path
) -> None:
    if platform == "windows":
        pytest.skip("sockets are not inherited by number")
    fd = listening.fileno()
    with serving("--fd", str(fd), "--model", str(tiny_model), pass_fds=[fd]) as server:
        assert complete(server) == complete(server)


def test_workers_share_a_socket(platform: str, tmp_path: Path, tiny_model: Path) -> None:
    if platform == "windows":
        pytest.skip("there is no fork")
    flags = ("--workers", "2", "--ledger", str(tmp_path / "usage"), "--model", str(tiny_model))
    with serving("--port", "0", *flags) as server:
        assert complete(server) == complete(server)
        assert "Traceback" not in server.stop()
