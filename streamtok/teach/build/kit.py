"""What the skeletons import: tokens that come one after the other, and servers around `respond`.

It imports nothing else of the package, so that a learner's program starts at once.
"""

import asyncio
import json
import math
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from urllib.parse import parse_qs, urlsplit

PAUSE_S = 0.02  # between tokens, in place of the model's computation
# Lengths above 9 and 15, letters of several bytes, and nothing at all: a token may be empty.
TOKENS = (
    "Once",
    " upon",
    " a time",
    ", a fox found a lantern",
    "",
    " in Zürich",
    " \U0001f98a",
    ".",
)
STORY = ("She said:", "\n", '"Run, little fox!"', " \U0001f98a", "\n\n", "The end.")
LAST_CHUNK = b"0\r\n\r\n"


def tokens() -> Iterator[str]:
    """Yield the tokens of exercise 1, with pauses."""
    return _paused(TOKENS)


def story() -> Iterator[str]:
    """Yield the tokens of exercise 2, with pauses."""
    return _paused(STORY)


def _paused(texts: tuple[str, ...]) -> Iterator[str]:
    for text in texts:
        time.sleep(PAUSE_S)
        yield text


def chunk(data: bytes) -> bytes:
    """Return `data` as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def serve(respond: Callable[[socket.socket], None]) -> None:
    """Listen on the port in the first argument; call `respond` once a request was read."""
    _accept(lambda connection, _: respond(connection))


def _accept(respond: Callable[[socket.socket, bytes], None]) -> None:
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
        while True:
            connection, _ = server.accept()
            with connection:
                request = b""
                while b"\r\n\r\n" not in request and (data := connection.recv(65536)):
                    request += data
                if request:
                    respond(connection, request)


# Exercise 4: a model whose scores are known, and the endpoint around `choose` and `released`

PROBABILITIES = (0.5, 0.25, 0.15, 0.07, 0.03)  # of the tokens a, b, c, d, e
ANSWERS = {  # what the other models always say, token by token
    "plain": ("It", " stops", " at", " the", " end", "."),
    "stop": ("The", " end", "ing", " is: ST", "OP", " here", ", or never."),
    "almost": ("It", " says", " ST", "ART", " and", " S"),
}
STOP = "STOP"
Choose = Callable[[list[float], float, float, float], int]
Released = Callable[[Iterator[str], str], Iterator[str]]


def serve_model(choose: Choose, released: Released) -> None:
    """Serve a model's answers as JSON lines: see `streamtok.teach.build.sampled`, which asks."""

    def respond(connection: socket.socket, request: bytes) -> None:
        query = parse_qs(urlsplit(request.split(b" ")[1].decode()).query)
        asked = {name: values[0] for name, values in query.items()}
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
            b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        )
        try:
            for value in _answer(asked, choose, released):
                connection.sendall(chunk(json.dumps(value).encode() + b"\n"))
        except Exception as error:
            connection.sendall(chunk(json.dumps({"error": repr(error)}).encode() + b"\n"))
        connection.sendall(LAST_CHUNK)

    _accept(respond)


def _answer(asked: dict[str, str], choose: Choose, released: Released) -> Iterator[object]:
    if asked["model"] != "dice":
        taken = 0

        def generated() -> Iterator[str]:
            nonlocal taken
            for token in ANSWERS[asked["model"]]:
                taken += 1
                yield token

        for text in released(generated(), STOP):
            yield {"text": text}
        yield {"taken": taken}
        return
    draws = int(asked["draws"])
    logits = [math.log(probability) for probability in PROBABILITIES]
    temperature, top_p = float(asked["temperature"]), float(asked["top_p"])
    for number in range(draws):  # evenly spread, so that every share is exact
        yield {"chosen": choose(logits.copy(), temperature, top_p, (number + 0.5) / draws)}


# Exercise 5: an asyncio server, in which each client has a sequence of its own

STEPS, MANY_STEPS = 20, 200  # tokens of an answer; of those named "leaver" and "large"
LARGE_BYTES = 65536  # of each token of the answer named "large"
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
