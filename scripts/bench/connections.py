"""What a connection costs: memory for each idle one, and for each whose reader takes nothing.

usage: bench_connections.py [CONNECTIONS]

A server with a scripted engine runs in a process of its own, and its resident memory is read from
the system before and after so many connections were opened.
"""

import json
import multiprocessing
import resource
import socket
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

BODY = json.dumps({"prompt": "x", "max_tokens": 1000, "stream": True}).encode()
STREAM = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (
    len(BODY),
    BODY,
)
IDLE = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"


def serve(pipe: Connection) -> None:
    """Run the server; say where, then answer each message with the resident memory in bytes."""
    import asyncio

    from streamtok.api.more.routes import ROUTES
    from streamtok.api.routing import Api
    from streamtok.clock import SystemClock
    from streamtok.config import ServeConfig
    from streamtok.http.server import Server
    from streamtok.testing import (
        ScriptedEngine,
        listen_locally,
        make_service,
        make_services,
        write_model,
    )

    async def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            model = write_model(Path(folder))
            engine = ScriptedEngine([65] * 1000, held=True)
            services = make_services(model, engine, SystemClock())
        api = Api(ROUTES)
        api.open(services)
        config = ServeConfig(max_connections=100_000)
        server = Server(make_service(api, SystemClock(), config))
        pipe.send(listen_locally(server))
        while True:
            while not pipe.poll():
                engine.step()
                await asyncio.sleep(0.001)
            pipe.recv()
            pipe.send(statm()[1] * resource.getpagesize())

    asyncio.run(run())


def statm() -> list[int]:
    """Return this process's memory in pages: all of it, the resident part, and so on."""
    return [int(field) for field in Path("/proc/self/statm").read_text().split()]


def resident(pipe: Connection) -> int:
    """Return the server's resident memory in bytes, once it no longer grows."""
    last = -1
    while True:
        pipe.send(None)
        now: int = pipe.recv()
        if now == last:
            return now
        last = now
        time.sleep(1)


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    address = ours.recv()
    held = []
    for name, request in (("idle", IDLE), ("slow reader", STREAM)):
        before = resident(ours)
        for _ in range(count):
            connection = socket.create_connection(address)
            connection.sendall(request)
            held.append(connection)
        grown = resident(ours) - before
        print(f"{name}: {grown / count / 1024:.1f} kB each ({count} connections)")
    process.kill()


if __name__ == "__main__":
    main()
