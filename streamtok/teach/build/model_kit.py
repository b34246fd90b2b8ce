"""Around exercise 4: a model whose scores are known, and the endpoint around the learner's part."""

import json
import math
import socket
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit

from streamtok.teach.build.kit import LAST_CHUNK, accept, chunk

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

    accept(respond)


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
