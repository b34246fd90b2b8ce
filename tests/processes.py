"""`streamtok serve` as a process, for tests of what only a process shows."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

STREAMTOK = [sys.executable, "-m", "streamtok"]


@dataclass
class Serving:
    """A server that has said that it is ready, and where."""

    process: subprocess.Popen[str]
    url: str

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Read the log up to the line that matches."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if match := re.search(pattern, line):
                return match
        raise AssertionError(f"the log ended without {pattern!r}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> str:
        """Send a signal, wait for the end, and return the rest of the log."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=60)
        return errors


@contextmanager
def serving(*arguments: str, **options: Any) -> Iterator[Serving]:
    """Run `streamtok serve` for the length of the block."""
    process = subprocess.Popen(
        [*STREAMTOK, "serve", *arguments],
        env=os.environ | {"STREAMTOK_LEDGER": ":memory:"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line.startswith("streamtok is ready at "):
            raise AssertionError(f"not ready: {line}{process.communicate(timeout=60)[1]}")
        yield Serving(process, line.split()[-1])
    finally:
        process.kill()
        process.communicate()


def refused(*arguments: str) -> str:
    """Run `streamtok serve`, which must refuse what it is given, and return what it says."""
    done = subprocess.run(
        [*STREAMTOK, "serve", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.stderr


def start_stream(port: int, max_tokens: int) -> socket.socket:
    """Begin a stream and return its socket when the first token has come."""
    body = {
        "prompt": "Once",
        "max_tokens": max_tokens,
        "stream": True,
        "ignore_eos": True,
        "temperature": 0,
    }
    text = json.dumps(body)
    connection = socket.create_connection(("127.0.0.1", port))
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(text)}\r\n\r\n"
    )
    connection.sendall((head + text).encode())
    data = b""
    while b"data: " not in data:
        data += connection.recv(65536)
    return connection


def read_until(output: IO[str], found: Callable[[str], object]) -> str:
    """Read a process's output, character by character, until `found` is true of it."""
    seen = ""
    while not found(seen):
        character = output.read(1)
        assert character, f"the output ended: {seen}"
        seen += character
    return seen


def read_to_end(connection: socket.socket) -> bytes:
    """Return what comes until the server closes."""
    with connection:
        data = b""
        while part := connection.recv(65536):
            data += part
        return data
