"""A real PostgreSQL of the tests' own: in a temporary folder, on a Unix socket, as no one special.

Debian's package `postgresql` brings its programs; without them, or without psycopg, tests that need
it are skipped and say why.
"""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
SETTINGS = {"fsync": "off", "listen_addresses": "''", "shared_buffers": "8MB"}


def missing() -> str | None:
    """Return what a test with PostgreSQL lacks, if anything."""
    if not all(map(importlib.util.find_spec, ("psycopg", "psycopg_pool"))):
        return "psycopg is not installed: pip install '.[postgres]'"
    if not _program("initdb"):
        return "PostgreSQL is not installed: apt-get install postgresql"
    return None


class PostgresServer:
    """A server that can be stopped and started; each test has tables of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._databases = 0
        # PostgreSQL refuses to run as root.
        self._user: dict[str, Any] = {"user": "postgres"} if os.geteuid() == 0 else {}
        if self._user:
            shutil.chown(folder, "postgres")
        self._run("initdb", "-A", "trust", "-U", "streamtok", "-N", "--no-instructions")

    def start(self) -> None:
        """Start, and return when it accepts connections."""
        settings = [f"-c {name}={value}" for name, value in SETTINGS.items()]
        options = " ".join([*settings, f"-k {self._folder}"])
        log = str(self._folder / "log")
        self._run("pg_ctl", "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        """Stop at once; those who are connected notice."""
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")

    def database(self) -> str:
        """Return the URL of what is as good as a new database: a schema that is searched alone."""
        import psycopg

        self._databases += 1
        name = f"test{self._databases}"
        url = f"postgresql://streamtok@/postgres?host={self._folder}"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}".encode())
        return f"{url}&options=-csearch_path%3D{name}"

    def _run(self, name: str, *arguments: str) -> None:
        command = [str(_program(name)), "-D", str(self._folder / "data"), *arguments]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd="/", **self._user
        )
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stdout}{done.stderr}")


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Run a server for the length of the block."""
    # Not in pytest's folder: a socket's path has 107 bytes, and others may not enter there.
    folder = Path(tempfile.mkdtemp(prefix="streamtok-pg-"))
    try:
        server = PostgresServer(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _program(name: str) -> Path | None:
    """Return where a program is that this user can run, if there is one."""
    if os.geteuid() == 0 and "postgres" not in {user.pw_name for user in pwd.getpwall()}:
        return None
    found = (folder / name for folder in FOLDERS if (folder / name).exists())
    path = shutil.which(name)
    return next(found, Path(path) if path else None)
