"""Runs a learner's file in a process of its own, and keeps what it writes to standard error."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import streamtok
from streamtok.teach.build.exercise import Wrong

START_S = 10.0  # until a server listens
RUN_S = 30.0  # for a program that ends
POLL_S = 0.01


class Program:
    """A server that runs: where it listens, and what it has complained about."""

    def __init__(self, address: tuple[str, int], errors: IO[bytes]) -> None:
        self.address = address
        self._errors = errors

    @property
    def complaint(self) -> str:
        """The last line on its standard error, where tracebacks end; for the end of a sentence."""
        line = _last_line(self._errors)
        return f" Its last error: {line}" if line else ""


@contextmanager
def serving(file: Path) -> Iterator[Program]:
    """Run `file` as a server for the length of the block; its argument is the port.

    Raises:
        Wrong: it ends, or does not listen.
    """
    port = _free_port()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, str(file), str(port)],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        program = Program(("127.0.0.1", port), errors)
        try:
            _wait(process, program)
            yield program
        finally:
            process.kill()
            process.wait()


def output_of(file: Path, *arguments: str) -> str:
    """Return what `file` prints when it is run to its end.

    Raises:
        Wrong: it fails, or does not end.
    """
    command = [sys.executable, str(file), *arguments]
    try:
        done = subprocess.run(
            command,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=RUN_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Wrong(f"the program does not end within {RUN_S:g} seconds") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise Wrong(f"the program fails: {lines[-1] if lines else done.returncode}")
    return done.stdout.decode(errors="replace")


def _wait(process: subprocess.Popen[bytes], program: Program) -> None:
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            raise Wrong(f"the program ends instead of serving.{program.complaint}")
        try:
            socket.create_connection(program.address, timeout=1).close()
            return
        except OSError:
            time.sleep(POLL_S)
    raise Wrong(
        f"the program does not listen on the port in its first argument.{program.complaint}"
    )


def _environment() -> dict[str, str]:
    """Return this process's environment, in which the same package is imported."""
    package = str(Path(streamtok.__file__).parent.parent)
    paths = filter(None, (package, os.environ.get("PYTHONPATH")))
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
