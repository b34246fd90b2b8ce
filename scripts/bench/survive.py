"""Whether streams survive the death of the engine's process, with the same bytes.

usage: survive.py [--model FOLDER] [--kills 5] [--rounds 1] [--tokens 60] [--seed 0] [--pause 0.5]

Thirty-two streams of all dialects run once undisturbed. Then they run again at once, and the
engine's process is killed at random moments, counted in bytes that have arrived. Every stream must
end with the bytes it had; ids and how much of a prompt was cached are left out of the comparison.
Exits with 1 if one does not. `--pause` is the first of the growing pauses, in seconds, after which
an engine is started that has died soon.
"""

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from streams import Stream, comparable, differences, parser_of, streams

from streamtok.config import ServeConfig
from streamtok.engine.remote import restarts
from streamtok.serve.background import RunningServer, running_server


async def read(url: str, stream: Stream, arrived: Callable[[int], None]) -> tuple[int, bytes]:
    """Return the status and the body of an answer, without the framing of chunks."""
    path, media, body = stream
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    text = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: {media}\r\n"
    writer.write(f"{head}Content-Length: {len(text)}\r\nConnection: close\r\n\r\n".encode() + text)
    answer = await reader.readuntil(b"\r\n\r\n")
    data = b""
    if b"transfer-encoding: chunked" in answer.lower():
        while size := int(await reader.readline(), 16):
            data += (await reader.readexactly(size + 2))[:-2]
            arrived(size)
    else:
        data = await reader.read()
    writer.close()
    return int(answer.split()[1]), data


class Killer:
    """Kills the engine's process when so many bytes have arrived."""

    def __init__(self, server: RunningServer, moments: list[int]) -> None:
        self._engine: Any = server.app.engine
        self._moments = sorted(moments)
        self._bytes = 0
        self._killed: int | None = None
        self.kills = 0

    def arrived(self, size: int) -> None:
        self._bytes += size
        pid = self._engine.pid
        if pid != self._killed and pid and self._moments and self._bytes >= self._moments[0]:
            self._moments.pop(0)
            os.kill(pid, signal.SIGKILL)
            self._killed = pid
            self.kills += 1


async def run(server: RunningServer, wanted: list[Stream], moments: list[int]) -> tuple[Any, int]:
    killer = Killer(server, moments)
    answers = await asyncio.gather(*(read(server.url, one, killer.arrived) for one in wanted))
    return answers, killer.kills


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; return the exit status."""
    parser = parser_of(__doc__, kills=5)
    parser.add_argument("--pause", type=float, default=restarts.FIRST_DELAY_S)
    given = parser.parse_args(arguments)
    restarts.FIRST_DELAY_S = given.pause
    chance = random.Random(given.seed)
    different = 0
    config = ServeConfig(
        port=0, ledger=":memory:", model=given.model, frozen_clock=True, log_level="error"
    )
    wanted = streams(given.tokens, config.model_folder.resolve().name)
    with running_server(config) as server:
        whole, _ = asyncio.run(run(server, wanted, []))
        total = sum(len(data) for _, data in whole)
        for stream, (status, data) in zip(wanted, whole, strict=True):
            if status != 200:
                print(f"not answered: {stream}: {data.decode()}")
                return 1
        for number in range(given.rounds):
            moments = [chance.randrange(total) for _ in range(given.kills)]
            again, kills = asyncio.run(run(server, wanted, moments))
            bodies = [[body for _, body in answers] for answers in (whole, again)]
            bad = differences(wanted, *bodies, comparable)
            different += bad
            print(f"round {number}: {len(wanted)} streams, {kills} kills, {bad} different")
        stats = server.app.engine.stats()
    print(f"{stats.restarts} restarts, {stats.resumed} sequences resumed, {different} different")
    return bool(different)


if __name__ == "__main__":
    sys.exit(main())
