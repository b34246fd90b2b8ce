"""`streamtok proxy` before real servers: no byte changed, faults in the report.

usage: proxy.py NAME=URL...

It was run before `streamtok serve`, before uvicorn (uvicorn_app.py, beside this) and before
llama.cpp's llama-server with the shipped weights (write_gguf.py).

Servers write a new id and the time into each answer, so that two answers cannot be compared. A tap
therefore stands between the proxy and the server, and keeps every byte that the server sends. For
each server it is checked that

- each answer has on the client's side the body, cut into the same chunks, that it has at the tap:
  a stream, a whole answer, a list, an error, a HEAD, a stream that the client leaves;
- what `--record` kept is answered by `--replay` with the same body, byte for byte;
- each of FAULTS, put in by `--faults`, changes what the client gets, and is in the report of
  `--check`; what the rules find about the server is the same with it and without.
"""

import json
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

STREAMTOK = [sys.executable, "-m", "streamtok"]
CHAT = {"messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 24}
STREAM = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
FAULTS = (  # of those that can be put into any server's stream
    *("done-missing", "finish-missing", "usage-missing", "role-repeated", "bad-json;at=3", "bom"),
    *("crlf", "character-broken;at=3", "character-cut;at=3", "coalesced;count=4", "heartbeat"),
    *("content-type", "slow-headers;seconds=1", "chunk-cut;at=3", "close;at=3", "reset;at=3"),
    *("one-byte", "status;code=503"),
)


def request(method: str, path: str, body: object = None, *fields: str) -> bytes:
    """Return a request that ends its connection."""
    data = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *fields]
    if data:
        lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
    return "\r\n".join([*lines, "", ""]).encode() + data


REQUESTS = {
    "stream": request("POST", "/v1/chat/completions", STREAM),
    "stream, gzip accepted": request(
        "POST", "/v1/chat/completions", STREAM, "Accept-Encoding: gzip"
    ),
    "whole": request("POST", "/v1/chat/completions", CHAT),
    "models": request("GET", "/v1/models"),
    "error": request("POST", "/v1/chat/completions", {"messages": 1}),
    "not found": request("GET", "/nothing/here?a=%20b"),
    "head": request("HEAD", "/v1/models"),
}


class Tap:
    """Passes bytes on between the proxy and the server at `url`; keeps what the server said."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 80)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = "http://{}:{}".format(*self._listening.getsockname())
        self.said = b""
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listening.accept()
            server = socket.create_connection(self._address)
            self.said = b""
            threading.Thread(target=self._copy, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._copy, args=(server, client, True), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        try:
            while data := source.recv(65536):
                if answers:
                    self.said += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            source.close()
            sink.close()


@contextmanager
def proxy(*arguments: str) -> Iterator[tuple[tuple[str, int], list[str]]]:
    """Run the proxy; give its address, and what it prints once the block has ended."""
    said: list[str] = []
    with subprocess.Popen(
        [*STREAMTOK, "proxy", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "http://" in line)
        found = re.search(r"http://([\d.]+):(\d+)", line)
        assert found is not None
        try:
            yield (found[1], int(found[2])), said
        finally:
            process.terminate()
            said.append(process.stdout.read())


def ask(address: tuple[str, int], data: bytes) -> bytes:
    """Send a request, and return all that comes."""
    with socket.create_connection(address, timeout=120) as connection:
        connection.sendall(data)
        answer = b""
        try:
            while more := connection.recv(65536):
                answer += more
        except ConnectionError:
            pass
    return answer


def try_bytes(url: str, folder: Path) -> int:
    """Compare what clients got with what the server sent, and with what a replay gives."""
    wrong, got = 0, {}
    tap = Tap(url)
    with proxy(tap.url, "--record", str(folder)) as (address, _):
        for name, data in REQUESTS.items():
            got[name] = ask(address, data)
            same = parts(got[name]) == parts(tap.said) and bool(got[name])
            chunks, body = parts(got[name])
            print(
                f"  {name}: {len(chunks)} chunks, {len(body)} bytes: {'same' if same else tap.said}"
            )
            wrong += not same
    with proxy("--replay", str(folder), "--at-once") as (address, _):
        for name, data in REQUESTS.items():
            same = parts(ask(address, data)) == parts(got[name])
            wrong += not same
            if not same:
                print(f"  replayed {name}: differs")
    return wrong


def parts(raw: bytes) -> tuple[list[bytes], bytes]:
    """Return the chunks of an answer, if it has any, and its body."""
    head, _, rest = raw.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head.lower():
        return [], rest
    chunks = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        chunks.append(rest[:length])
        rest = rest[length + 2 :]
    return chunks, b"".join(chunks)


def try_faults(url: str) -> int:
    """Put each fault into a stream, and look for it in the report."""
    wrong = 0
    with proxy(url, "--check") as (address, said):
        ask(address, REQUESTS["stream"])
    own = set(re.findall(r"^(?:error|warning) ([\w-]+)", said[0], re.MULTILINE))
    print(f"  without faults: {', '.join(sorted(own)) or 'no findings'}")
    for fault in FAULTS:
        with proxy(url, "--check", "--faults") as (address, said):
            ask(address, request("POST", "/v1/chat/completions", STREAM, f"X-Fault: {fault}"))
        name = fault.partition(";")[0]
        found = set(re.findall(r"^(?:error|warning) ([\w-]+)", said[0], re.MULTILINE))
        booked = f" {name} (1)" in said[0] and found <= own
        wrong += not booked
        print(f"  {fault}: {'booked' if booked else said[0]}")
    return wrong


def main(servers: list[str]) -> int:
    """Return how much was wrong."""
    wrong = 0
    for server in servers:
        name, _, url = server.partition("=")
        print(f"{name} at {url}")
        with tempfile.TemporaryDirectory() as folder:
            wrong += try_bytes(url, Path(folder)) + try_faults(url)
    print(f"{wrong} wrong")
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) > 0)
