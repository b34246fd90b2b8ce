"""Fakes that are shipped, to test streamtok and programs built on it without mocks or downloads.

`write_model` makes a complete Hugging Face folder with random weights and a tokenizer of bytes;
`ScriptedEngine` says what it is told to; `MemoryStream` is a socket in memory; `FakeClock` stands
still until moved; `running_server` is a real server in a thread; `fresh_server` is one for tests of
clients, as the pytest fixture gives. Nothing on the serving path imports this package.
"""

from streamtok.serve.background import RunningServer, running_server
from streamtok.testing.clocks import FakeClock, FakeLater, FakeTimer
from streamtok.testing.engines import ScriptedEngine, local_engine
from streamtok.testing.fixture import Models, TestedServer, fresh_server
from streamtok.testing.models import SPECIALS, TINY, byte_tokenizer, random_weights, write_model
from streamtok.testing.servers import listen_locally, make_service, make_services
from streamtok.testing.streams import MemoryStream, chunks

__all__ = [
    "SPECIALS",
    "TINY",
    "FakeClock",
    "FakeLater",
    "FakeTimer",
    "MemoryStream",
    "Models",
    "RunningServer",
    "ScriptedEngine",
    "TestedServer",
    "byte_tokenizer",
    "chunks",
    "fresh_server",
    "listen_locally",
    "local_engine",
    "make_service",
    "make_services",
    "random_weights",
    "running_server",
    "write_model",
]
