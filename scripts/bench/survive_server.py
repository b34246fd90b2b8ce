"""Whether streams survive the death of the whole server, for clients that come back.

usage: survive_server.py [--model FOLDER] [--kills 2] [--rounds 1] [--tokens 60] [--seed 0]

Thirty-two resumable streams of four APIs run once undisturbed. Then they run again at once, and the
server is killed by SIGKILL at random moments, counted in bytes that have arrived, and started again
with the same ledger. Each client asks the new server for the events after the last whole one that
it has. Every stream must end with the bytes it had; ids, dates and how much of a prompt was cached
are left out of the comparison. And every answer must be in the ledger with the reason of its end.
Exits with 1 if one is not.
"""

import asyncio
import json
import random
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from urllib.request import urlopen

from streams import SSE, Stream, comparable, differences, parser_of, streams

STREAMS = 32
ID = re.compile(rb"^id: (.+)$", re.MULTILINE)
READY = "ready at "
ENDS = ("stop", "length", "tool_calls")
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
        self._end()
        self._start()

    def unbooked(self, names: Iterable[str]) -> list[str]:
        """Return those answers that the ledger has no end of, and what it has."""
        found = []
        for name in names:
            with urlopen(f"http://127.0.0.1:{self.port}/v1/usage/{name}") as answer:
                reason = json.load(answer)["finish_reason"]
            found += [f"{name}: {reason}"] * (reason not in ENDS)
        return found

    def stop(self) -> None:
        """End it in order."""
        self._process.terminate()
        self._end()

    def _end(self) -> None:
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        if not any(READY in line for line in self._process.stdout):
            self.stop()
            raise SystemExit("the server did not start")


class Client:
    """One stream, asked for until its end has come."""

    def __init__(self, port: int, stream: Stream, arrived: Callable[[int], None]) -> None:
        self.data = b""
        self.returns = 0
        self.id = ""
        self._port = port
        self._stream = stream
        self._arrived = arrived

    async def run(self) -> None:
        """Read all bytes of the body."""
        while True:
            try:
                await self._read()
                return
            except BROKEN:
                self.data = self.data[: self.data.rfind(b"\n\n") + 2] if self.data else b""
                self.returns += 1
                await asyncio.sleep(0.2)  # as a browser waits before it connects again

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
                self.id = found[1]
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
        if not self.id:  # nobody has told this client of an answer: it asks anew
            self.data = b""
            text = json.dumps(body).encode()
            fields = f"X-Resumable: 1\r\nContent-Length: {len(text)}\r\n"
            return f"POST {path} HTTP/1.1\r\n{host}{fields}\r\n".encode() + text
        last = ID.findall(self.data)
        again = f"Last-Event-ID: {last[-1].decode()}\r\n" if last else ""
        return f"GET /v1/streams/{self.id} HTTP/1.1\r\n{host}{again}\r\n".encode()


def dateless(data: bytes) -> str:
    """Return a body that can be compared, with one date in place of that of its creation.

    A second date of creation in the same body stays, and makes it different.
    """
    text = re.sub(r'"completed_at": ?[0-9.]+', '"completed_at":0', comparable(data))
    created = re.search(r'"created(?:_at)?": ?([0-9.]+)', text)
    return text.replace(created[1], "DATE") if created else text


async def run(server: Server, wanted: list[Stream], moments: list[int]) -> list[Client]:
    """Return the clients, which have all bytes of their answers."""
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
    await asyncio.gather(*(client.run() for client in clients))
    if killing is not None:
        await killing
    if due:
        raise SystemExit(f"{len(due)} kills were not reached")
    return clients


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; return the exit status."""
    given = parser_of(__doc__, kills=2).parse_args(arguments)
    chance = random.Random(given.seed)
    different = unbooked = 0
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), given.model)
        try:
            name = Path(given.model).resolve().name if given.model else "fireside"
            found = [stream for stream in streams(given.tokens, name) if stream[1] == SSE]
            more = [(path, media, body | {"seed": 99}) for path, media, body in found[:9]]
            wanted = [*found, *more][:STREAMS]
            clients = asyncio.run(run(server, wanted, []))
            names, whole = [client.id for client in clients], [client.data for client in clients]
            total = sum(map(len, whole))
            for number in range(given.rounds):
                moments = [chance.randrange(total * 9 // 10) for _ in range(given.kills)]
                clients = asyncio.run(run(server, wanted, moments))
                bad = differences(wanted, whole, [client.data for client in clients], dateless)
                lost = server.unbooked([*names, *(client.id for client in clients)])
                different, unbooked = different + bad, unbooked + len(lost)
                returns = sum(client.returns for client in clients)
                print(
                    f"round {number}: {len(wanted)} streams, {given.kills} kills of the server, "
                    f"clients asked again {returns} times, {bad} different, "
                    f"not in the ledger: {lost}",
                    flush=True,
                )
        finally:
            server.stop()
    return bool(different or unbooked)


if __name__ == "__main__":
    sys.exit(main())
