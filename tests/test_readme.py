"""The README's commands do what it says: each is run as it stands, on a free port."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [
    command
    for language, block in BLOCKS
    if language == "sh"
    for command in re.split(r"\n(?=\w)", block.strip())
]
SERVE = "pip install . && python -m streamtok serve"
TEST = "pip install '.[test]' && python -m pytest"


def environment() -> dict[str, str]:
    """Return an environment in which `python` is the one that runs the tests."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "STREAMTOK_LEDGER": ":memory:"}


@pytest.fixture(scope="module")
def port() -> Iterator[str]:
    """Run the first command, less the installation, and give the port it listens on."""
    assert SERVE in COMMANDS
    command = SERVE.split(" && ")[1].split()
    process = subprocess.Popen(
        [*command, "--port", "0"],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert re.fullmatch(r"streamtok is ready at http://127\.0\.0\.1:\d+\n", line)
        yield line.strip().rpartition(":")[2]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.communicate()


def run(command: list[str], given: str = "Who are you?\n") -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(),
        input=given.encode(),
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in (SERVE, TEST)])
def test_a_command_works(command: str, port: str) -> None:
    for program in re.findall(r"(?:^|\| )(\w+)", command):
        if not shutil.which(program, path=environment()["PATH"]):
            pytest.skip(f"{program} is not installed")
    output = run(["bash", "-c", command.replace("8000", port)])
    if "TE: trailers" in command:
        assert re.search(r"\r\n0\r\n(X-Usage-[\w-]+: \d+\r\n){3}\r\n$", output)
    elif "--raw" in command or "| nc" in command:
        assert output.endswith("e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
    elif "x-ndjson" in command:
        assert all(line.startswith('{"id":') for line in output.splitlines())
        assert output.endswith("\n")
    elif "/v1/messages" in command:
        assert output.startswith("event: message_start\n")
        assert output.endswith('data: {"type":"message_stop"}\n\n')
    elif "/v1/responses" in command:
        assert output.startswith("event: response.created\n")
        assert '"type":"response.completed"' in output
    elif "tool_choice" in command:
        assert output.count('"name":"weather"') == output.count('n":"tool_calls"') == 1
        assert output.endswith("data: [DONE]\n\n")
    elif "/v1/generate" in command:
        assert len(output) > 40
    elif command.startswith("curl"):
        assert output.startswith("{")
    else:
        assert len(output) > 40


def test_the_tests_are_run_by_the_command_that_ci_runs() -> None:
    assert TEST in COMMANDS
    script = (ROOT / ".ci" / "run").read_text()
    assert all(part in script for part in ("pip install --quiet '.[test]'", "python -m pytest"))


def test_the_python_example_streams(port: str) -> None:
    code = next(block for language, block in BLOCKS if language == "python")
    output = run([sys.executable, "-c", code.replace("8000", port)])
    assert "CompletionUsage(" in output


def test_outputs_that_are_shown_are_the_real_ones(port: str) -> None:
    command = next(c for c in COMMANDS if '"max_tokens": -1' in c)
    shown = next(block for _, block in BLOCKS if block.startswith('{"error"'))
    assert run(["bash", "-c", command.replace("8000", port)]) == shown.strip()


def test_the_request_by_hand_declares_its_length() -> None:
    request = next(c for c in COMMANDS if c.startswith("printf"))
    head, _, body = request.split("'")[1].partition("\\r\\n\\r\\n")
    assert f"Content-Length: {len(body)}" in head


def test_every_module_stands_in_the_tree() -> None:
    tree = next(block for _, block in BLOCKS if block.startswith("streamtok/\n"))
    for module in (ROOT / "streamtok").rglob("*.py"):
        if not module.name.startswith("__"):
            assert re.search(rf"^ +{module.name} ", tree, re.MULTILINE), module


def test_every_setting_is_in_the_table() -> None:
    from dataclasses import fields

    from streamtok.config import ServeConfig, flag_name

    for setting in fields(ServeConfig):
        assert f"`{flag_name(setting)}`" in TEXT


def test_every_picture_is_there_and_small() -> None:
    pictures = re.findall(r"\]\((scripts/docs/pictures/[^)]+)\)", TEXT)
    assert sorted(pictures) == sorted(
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "scripts" / "docs" / "pictures").iterdir()
    )
    assert all((ROOT / picture).stat().st_size < 100_000 for picture in pictures)
