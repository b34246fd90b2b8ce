"""Exchanges on disk, and answers from them: the same bytes, at the same pace or at once.

A folder holds one JSON file for each exchange, in the order in which they began: what was asked,
and each part of the answer with the time when it came. Secrets of the client (`Authorization`,
`Cookie` and the like) are never written.

A request is answered from the recordings of requests that are alike: same method, target and body.
Where there are several they are used in turn, and the last one from then on.
"""

import base64
import hashlib
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from streamtok.errors import ConfigError, NotFound
from streamtok.http.request import HeaderList, Request
from streamtok.http.response import BrokenOff

SECRETS = frozenset(
    ("authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key")
)
VERSION = 1


class Part(Struct, frozen=True):
    """Data of the body, `at_s` seconds after the request; `base64` where they are not UTF-8."""

    at_s: float
    text: str | None = None
    base64: str | None = None


class Exchange(Struct, frozen=True):
    """A request, and its answer as it came. Not `complete` means that the answer broke off."""

    version: int
    method: str
    target: str
    request_headers: HeaderList
    request_body: Part
    status: int
    headers: HeaderList
    head_at_s: float
    parts: tuple[Part, ...]
    complete: bool

    def key(self) -> str:
        """Return what requests that are alike share."""
        return _key(self.method, self.target, data_of(self.request_body))


def part(at_s: float, data: bytes) -> Part:
    """Return `data` as they are written."""
    try:
        return Part(at_s, text=data.decode())
    except UnicodeDecodeError:  # a character may go on in the next part
        return Part(at_s, base64=base64.b64encode(data).decode())


def data_of(written: Part) -> bytes:
    """Return the bytes of a part."""
    if written.text is not None:
        return written.text.encode()
    return base64.b64decode(written.base64 or "")


class Recorder:
    """Writes exchanges to a folder, for its owner only.

    Raises:
        ConfigError: the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--record {folder}: cannot be made: {error.strerror}") from error
        numbers = (int(path.stem) for path in folder.glob("*.json") if path.stem.isdecimal())
        self._number = max(numbers, default=0)  # those there are stay

    def number(self) -> int:
        """Return the number of an exchange that begins."""
        self._number += 1
        return self._number

    def write(self, number: int, exchange: Exchange) -> None:
        """Write an exchange that is over.

        Raises:
            OSError: it cannot be written.
        """
        path = self._folder / f"{number:06}.json"
        data = msgspec.json.format(msgspec.json.encode(exchange), indent=1)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "wb") as out:
            out.write(data)


def recorded_headers(headers: HeaderList) -> HeaderList:
    """Return `headers` without those that hold secrets."""
    return tuple((name, value) for name, value in headers if name not in SECRETS)


class Replayer:
    """Answers from the exchanges in a folder.

    Raises:
        ConfigError: there is no such folder, it holds none, or a file in it is not one.
    """

    def __init__(self, folder: Path) -> None:
        self._exchanges: dict[str, list[Exchange]] = {}
        paths = sorted(folder.glob("*.json"))
        if not paths:
            raise ConfigError(f"--replay {folder}: there are no recordings")
        for path in paths:
            try:
                exchange = msgspec.json.decode(path.read_bytes(), type=Exchange)
            except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
                raise ConfigError(f"--replay {path}: {error}") from error
            if exchange.version != VERSION:
                raise ConfigError(
                    f"--replay {path}: version {exchange.version}, expected {VERSION}"
                )
            self._exchanges.setdefault(exchange.key(), []).append(exchange)

    def find(self, request: Request) -> Exchange:
        """Return the next exchange for `request`.

        Raises:
            NotFound: none was recorded for a request like this.
        """
        found = self._exchanges.get(_key(request.method, request.target, request.body))
        if not found:
            raise NotFound(
                f"no recording of {request.method} {request.target} with this body",
                code="not_recorded",
            )
        return found.pop(0) if len(found) > 1 else found[0]


async def replay(
    exchange: Exchange, wait: Callable[[float], Awaitable[None]]
) -> AsyncGenerator[bytes, None]:
    """Yield the parts of a recorded body; `wait` is given the seconds before each.

    Raises:
        BrokenOff: the answer broke off there.
    """
    before_s = exchange.head_at_s
    for written in exchange.parts:
        await wait(written.at_s - before_s)
        before_s = written.at_s
        yield data_of(written)
    if not exchange.complete:
        raise BrokenOff("the recording breaks off here")


def _key(method: str, target: str, body: bytes) -> str:
    text = b"\0".join((method.encode(), target.encode("latin-1"), body))
    return hashlib.sha256(text).hexdigest()
