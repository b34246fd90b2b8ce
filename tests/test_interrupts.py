"""Ctrl-C at any moment, and output that nobody reads: commands end quietly.

The moments are audit events of the interpreter (PEP 578), at which the process sends itself SIGINT.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import STREAMTOK

INTERRUPT = """
import os, signal, sys

moment, left = os.environ["MOMENT"].split(), [int(os.environ["TIMES"])]

def interrupt(event, arguments):
    if event == moment[0] and (len(moment) == 1 or str(arguments[0]) == moment[1]) and left[0]:
        left[0] -= 1
        os.kill(os.getpid(), signal.SIGINT)

if "streamtok.engine.remote.child" not in sys.orig_argv:  # it has a process group of its own
    sys.addaudithook(interrupt)
"""
IMPORTS = ["argparse", "streamtok.config", "streamtok.errors"]
LATER = ["asyncio", "tokenizers", "streamtok.http.connection"]
MOMENTS = [
    *(
        (command, f"import {module}")
        for command in ("serve", "generate", "chat")
        for module in LATER
    ),
    *((command, f"import {module}") for command in ("serve", "key") for module in IMPORTS),
    ("learn", "import streamtok.teach.lessons.lab"),
    ("doctor", "import streamtok.teach.doctor.examine"),
    *((command, "subprocess.Popen") for command in ("serve", "generate", "chat")),
    *(("serve", event) for event in ("socket.bind", "sqlite3.connect")),
]
ARGUMENTS = {
    "serve": ["--port", "0"],
    "generate": ["hello"],
    "chat": [],
    "key": ["me"],
    "learn": ["1"],
    "doctor": ["http://127.0.0.1:9"],
}


@pytest.mark.parametrize(("command", "moment"), MOMENTS)
def test_ctrl_c_shows_no_traceback(
    command: str, moment: str, tmp_path: Path, tiny_model: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(INTERRUPT)
    paths = filter(None, (str(tmp_path), os.environ.get("PYTHONPATH")))
    environment = {
        "PYTHONPATH": os.pathsep.join(paths),
        "STREAMTOK_LEDGER": ":memory:",
        "STREAMTOK_MODEL": str(tiny_model),
        "MOMENT": moment,
        "TIMES": "2",
    }
    done = subprocess.run(
        [*STREAMTOK, command, *ARGUMENTS[command]],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    assert "KeyboardInterrupt" not in done.stderr
    assert done.returncode in (-signal.SIGINT, 128 + signal.SIGINT, 0)


WAKING = """
import asyncio, os, signal
from streamtok.serve.signals import handle_signals

def missing(*_):
    raise NotImplementedError

async def main():
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler = missing
    handle_signals(lambda _: stopped.set(), stopped.set)
    wakeup_fd = signal.set_wakeup_fd(-1)
    os.fstat(wakeup_fd)
    signal.set_wakeup_fd(wakeup_fd)
    os.kill(os.getpid(), signal.SIGINT)
    await stopped.wait()

asyncio.run(main())
"""


def test_signals_wake_a_loop_without_handlers_by_a_socket_that_stays_open() -> None:
    """Closed, its number could become that of a client's connection."""
    done = subprocess.run(
        [sys.executable, "-c", WAKING], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


# Output that nobody reads


@pytest.mark.parametrize(
    "command",
    ["generate 'Tell me a story' --max-tokens 60", "key me", "--help", "learn 4 --plain"],
)
def test_a_closed_pipe_ends_a_command_quietly(command: str, tmp_path: Path) -> None:
    done = in_shell(f"$STREAMTOK {command} | head -c 5", tmp_path)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    assert len(done.stdout) == 5


@pytest.mark.parametrize("command", ["generate hello --max-tokens 3", "key me", "--help"])
def test_output_that_was_closed_is_no_error(command: str, tmp_path: Path) -> None:
    done = in_shell(f"$STREAMTOK {command} >&-", tmp_path)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("command", ["generate hello --max-tokens 3", "key me", "--help"])
def test_a_full_disk_is_named(command: str, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    done = in_shell(f"$STREAMTOK {command} > /dev/full", tmp_path)
    assert done.stderr.count("streamtok: standard output: cannot be written: No space") == 1
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == 2


def in_shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {"STREAMTOK": " ".join(STREAMTOK), "STREAMTOK_PROGRESS": str(folder / "progress")}
    environment["PYTHONUNBUFFERED"] = ""  # as users have it
    return subprocess.run(
        ["sh", "-c", line],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
