"""What the pytest fixture `streamtok_server` gives: a server to test a client against.

Each test has a server of its own, in a thread, so that its ids, its books and its faults do not
depend on the tests before; a model is loaded once for all of them. `fresh_server` is such a server
for as long as a project's own fixture wants it. Loads no pytest.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamtok.cli import serve_config
from streamtok.errors import ConfigError
from streamtok.faults.catalogue import parse
from streamtok.ledger import UsageRecord
from streamtok.script.director import Director
from streamtok.script.files import make, read
from streamtok.script.stage import directed
from streamtok.serve.background import RunningServer, running_server
from streamtok.startup import ModelFiles, load_files

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

# What makes answers repeat, and lets them go wrong
FLAGS = (
    *("--port", "0", "--ledger", ":memory:", "--engine", "thread"),
    *("--frozen-clock", "--ids", "sequential", "--faults"),
)
OPENAI_MISSING = "{}() needs the package openai; other clients can be given the url"
CHAT = "/v1/chat/completions"
BOOKING_S = 5.0  # how long a server may take to see that a client has left
LOOK_AGAIN_S = 0.01


class Models:
    """Model folders, each loaded when it is first asked for."""

    def __init__(self) -> None:
        self._loaded: dict[tuple[Path, bool], ModelFiles] = {}

    def load(self, folder: Path, *, weights: bool = True) -> ModelFiles:
        """Return what a folder holds.

        Raises:
            ModelError: anything in it is missing, damaged or not supported.
        """
        if (folder, weights) not in self._loaded:
            self._loaded[folder, weights] = load_files(folder, weights=weights)
        return self._loaded[folder, weights]


class Books:
    """What a server has booked."""

    def __init__(self, server: RunningServer) -> None:
        self._server = server

    def get(self, answer_id: str) -> UsageRecord:
        """Return what was booked for the answer with this id, as soon as it has ended.

        Raises:
            LookupError: nothing is, after a while.
        """
        booked = asyncio.run_coroutine_threadsafe(self._get(answer_id), self._server.loop)
        return booked.result()

    async def _get(self, answer_id: str) -> UsageRecord:
        meter, loop = self._server.app.meter, asyncio.get_running_loop()
        give_up_s = loop.time() + BOOKING_S
        while loop.time() < give_up_s:
            await meter.settled()
            if record := await meter.ledger.get(answer_id):
                return record
            await asyncio.sleep(LOOK_AGAIN_S)
        raise LookupError(f"nothing is booked for {answer_id!r} after {BOOKING_S:g} s")


class TestedServer:
    """A server that answers the same request with the same bytes; `url` has no `/v1`."""

    __test__ = False  # no class of tests, whatever pytest thinks of its name

    def __init__(self, server: RunningServer, stack: ExitStack) -> None:
        self.url = server.url
        self.address = server.address
        self.ledger = Books(server)
        self._server = server
        self._stack = stack

    def client(self, **options: Any) -> OpenAI:
        """Return OpenAI's client for this server, which does not retry unless asked to.

        `options` are those of `openai.OpenAI`. It is closed at the end of the test.
        """
        try:
            from openai import OpenAI
        except ImportError as error:
            raise ImportError(OPENAI_MISSING.format("client")) from error
        return self._stack.enter_context(OpenAI(**self._options(options)))

    def async_client(self, **options: Any) -> AsyncOpenAI:
        """Return OpenAI's asynchronous client for this server, as `client` does; to be closed.

        `async with` closes it on the event loop that it was used on, which nothing else can do.
        """
        try:
            from openai import AsyncOpenAI
        except ImportError as error:
            raise ImportError(OPENAI_MISSING.format("async_client")) from error
        return AsyncOpenAI(**self._options(options))

    def _options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return {"base_url": f"{self.url}/v1", "api_key": "none", "max_retries": 0, **given}

    @property
    def env(self) -> dict[str, str]:
        """The environment variables that send programs to this server.

        They are read by the clients of OpenAI and Anthropic, and by what is built on them.
        """
        return {
            "OPENAI_BASE_URL": f"{self.url}/v1",
            "OPENAI_API_BASE": f"{self.url}/v1",
            "OPENAI_API_KEY": "none",
            "ANTHROPIC_BASE_URL": self.url,
            "ANTHROPIC_API_KEY": "none",
        }

    def script(self, *rules: Mapping[str, Any] | Path, only: bool = True) -> Director:
        """Let a script answer from now on, in place of the one before; see `streamtok help script`.

        A rule is what a file has under `rules`; a path is that of a file. With `only`, a request
        that no rule matches gets a 404. What is returned has the `calls` that have come since.

        Raises:
            ConfigError: a rule is wrong.
        """
        given = [rule for rule in rules if not isinstance(rule, Path)]
        scripts = [read(rule) for rule in rules if isinstance(rule, Path)]
        if not scripts:
            script = make({"rules": given}, "script()")
        elif len(rules) == 1:
            script = scripts[0]
        else:
            raise ConfigError("script(): expected rules, or one file")

        async def change() -> Director:
            made = self._server.app.change(partial(directed, script=script, only=only))
            assert isinstance(made.director, Director)
            return made.director

        return asyncio.run_coroutine_threadsafe(change(), self._server.loop).result()

    def fault(self, name: str, **parameters: float) -> dict[str, str]:
        """Return the header that asks for a fault, such as `fault("stall", at=5)`.

        Raises:
            InvalidRequest: there is no such fault; says which there are.
        """
        spec = ";".join([name, *(f"{key}={value}" for key, value in parameters.items())])
        parse(spec)
        return {"X-Fault": spec}

    def raw(self, body: Any, path: str = CHAT, headers: Mapping[str, str] | None = None) -> bytes:
        """Post JSON and return every byte of the answer, as it was on the wire.

        Raises:
            ConnectionResetError: the answer ended with a reset.
        """
        data = json.dumps(body).encode()
        host, port = self.address
        fields = {
            "Host": f"{host}:{port}",
            "Connection": "close",
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            **(headers or {}),
        }
        lines = [f"POST {path} HTTP/1.1", *(f"{key}: {value}" for key, value in fields.items())]
        with socket.create_connection(self.address) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + data)
            answer = b""
            while part := connection.recv(65536):
                answer += part
        return answer


@contextmanager
def fresh_server(flags: Sequence[str], models: Models) -> Iterator[TestedServer]:
    """Run a server for the length of the block, with `flags` of `streamtok serve` after FLAGS.

    Raises:
        ConfigError: a flag is wrong.
        ModelError: the model cannot be loaded.
    """
    config = serve_config([*FLAGS, *flags])
    weights = config.engine == "thread" and not config.script_only
    files = models.load(config.model_folder, weights=weights)
    with running_server(config, files) as server, ExitStack() as stack:
        yield TestedServer(server, stack)
