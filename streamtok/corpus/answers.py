"""Streams of a server: an answer of each API, and one with each fault.

The server is this one, with a prescribed answer, a date that stands still and ids that count: the
bytes are the same each time. What spoils bytes is pure, and is applied to an answer that was sent
without; only what acts in the server is asked for there.
Read next: `streamtok.corpus.write`.
"""

import json
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from streamtok.config import ServeConfig
from streamtok.corpus.cases import Case
from streamtok.errors import RequestError
from streamtok.faults import events as event_faults
from streamtok.faults.catalogue import KINDS, Failure, parse
from streamtok.faults.events import EventFault, text_of
from streamtok.faults.wire import Cut, Pause, Place, WireFault
from streamtok.faults.wire import spoil as spoil_write
from streamtok.http.sse import EventDecoder
from streamtok.serve.background import RunningServer, running_server

TEXT = "Hello, wörld! 🦊\nTwo lines, €5."
RULES = [
    {"match": {"tools": []}, "answer": TEXT},
    {
        "answer": {
            "text": "Let me look.",
            "tool_calls": [
                {"name": "get_weather", "arguments": {"city": "Tromsø"}},
                {"name": "get_weather", "arguments": {"city": "Rome"}},
            ],
        }
    },
]
MESSAGES = [{"role": "user", "content": "Hello"}]
CHAT = {"messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}}
TOOL = {"type": "function", "function": {"name": "get_weather"}}
REQUESTS = (  # path, body, what it is
    ("/v1/chat/completions", CHAT, "an answer of the Chat Completions API"),
    ("/v1/chat/completions", {**CHAT, "tools": [TOOL]}, "calls of tools in a chat"),
    ("/v1/chat/completions", {**CHAT, "n": 2}, "two choices of a chat, in turns"),
    (
        "/v1/completions",
        {"prompt": "Hello", "max_tokens": 100, "stream": True},
        "an answer of the Completions API",
    ),
    ("/v1/responses", {"input": "Hello", "stream": True}, "an answer of the Responses API"),
    (
        "/v1/messages",
        {"messages": MESSAGES, "max_tokens": 100, "stream": True},
        "an answer of Anthropic's Messages API",
    ),
)
NAMES = ("chat", "chat-tools", "chat-choices", "completion", "responses", "messages")
IN_THE_SERVER = ("status", "error")  # these act before there are bytes
LEGAL = (
    *("character-cut", "heartbeat", "bom", "crlf", "coalesced"),
    *("slow-headers", "stall", "one-byte", "drip"),
)
LATER = ("close;at=3", "chunk-cut;at=3", "reset;at=3", "stall;at=3;seconds=2", "coalesced;count=9")
ZERO_CHUNK = b"0\r\n\r\n"
SIZE = re.compile(rb"([0-9a-f]+)\r\n")


def cases() -> Iterator[Case]:
    """Yield the answers and the faults."""
    with _server() as server:
        plain = [_ask(server, path, body) for path, body, _ in REQUESTS]
        for name, (_, _, about), http in zip(NAMES, REQUESTS, plain, strict=True):
            yield _case(name, about, http, has_text=name not in ("chat-tools", "chat-choices"))
        head, chunks = split(plain[0])
        for spec in (*KINDS, *LATER):
            if spec in IN_THE_SERVER:
                http = _ask(server, *REQUESTS[0][:2], fault=spec)
                yield _case(f"fault-{spec}", f"the fault {spec}", http, legal=False)
            else:
                yield _spoiled(spec, head, chunks)


def split(http: bytes) -> tuple[bytes, list[bytes]]:
    """Return the head of a response, and what its chunks hold (RFC 9112 section 7.1)."""
    head, end, body = http.partition(b"\r\n\r\n")
    chunks = []
    while size := SIZE.match(body):
        start = size.end()
        data = body[start : start + int(size[1], 16)]
        body = body[start + len(data) + 2 :]
        if data:
            chunks.append(data)
    return head + end, chunks


def _spoiled(spec: str, head: bytes, chunks: Sequence[bytes]) -> Case:
    """Return the case of a fault that spoils the chunks of an answer, or how they are written."""
    name = spec.partition(";")[0]
    made = [wanted.make() for wanted in parse(spec)]
    events = [fault for fault in made if isinstance(fault, EventFault)]
    wire = [fault for fault in made if isinstance(fault, WireFault)]
    assert not any(isinstance(fault, Failure | RequestError) for fault in made)
    writes: list[tuple[bytes, Place]] = [(head, Place("head", 0))]
    tokens = 0
    for chunk in chunks:
        spoiled = event_faults.spoil(events, chunk, tokens)
        writes += [(_chunked(one), Place("body", tokens)) for one in spoiled]
        tokens += bool(text_of(chunk))
    writes += [(_chunked(one), Place("body", tokens)) for one in event_faults.flush(events)]
    writes.append((ZERO_CHUNK, Place("end", tokens)))
    http, pauses, ends = _written(writes, wire)
    if name == "one-byte":
        pauses = [(place, 0.0) for place in range(len(http))]
    title = spec.replace(";", "-").replace("=", "-").replace("_", "-")
    return _case(f"fault-{title}", f"the fault {spec}", http, name in LEGAL, pauses, ends)


def _written(
    writes: Sequence[tuple[bytes, Place]], faults: Sequence[WireFault]
) -> tuple[bytes, list[tuple[int, float]], str]:
    """Return what is sent, the pauses in it, and how it ends."""
    http, pauses = b"", []
    for data, place in writes:
        for step in spoil_write(faults, data, place):
            if isinstance(step, Pause):
                pauses.append((len(http), step.seconds))
            elif isinstance(step, Cut):
                return http, pauses, "reset" if step.reset else "cut"
            else:
                http += step
    return http, pauses, "complete"


def _case(
    name: str,
    about: str,
    http: bytes,
    legal: bool = True,
    pauses: Sequence[tuple[int, float]] = (),
    ends: str = "complete",
    *,
    has_text: bool = True,
) -> Case:
    """Return a response as a case; its events are those that the body has as far as it goes."""
    head, chunks = split(http)
    body = b"".join(chunks) if b"chunked" in head else b""
    events = EventDecoder().feed(body)
    text = "".join(text_of(b"data: " + event.data.encode()) for event in events)
    return Case(
        name,
        about,
        body,
        events,
        legal=legal,
        http=http,
        ends=ends,
        pauses=pauses,
        text=text if has_text and events else None,
    )


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@contextmanager
def _server() -> Iterator[RunningServer]:
    with TemporaryDirectory() as folder:
        script = Path(folder) / "script.json"
        script.write_text(json.dumps({"rules": RULES}), "utf-8")
        config = ServeConfig(
            port=0,
            ledger=":memory:",
            script=str(script),
            script_only=True,
            faults=True,
            frozen_clock=True,
            ids="sequential",
        )
        with running_server(config) as server:
            yield server


def _ask(server: RunningServer, path: str, body: Any, fault: str = "") -> bytes:
    """Return every byte of an answer."""
    data = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += [f"Content-Length: {len(data)}", *([f"X-Fault: {fault}"] if fault else ())]
    with socket.create_connection(server.address) as connection:
        connection.sendall("\r\n".join((*lines, "", "")).encode() + data)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer
