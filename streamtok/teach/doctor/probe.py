"""Asks a server over a socket and records what comes, each read with its time. Judges nothing.

Requests are written by hand, so that no library mends what the server gets wrong. Read next:
`streamtok.teach.doctor.examine`, which decides what to ask.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal
from urllib.parse import urlsplit

from msgspec import Struct

from streamtok import __version__
from streamtok.errors import ConfigError, StreamtokError
from streamtok.http.request import HeaderList
from streamtok.teach.doctor.eventstream import Stream, read_stream
from streamtok.teach.doctor.recording import Answer, AnswerReader, Read, Recording, read_answer

CHAT = "/v1/chat/completions"
Request = tuple[str, str, Any, HeaderList]  # method, path, JSON, fields
LINGER_S = 2.0  # how long to wait for the end of an answer whose last event has come


class Unreachable(StreamtokError):
    """Nobody listens at the URL."""


class Target(Struct, frozen=True):
    """Whom to ask: `prefix` is what stands before `/v1` in paths; `key` may be empty."""

    host: str
    port: int
    secure: bool
    authority: str
    prefix: str
    key: str
    timeout_s: float


def target(url: str, key: str, timeout_s: float) -> Target:
    """Return the target that a URL names, with or without `/v1` at its end.

    Raises:
        ConfigError: it is not an HTTP URL.
    """
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{url}: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url}: expected a URL such as http://127.0.0.1:8000")
    secure = parts.scheme == "https"
    return Target(
        parts.hostname,
        port or (443 if secure else 80),
        secure,
        parts.netloc.rpartition("@")[2],
        parts.path.rstrip("/").removesuffix("/v1"),
        key,
        timeout_s,
    )


class Probe:
    """One connection to the target."""

    def __init__(
        self, where: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._target = where
        self._reader = reader
        self._writer = writer

    async def get(self, path: str) -> Answer:
        """Ask for a resource."""
        return await self.ask("GET", path)

    async def post(self, body: Any, headers: HeaderList = ()) -> Answer:
        """Ask for a chat completion."""
        return await self.ask("POST", CHAT, body, headers)

    async def stream(
        self,
        body: Any,
        enough: Callable[[Stream], bool] | None = None,
        headers: HeaderList = (),
    ) -> Stream:
        """Ask for a chat's stream, and read it until it ends or there is `enough` of it."""
        return await self.read(("POST", CHAT, body, headers), enough)

    async def read(
        self, request: Request, enough: Callable[[Stream], bool] | None = None
    ) -> Stream:
        """Do the same for any stream."""

        def stop(answer: Answer) -> bool:
            return answer.complete or bool(enough and enough(read_stream(answer)))

        recording = await self._record(self._request(*request), stop)
        return read_stream(read_answer(recording), "stream_options" in (request[2] or {}))

    async def ask(
        self, method: str, path: str, body: Any = None, headers: HeaderList = ()
    ) -> Answer:
        """Send a request and read its answer."""
        request = self._request(method, path, body, headers)
        return read_answer(await self._record(request, lambda answer: answer.complete))

    def _request(self, method: str, path: str, body: Any, headers: HeaderList) -> bytes:
        data = b"" if body is None else json.dumps(body).encode()
        fields = [
            ("Host", self._target.authority),
            ("User-Agent", f"streamtok-doctor/{__version__}"),
            ("Accept", "text/event-stream, application/json, */*;q=0.1"),
            *headers,
        ]
        if self._target.key:
            fields.append(("Authorization", f"Bearer {self._target.key}"))
        if data:
            fields += [("Content-Type", "application/json"), ("Content-Length", str(len(data)))]
        lines = [f"{method} {self._target.prefix}{path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in fields]
        return "\r\n".join([*lines, "", ""]).encode() + data

    async def _record(self, request: bytes, stop: Callable[[Answer], bool]) -> Recording:
        """Send a request and record what comes, until `stop` says that it is enough."""
        now = asyncio.get_running_loop().time
        reads: list[Read] = []
        reader = AnswerReader()
        ended: Literal["answered", "closed", "reset", "silent"] = "answered"
        patience_s = self._target.timeout_s
        try:
            started_s = now()
            self._writer.write(request)
            while True:
                async with asyncio.timeout(patience_s):
                    data = await self._reader.read(65536)
                if not data:
                    ended = "closed"
                    break
                reads.append(Read(now() - started_s, data))
                reader.feed(reads[-1])
                if stop(reader.answer("answered")):
                    break
                if b"[DONE]" in data:
                    patience_s = min(patience_s, LINGER_S)
        except TimeoutError:
            ended = "silent"
        except OSError:
            ended = "reset"
        return Recording(tuple(reads), ended)


@asynccontextmanager
async def connect(where: Target) -> AsyncIterator[Probe]:
    """Connect for the length of the block; its end closes the connection, whatever is under way.

    Raises:
        Unreachable: there is no such server.
    """
    reader, writer = await open_socket(where)
    try:
        yield Probe(where, reader, writer)
    finally:
        writer.transport.abort()


async def open_socket(where: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a new connection to the target.

    Raises:
        Unreachable: there is no such server.
    """
    secure = ssl.create_default_context() if where.secure else None
    try:
        async with asyncio.timeout(where.timeout_s):
            return await asyncio.open_connection(where.host, where.port, ssl=secure)
    except OSError as error:
        reason = error.strerror or str(error) or "no answer"
        raise Unreachable(f"{where.authority} cannot be reached: {reason}") from error
