"""README.md and the help pages: their commands are run, their tables are held to the code."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from documents import PAGES, ROOT, blocks, commands, help_page, rows
from test_layers import HEART, MODULES, ROOMS, room_of

from streamtok import cli
from streamtok.config import ServeConfig
from streamtok.settings import choices, flag_name

TEXT = PAGES["README.md"]
SERVE = "pip install . && python -m streamtok serve"
TEST = "pip install '.[test]' && python -m pytest"
COMMANDS = sorted({command for text in PAGES.values() for command in commands(text)})
SIZES = {"": 1, "KiB": 2**10, "MiB": 2**20}


def environment() -> dict[str, str]:
    """Return an environment in which `python` is the one that runs the tests."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "STREAMTOK_LEDGER": ":memory:"}


@pytest.fixture(scope="module")
def port() -> Iterator[str]:
    """Run the first command, less the installation, and give the port it listens on."""
    assert SERVE in commands(TEXT)
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
    elif "X-Resumable" in command:
        assert output.startswith("id: chatcmpl-")
        assert output.endswith("data: [DONE]\n\n")
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
    assert TEST in commands(TEXT)
    script = (ROOT / ".ci" / "run").read_text()
    assert all(part in script for part in ("pip install --quiet '.[test]'", "python -m pytest"))


def test_the_python_example_streams(port: str) -> None:
    (code,) = (block for language, block in blocks(TEXT) if language == "python")
    assert code in help_page("clients")
    output = run([sys.executable, "-c", code.replace("8000", port)])
    assert "CompletionUsage(" in output


def test_outputs_that_are_shown_are_the_real_ones(port: str) -> None:
    command = next(c for c in COMMANDS if '"max_tokens": -1' in c)
    shown = next(b for _, b in blocks(help_page("endpoints")) if b.startswith('{"error"'))
    assert run(["bash", "-c", command.replace("8000", port)]) == shown.strip()


def test_the_request_by_hand_declares_its_length() -> None:
    request = next(c for c in COMMANDS if c.startswith("printf"))
    head, _, body = request.split("'")[1].partition("\\r\\n\\r\\n")
    assert f"Content-Length: {len(body)}" in head


# Tables


def test_readme_is_short() -> None:
    assert len(TEXT.splitlines()) <= 350


def test_the_tree_has_every_module_of_the_heart_and_the_table_every_room() -> None:
    tree = next(block for _, block in blocks(TEXT) if block.startswith("first/"))
    listed = re.findall(r"^([\w/]+\.py)  +\S", tree, re.MULTILINE)
    heart = [
        path
        for path in MODULES
        if path.startswith((*HEART, "app.py"))
        and room_of(path) is None
        and not path.endswith("__init__.py")
    ]
    assert sorted(listed) == heart
    _, _, table = TEXT.partition("| room | |")
    rooms = [name for row in rows(table) for name in re.findall(r"`([\w/]+)`", row[0])]
    assert sorted(rooms) == sorted(room.rstrip("/") for room in ROOMS)


def setting_rows(page: str) -> Iterator[tuple[list[str], str]]:
    """Yield the flags of each row of a page's first table, and its default."""
    for cells in rows(help_page(page)):
        if flags := re.findall(r"`(--[\w-]+)`", cells[0]):
            yield flags, cells[1]


def test_every_setting_is_in_one_table_with_its_default() -> None:
    settings: dict[str, Any] = {flag_name(setting): setting for setting in fields(ServeConfig)}
    seen = []
    for flags, shown in [*setting_rows("settings"), *setting_rows("limits")]:
        seen += flags
        numbers = re.findall(r"\b(\d+)\b(?: (KiB|MiB))?", shown.replace("127.0.0.1", ""))
        defaults = [settings[flag].default for flag in flags if flag != "--host"]
        if numbers and "--kv-memory" not in flags:
            assert [int(n) * SIZES[unit] for n, unit in numbers] == defaults, flags
        elif shown in ("off", "none") or shown.startswith("any"):
            assert all(default in ("", 0, -1, False) for default in defaults), flags
        elif choices(ServeConfig, settings[flags[0]].name):
            assert [shown] == defaults
    assert sorted(seen) == sorted(settings)


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_that_is_mentioned_exists(page: str) -> None:
    parsers = cli._parser().commands.values()
    known = {flag for parser in parsers for act in parser._actions for flag in act.option_strings}
    text = re.sub(r"```(nginx|caddy|haproxy).*?```", "", PAGES[page], flags=re.DOTALL)
    text = re.sub(r"^ray start .*$", "", text, flags=re.MULTILINE)
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]+", text)) <= known


@pytest.mark.parametrize("page", PAGES)
def test_every_link_and_every_path_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGES[page]):
        if not target.startswith("https://"):
            assert (ROOT / page).parent.joinpath(target).exists(), target
    for path in re.findall(r"`((?:scripts|tests|weights|streamtok)/[\w./-]*)`", PAGES[page]):
        assert (ROOT / path).exists(), path
    for anchor in re.findall(r"\]\(#([^)]+)\)", PAGES[page]):
        titles = re.findall(r"^#+ (.*)$", PAGES[page], re.MULTILINE)
        assert anchor in [title.lower().replace(" ", "-") for title in titles]


def test_every_picture_is_there_and_small() -> None:
    pictures = re.findall(r"\]\((scripts/docs/pictures/[^)]+)\)", TEXT)
    folder = ROOT / "scripts" / "docs" / "pictures"
    assert sorted(pictures) == sorted(
        path.relative_to(ROOT).as_posix() for path in folder.iterdir()
    )
    assert all((ROOT / picture).stat().st_size < 100_000 for picture in pictures)
