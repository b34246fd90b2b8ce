"""The command line as a process: flags, errors, the ready line, signals, exit codes."""

import errno
import json
import os
import re
import signal
import socket
import subprocess
import threading
from pathlib import Path
from urllib.request import urlopen

import pytest
from processes import STREAMTOK, read_to_end, read_until, serving, start_stream

from streamtok import cli


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*STREAMTOK, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_streams_finish_and_exits_with_zero(number: signal.Signals) -> None:
    with serving("--port", "0") as server:
        streams = [start_stream(server.port, 80) for _ in range(4)]
        server.process.send_signal(number)
        for connection in streams:
            assert read_to_end(connection).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        _, errors = server.process.communicate(timeout=30)
        assert server.process.returncode == 0
        assert errors.count("POST /v1/completions") == errors.count("+80 tokens") == 4


def test_a_second_signal_stops_at_once() -> None:
    with serving("--port", "0") as server:
        connection = start_stream(server.port, 1000)
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("stopping")
        server.process.send_signal(signal.SIGTERM)
        _, errors = server.process.communicate(timeout=30)
        assert server.process.returncode == 128 + signal.SIGTERM
        assert "Task" not in errors
        assert not read_to_end(connection).endswith(b"0\r\n\r\n")


def test_settings_come_from_the_environment_and_flags_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMTOK_LOG_LEVEL", "debug")
    monkeypatch.setenv("STREAMTOK_PORT", "0")
    with serving("--log-level", "error") as server:
        with urlopen(f"{server.url}/health") as answer:
            assert json.load(answer) == {"status": "ok"}
        assert "GET /health" not in server.stop()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--port", "x"], "--port: expected a whole number, 0 to 65535, found 'x'"),
        (["serve", "--port", "-1"], "--port: expected a whole number, 0 to 65535, found '-1'"),
        (
            ["serve", "--port", "99999"],
            "--port: expected a whole number, 0 to 65535, found '99999'",
        ),
        (["serve", "--host", "256.1.1.1"], "--host 256.1.1.1"),
        (["serve", "--model", "/nowhere"], "/nowhere/config.json"),
        (["serve", "--kv-memory", "1MiB"], "--kv-memory: 1.0 MiB cannot hold the model's context"),
        (["serve", "--log-level", "loud"], "--log-level: expected one of debug"),
        (["serve", "--ledger", "/proc/none/usage"], "--ledger /proc/none/usage"),
        (
            ["generate", "hi", "--max-streams", "0"],
            "--max-streams: expected a whole number, 1 or more",
        ),
        (["generate", "hi", "--max-tokens", "-1"], "--max-tokens: expected a whole number"),
        (["generate", "hi", "--seed", "9" * 30], "seed"),
        (["generate", "word " * 2000], "context"),
        (["srve"], "unknown command 'srve'; did you mean serve?; one of serve, key"),
        (["serve", "--prot", "9"], "unknown flag --prot; did you mean --port?"),
        (["serve", "--max_streams=4"], "unknown flag --max_streams; did you mean --max-streams?"),
        (["chat", "--tokens", "9"], "unknown flag --tokens; did you mean --max-tokens?"),
        (["proxy", "http://x", "--recrod", "d"], "unknown flag --recrod; did you mean --record?"),
        (["learn", "--zzz"], "streamtok learn: error: unknown flag --zzz\n"),
        (["serve", "8001"], "unexpected argument '8001'; --port 8001?"),
        (["--port", "9", "serve"], "--port is a flag of a command: streamtok serve --port"),
        (["--verison"], "unknown flag --verison; did you mean --version?"),
        (["chat", "--url", "http://127.0.0.1:x"], "--url: expected a URL such as"),
        (["generate", "hi", "--url", "ftp://x"], "--url: expected a URL such as"),
        ([], "COMMAND"),
    ],
)
def test_wrong_use_is_named_without_a_traceback(arguments: list[str], said: str) -> None:
    # a flag, where one is given, wins
    done = run(*arguments, STREAMTOK_LEDGER=":memory:", STREAMTOK_PORT="0")
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_the_usage_is_that_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["serve", "--prot", "9"])
    assert capsys.readouterr().err.startswith("usage: streamtok serve [-h] [--host ADDRESS]")


@pytest.mark.parametrize("command", ["serve --ledger :memory:", "proxy http://127.0.0.1:9"])
def test_a_port_in_use_is_named_with_who_has_it_and_another(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert cli.main([*command.split(), "--port", str(port)]) == 2
        said = capsys.readouterr().err
        assert f"--port {port}: cannot listen: [Errno {errno.EADDRINUSE}]" in said
        if Path("/proc/net/tcp").exists():
            assert f"(process {os.getpid()}) listens there" in said
        free = int(re.search(r"the next free one is --port (\d+)$", said)[1])
        assert free > port
        socket.create_server(("127.0.0.1", free)).close()


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
    raw = run("generate", "Once upon a", "--raw", "--temperature", "0", STREAMTOK_MAX_TOKENS="1")
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
    read_until(process.stdout, lambda seen: re.search(r"bot \s*\S", seen))
    process.send_signal(signal.SIGINT)
    read_until(process.stdout, lambda seen: "(stopped)" in seen)
    rest, _ = process.communicate("Tell me another story.\n")
    watchdog.cancel()
    assert process.returncode == 0
    assert "bot " in rest


def test_the_ledger_file_outlives_the_server(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "usage.sqlite3"
    counts = []
    for _ in range(2):
        with serving("--port", "0", "--ledger", str(path)) as server:
            urlopen(f"{server.url}/v1/completions", b'{"prompt": "Once", "max_tokens": 3}').close()
            with urlopen(f"{server.url}/v1/usage") as answer:
                counts.append(json.load(answer)["data"][0]["requests"])
            server.stop()
    assert counts == [1, 2]
