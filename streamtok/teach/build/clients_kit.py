"""Around exercise 5: an asyncio server, in which each client has a sequence of its own."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable

STEPS, MANY_STEPS = 12, 100  # tokens of an answer; of those named "leaver" and "large"
LARGE_BYTES = 2**18  # of each token of the answer named "large"
STEP_S = 0.01
Respond = Callable[[asyncio.StreamWriter, AsyncGenerator[str, None]], Awaitable[None]]
_running: Counter[str] = Counter()  # sequences by name
_made: Counter[str] = Counter()  # tokens by name


async def generate(name: str) -> AsyncGenerator[str, None]:
    """Yield the tokens of an answer, which takes as long as the model computes."""
    _running[name] += 1
    try:
        for number in range(MANY_STEPS if name in ("leaver", "large") else STEPS):
            await asyncio.sleep(STEP_S)
            _made[name] += 1
            yield f"{name}-{number} " + "x" * (LARGE_BYTES if name == "large" else 0)
    finally:
        _running[name] -= 1


def serve_clients(respond: Respond) -> None:
    """Serve many clients at once; `GET /running` says what is generated now, and how far it is."""
    asyncio.run(_serve_clients(respond))


async def _serve_clients(respond: Respond) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            name = request.split(b" ")[1].decode().strip("/")
            if name == "running":
                state = json.dumps({"running": +_running, "made": _made}).encode()
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(state)}\r\n\r\n"
                writer.write(head.encode() + state)
                return
            tokens = generate(name)
            try:
                await respond(writer, tokens)
            finally:
                await tokens.aclose()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has left
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()
