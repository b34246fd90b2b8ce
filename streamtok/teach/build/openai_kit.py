"""Around exercise 6: an HTTP server with a model that always tells the same, and OpenAI's paths.

The learner's part is what the doctor looks at: the head's fields, the events, and the errors.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from streamtok.teach.build.kit import LAST_CHUNK, chunk

MODEL = "fox"
WORDS = [
    "Once",
    "there",
    "was",
    "a",
    "fox",
    "who",
    "found",
    "a",
    "lantern",
    "in",
    "the",
    "snow",
    "and",
    "carried",
    "it",
    "home",
    ".",
]
PROMPT_TOKENS = 5
MOST_TOKENS = 64
STEP_S = 0.003
Events = Callable[[Mapping[str, Any], Iterator[str]], Iterator[str]]
Refusal = Callable[[int, str], tuple[int, Mapping[str, Any]]]


def serve_openai(fields: Mapping[str, str], events: Events, refusal: Refusal) -> None:
    """Serve `GET /v1/models` and `POST /v1/chat/completions`, always streamed."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/v1/models":
                self.answer(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
            else:
                self.answer(*refusal(404, f"no such path: {self.path}"))

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if problem := _problem(asked):
                self.answer(*refusal(*problem))
                return
            self.send_response(200)
            for name, value in fields.items():
                self.send_header(name, value)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for data in events(asked, _texts(asked)):
                self.wfile.write(chunk(f"data: {data}\n\n".encode()))
            self.wfile.write(LAST_CHUNK)

        def answer(self, status: int, value: Mapping[str, Any]) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:  # the client has left
                self.close_connection = True

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
            """Keep quiet: standard error is for tracebacks."""

    with ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler) as server:
        server.daemon_threads = True
        server.serve_forever()


def _problem(asked: Mapping[str, Any]) -> tuple[int, str] | None:
    """Return the status and the message for a request that is wrong."""
    if not isinstance(asked.get("messages"), list):
        return 400, "messages must be a list"
    if asked.get("model", MODEL) != MODEL:
        return 404, f"the model {asked['model']} does not exist"
    return None


def _texts(asked: Mapping[str, Any]) -> Iterator[str]:
    """Yield the words, up to `max_tokens` and the first stop string."""
    stops = asked.get("stop") or []
    said = ""
    for number in range(min(asked.get("max_tokens", MOST_TOKENS), MOST_TOKENS)):
        time.sleep(STEP_S)
        word = " " + WORDS[number % len(WORDS)]
        if any(stop in said + word for stop in stops):
            return
        said += word
        yield word
