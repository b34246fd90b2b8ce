"""The heart stays small, and one streamed answer runs through nothing else.

Nothing is plugged in here of what `streamtok.app` plugs in. What belongs to the heart is said in
`test_layers`.
"""

import asyncio
import json
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest
from msgspec.structs import replace
from test_layers import COMPOSITION, HEART, MODULES, PACKAGE, room_of

from streamtok.answer.limits import Limits
from streamtok.api.openai import chat, completions
from streamtok.api.route import refuse
from streamtok.api.routing import Api
from streamtok.api.services import Offload
from streamtok.api.validation import BodyReader
from streamtok.clock import SystemClock
from streamtok.config import ConnectionConfig, EngineConfig
from streamtok.engine.local import LocalEngine
from streamtok.http.connection import Service
from streamtok.http.server import Server
from streamtok.ids import random_id
from streamtok.model.decoder import LlamaDecoder
from streamtok.model.load import load
from streamtok.testing import make_services
from streamtok.text.template import ChatTemplate

MOST_LINES = 10_891  # of the heart; to be lowered whenever it can be
ON_THE_WAY = (  # what a streamed answer certainly runs through
    *("http/connection.py", "http/framings.py", "api/routing.py", "api/endpoint.py"),
    *("answer/generation.py", "answer/render.py", "engine/client.py", "engine/core.py"),
    *("engine/scheduler.py", "model/decoder.py", "text/detokenizer.py", "ledger.py"),
)
BODIES = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hello"}]},
    "/v1/completions": {"prompt": "Hello"},
}


def in_heart(path: str) -> bool:
    """Whether the module at `path` is of the heart."""
    return path.startswith(HEART) and room_of(path) is None


class Entered:
    """The package's modules in which a function is called, in any thread, while it records."""

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self.recording = False

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        """Note a call; with nothing returned, lines are not traced."""
        if self.recording and (name := frame.f_code.co_filename).startswith(f"{PACKAGE}/"):
            self.modules.add(name.removeprefix(f"{PACKAGE}/"))


async def ask(host: str, port: int, path: str) -> bytes:
    """Return every byte of a streamed answer."""
    reader, writer = await asyncio.open_connection(host, port)
    body = json.dumps(BODIES[path] | {"stream": True, "max_tokens": 5}).encode()
    fields = f"Host: localhost\r\nConnection: close\r\nContent-Length: {len(body)}"
    head = f"POST {path} HTTP/1.1\r\n{fields}"
    writer.write(f"{head}\r\n\r\n".encode() + body)
    answer = await reader.read()
    writer.close()
    return answer


@pytest.fixture
def trace() -> Callable[[Callable[[FrameType, str, object], None]], None]:
    """Trace this thread and those that begin, until the test's end."""
    before = sys.gettrace()

    def begin(tracer: Callable[[FrameType, str, object], None]) -> None:
        threading.settrace(tracer)
        sys.settrace(tracer)

    yield begin
    sys.settrace(before)
    threading.settrace(None)


@pytest.mark.parametrize("path", BODIES)
async def test_a_streamed_answer_enters_the_heart_only(
    path: str,
    tiny_model: Path,
    trace: Callable[[Entered], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entered = Entered()
    trace(entered)  # before the engine's thread begins
    monkeypatch.setattr("streamtok.model.machine.products.find", lambda: None)
    decoder = load(tiny_model)
    assert isinstance(decoder, LlamaDecoder)
    decoder.many_rows = None
    engine = LocalEngine(decoder, EngineConfig(max_streams=2))
    plain = make_services(tiny_model, engine, SystemClock())
    plain.meter.limits = Limits()
    services = replace(
        plain,
        template=ChatTemplate(plain.tokenizer),
        new_id=random_id,
        new_seed=lambda: 1,
        offload=Offload(),
        reader=BodyReader(),
        direct=lambda body, *_: body,
    )
    api = Api((*chat.ROUTES, *completions.ROUTES))
    api.open(services)
    server = Server(Service(api.handle, refuse, SystemClock(), ConnectionConfig()))
    sock = socket.create_server(("127.0.0.1", 0))
    host, port = sock.getsockname()
    server.listen([sock], lambda: None, backlog=8)
    entered.recording = True
    answer = await ask(host, port, path)
    await services.meter.settled()
    entered.recording = False
    await engine.close()
    server.finish()
    await server.abort()
    await services.meter.close()
    assert answer.count(b"data: ") >= 3
    assert set(ON_THE_WAY) <= entered.modules
    strangers = {
        module for module in entered.modules if not in_heart(module) and module not in COMPOSITION
    }
    assert not strangers


def test_the_heart_is_small() -> None:
    lines = {
        path: len((PACKAGE / path).read_text("utf-8").splitlines())
        for path in MODULES
        if in_heart(path)
    }
    total = sum(lines.values())
    assert total <= MOST_LINES, sorted(lines.items(), key=lambda item: -item[1])[:10]
