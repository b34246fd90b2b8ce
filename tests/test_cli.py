"""The command line as a process: flags, errors, the ready line, signals, exit codes."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from streamtok import cli

STREAMTOK = [sys.executable, "-m", "streamtok"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*STREAMTOK, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def serve(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `streamtok serve` on a free port; give the process and its URL once it is ready."""
    process = subprocess.Popen(
        [*STREAMTOK, "serve", "--port", "0", "--ledger", ":memory:", *arguments],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("streamtok is ready at http://"), line
        yield process, line.split()[-1]
    finally:
        process.kill()
        process.communicate()


def start_stream(url: str, max_tokens: int) -> socket.socket:
    """Begin a stream and return its socket when the first token has come."""
    host, port = url.removeprefix("http://").split(":")
    body = {
        "prompt": "Once",
        "max_tokens": max_tokens,
        "stream": True,
        "ignore_eos": True,
        "temperature": 0,
    }
    text = json.dumps(body)
    connection = socket.create_connection((host, int(port)))
    head = f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {len(text)}\r\n\r\n"
    connection.sendall((head + text).encode())
    data = b""
    while b"data: " not in data:
        data += connection.recv(65536)
    return connection


def read_to_end(connection: socket.socket) -> bytes:
    data = b""
    while part := connection.recv(65536):
        data += part
    connection.close()
    return data


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_streams_finish_and_exits_with_zero(number: signal.Signals) -> None:
    with serve() as (process, url):
        streams = [start_stream(url, 80) for _ in range(4)]
        process.send_signal(number)
        for connection in streams:
            assert read_to_end(connection).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0
        assert errors.count("POST /v1/completions") == 4
        assert "1+80 tokens" in errors or "2+80 tokens" in errors


def test_a_second_signal_stops_at_once() -> None:
    with serve() as (process, url):
        connection = start_stream(url, 1000)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        while "stopping" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
        assert process.returncode == 128 + signal.SIGTERM
        assert not read_to_end(connection).endswith(b"0\r\n\r\n")


def test_settings_come_from_the_environment_and_flags_win() -> None:
    with serve("--log-level", "error", STREAMTOK_LOG_LEVEL="debug") as (process, url):
        with urlopen(f"{url}/health") as answer:
            assert json.load(answer) == {"status": "ok"}
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
        assert "GET /health" not in errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--port", "x"], "--port: expected a whole number, found 'x'"),
        (["serve", "--port", "-1"], "--port: expected 0 to 65535, found -1"),
        (["serve", "--port", "99999"], "--port: expected 0 to 65535, found 99999"),
        (["serve", "--host", "256.1.1.1"], "--host 256.1.1.1"),
        (["serve", "--model", "/nowhere"], "/nowhere/config.json"),
        (["serve", "--log-level", "loud"], "--log-level: expected one of debug"),
        (["serve", "--ledger", "/proc/none/usage"], "--ledger /proc/none/usage"),
        (["generate", "hi", "--max-streams", "0"], "--max-streams: expected 1 or more"),
        (["generate", "hi", "--max-tokens", "-1"], "max_tokens"),
        (["generate", "word " * 2000], "context"),
        (["sing"], "invalid choice: 'sing'"),
        ([], "COMMAND"),
    ],
)
def test_wrong_use_is_named_without_a_traceback(arguments: list[str], said: str) -> None:
    ledger = {"STREAMTOK_LEDGER": ":memory:"}  # a flag, where one is given, wins
    done = run(*arguments, **ledger)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = run("serve", "--port", port, "--ledger", ":memory:")
    assert done.returncode == 2
    assert f"--port {port}: cannot listen" in done.stderr


def test_help_names_every_flag_and_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        cli.main(["serve", "--help"])
    text = capsys.readouterr().out
    for name in ("--host", "--drain-timeout", "STREAMTOK_MAX_STREAMS", "(default: 8000)"):
        assert name in text


def test_generate_gives_the_same_answer_for_the_same_seed() -> None:
    arguments = ("generate", "Tell me a story.", "--seed", "5", "--max-tokens", "20")
    first, second = run(*arguments), run(*arguments)
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    assert len(first.stdout) > 20
    raw = run("generate", "Once upon a", "--raw", "--temperature", "0", "--max-tokens", "1")
    assert raw.stdout == " time\n"


def test_chat_streams_keeps_history_and_leaves_at_the_end_of_input() -> None:
    done = subprocess.run(
        [*STREAMTOK, "chat"],
        input="Tell me a story.\n\n/new\nWho are you?\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("bot ") == 2
    assert len(done.stdout) > 100


def test_chat_names_a_server_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    done = subprocess.run(
        [*STREAMTOK, "chat", "--url", f"http://127.0.0.1:{port}"],
        input="hi\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "cannot be reached" in done.stdout
    assert "Traceback" not in done.stderr


def test_ctrl_c_stops_the_answer_and_not_the_chat() -> None:
    process = subprocess.Popen(
        [*STREAMTOK, "chat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=0,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    process.stdin.write("Tell me a very long story.\n")
    seen = ""
    while not seen.rpartition("bot ")[2].strip() or "bot " not in seen:
        seen += process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    while "(stopped)" not in seen:
        seen += process.stdout.read(1)
    rest, _ = process.communicate("Tell me another story.\n")
    watchdog.cancel()
    assert process.returncode == 0
    assert "bot " in rest


def test_the_ledger_file_outlives_the_server(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "usage.sqlite3"
    ids = []
    for _ in range(2):
        with serve("--ledger", str(path)) as (process, url):
            read_until_done(start_stream(url, 3))
            with urlopen(f"{url}/v1/usage") as answer:
                ids.append(json.load(answer)["data"][0]["requests"])
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)
    assert ids == [1, 2]


def read_until_done(connection: socket.socket) -> None:
    with connection:
        data = b""
        while not data.endswith(b"0\r\n\r\n"):
            data += connection.recv(65536)
