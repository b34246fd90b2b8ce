"""Whether streams survive the death of the whole server, for clients that come back.

usage: survive_server.py [--model FOLDER] [--kills 2] [--rounds 1] [--tokens 60] [--seed 0]

Thirty-two resumable streams of four APIs run once undisturbed. Then they run again at once, and the
server is killed by SIGKILL at random moments, counted in bytes that have arrived, and started again
with the same ledger. Each client asks the new server for the events after the last whole one that
it has. Every stream must end with the bytes it had; ids, dates and how much of a prompt was cached
are left out of the comparison. Exits with 1 if one does not.
"""

import argparse
import asyncio
import json
import random
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from survive import SSE, Stream, comparable, streams

STREAMS = 32
ID = re.compile(rb"^id: (.+)$", re.MULTILINE)
READY = "ready at "
BROKEN = (OSError, asyncio.IncompleteReadError, ValueError)  # a size line may be cut too


class Server:
    """A server on one port, which is started again with its ledger whenever it was killed."""

    def __init__(self, folder: Path, model: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._command = [sys.executable, "-m", "streamtok", "serve", "--port", str(self.port)]
        self._command += ["--ledger", str(folder / "usage.sqlite3")]
        self._command += ["--resume-window", "300", "--log-level", "error"]
        self._command += ["--model", model] if model else []
        self._start()

    def kill(self) -> None:
        """Kill the server, and start the next one."""
        self._process.kill()
        self._process.wait()
        self._start()

    def stop(self) -> None:
        """End it in order."""
        self._process.terminate()
        self._process.wait()

    def _start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        if not any(READY in line for line in self._process.stdout):
            raise SystemExit("the server did not start")


class Client:
    """One stream, asked for until its end has come."""

    def __init__(self, port: int, stream: Stream, arrived: Callable[[int], None]) -> None:
        self.data = b""
        self.returns = 0
        self._port = port
        self._stream = stream
        self._arrived = arrived
        self._id = ""

    async def run(self) -> bytes:
        """Return all bytes of the body."""
        while True:
            try:
                await self._read()
                return self.data
            except BROKEN:
                self.data = self.data[: self.data.rfind(b"\n\n") + 2] if self.data else b""
                self.returns += 1
                await asyncio.sleep(0.05)  # as a browser waits before it connects again

    async def _read(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(self._request())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            if head.startswith("http/1.1 503"):  # the model is being loaded
                raise ConnectionRefusedError
            if head.startswith("http/1.1 204"):  # nothing is left
                return
            if not head.startswith("http/1.1 200"):
                raise SystemExit(head + (await reader.read()).decode())
            if found := re.search(r"x-stream-id: (.*)\r", head):
                self._id = found[1]
            while size := int(await reader.readline(), 16):
                data = (await reader.readexactly(size + 2))[:-2]
                self.data += data
                self._arrived(size)
            await reader.readexactly(2)
        finally:
            writer.close()

    def _request(self) -> bytes:
        path, _, body = self._stream
        host = f"Host: 127.0.0.1:{self._port}\r\nConnection: close\r\nAccept: {SSE}\r\n"
        if not self._id:  # nobody has told this client of an answer: it asks anew
            self.data = b""
            text = json.dumps(body).encode()
            fields = f"X-Resumable: 1\r\nContent-Length: {len(text)}\r\n"
            return f"POST {path} HTTP/1.1\r\n{host}{fields}\r\n".encode() + text
        last = ID.findall(self.data)
        again = f"Last-Event-ID: {last[-1].decode()}\r\n" if last else ""
        return f"GET /v1/streams/{self._id} HTTP/1.1\r\n{host}{again}\r\n".encode()


def dateless(data: bytes) -> str:
    """Return a body that can be compared, with one date in place of that of its creation.

    A second date of creation in the same body stays, and makes it different.
    """
    text = re.sub(r'"completed_at": ?[0-9.]+', '"completed_at":0', comparable(data))
    created = re.search(r'"created(?:_at)?": ?([0-9.]+)', text)
    return text.replace(created[1], "DATE") if created else text


async def run(server: Server, wanted: list[Stream], moments: list[int]) -> tuple[list[bytes], int]:
    """Return the bodies, and how often clients asked again."""
    due = sorted(moments)
    loop = asyncio.get_running_loop()
    total = 0
    killing: asyncio.Future[None] | None = None

    def arrived(size: int) -> None:
        nonlocal total, killing
        total += size
        if due and total >= due[0] and (killing is None or killing.done()):
            due.pop(0)
            killing = loop.run_in_executor(None, server.kill)

    clients = [Client(server.port, stream, arrived) for stream in wanted]
    bodies = await asyncio.gather(*(client.run() for client in clients))
    if killing is not None:
        await killing
    if due:
        raise SystemExit(f"{len(due)} kills were not reached")
    return list(bodies), sum(client.returns for client in clients)


def main() -> int:
    """Run it; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="", help="folder of a model")
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    chance = random.Random(given.seed)
    different = 0
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), given.model)
        try:
            name = Path(given.model).resolve().name if given.model else "fireside"
            found = [stream for stream in streams(given.tokens, name) if stream[1] == SSE]
            more = [(path, media, body | {"seed": 99}) for path, media, body in found[:9]]
            wanted = [*found, *more][:STREAMS]
            whole, _ = asyncio.run(run(server, wanted, []))
            total = sum(map(len, whole))
            for number in range(given.rounds):
                moments = [chance.randrange(total * 9 // 10) for _ in range(given.kills)]
                again, returns = asyncio.run(run(server, wanted, moments))
                bad = [
                    (stream, before, after)
                    for stream, before, after in zip(wanted, whole, again, strict=True)
                    if dateless(before) != dateless(after)
                ]
                for (path, _, body), before, after in bad:
                    print(f"different: {path} {body}\n{before.decode()}\n{after.decode()}")
                different += len(bad)
                print(
                    f"round {number}: {len(wanted)} streams, {given.kills} kills of the server, "
                    f"clients asked again {returns} times, {len(bad)} different",
                    flush=True,
                )
        finally:
            server.stop()
    return bool(different)


if __name__ == "__main__":
    sys.exit(main())
