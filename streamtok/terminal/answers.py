"""A server's streamed answers as text: where it is, which model it has, and what it refuses."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from streamtok.errors import ConfigError, StreamtokError
from streamtok.http.edge.client import ClientError, exchange
from streamtok.http.response import Body, chunks_of
from streamtok.http.sse import EventDecoder

MODELS = "/v1/models"
PATIENCE_S = 10.0  # for the first sign that somebody answers at a URL
LOCKED = (401, 403)


class Refused(StreamtokError):
    """The server answered with an error; `code` is its short reason."""

    def __init__(self, error: Any) -> None:
        fields: Mapping[str, Any] = error if isinstance(error, Mapping) else {"message": error}
        super().__init__(str(fields.get("message", error)))
        self.code = fields.get("code")


class Unreachable(StreamtokError):
    """Nobody answers at a URL, or not in HTTP."""


async def deltas(body: Body) -> AsyncGenerator[str, None]:
    """Yield the text of each event in a stream of either endpoint.

    Raises:
        Refused: the stream ends in an error event, or has an event that is not OpenAI's.
    """
    decoder = EventDecoder()
    async with aclosing(body):
        async for item in body:
            for event in decoder.feed(b"".join(chunks_of(item))):
                if event.data == "[DONE]":
                    return
                for text in _texts(event.data):
                    yield text


def _texts(data: str) -> list[str]:
    """Return the text of each choice in one event. Raises Refused."""
    try:
        chunk = json.loads(data)
        if "error" in chunk:
            raise Refused(chunk["error"])
        return [
            choice.get("text") or choice.get("delta", {}).get("content") or ""
            for choice in chunk["choices"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"the server sent what is no event of OpenAI's API: {data:.60}") from error


class Remote(Struct, frozen=True):
    """A server that answers at `url`; `model` is the one to request, empty for its default."""

    url: str
    api_key: str
    model: str

    async def ask(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[str, None]:
        """Yield the text of a streamed answer, as it comes.

        Raises:
            Refused: the server answers with an error.
            ClientError: the server cannot be reached, or breaks off.
        """
        named = {"model": self.model} if self.model else {}
        data = json.dumps({**named, **body, "stream": True}).encode()
        async with exchange(self.url, "POST", path, data, _key(self.api_key)) as answer:
            if answer.status != 200:
                raise _refusal(answer.status, await answer.read())
            async for text in deltas(answer.body):
                yield text


async def connect(url: str, api_key: str, model: str = "") -> Remote:
    """Return the server at `url`, once it has said that it is there.

    `model` may be a name or a model's folder. Without one, it is the first that the server lists.

    Raises:
        ConfigError: `url` is none.
        Unreachable: nobody answers there.
        Refused: an API key is needed, or the one given is wrong.
    """
    base = _base(url)
    try:
        async with (
            asyncio.timeout(PATIENCE_S),
            exchange(base, "GET", MODELS, headers=_key(api_key)) as answer,
        ):
            status, body = answer.status, await answer.read()
    except TimeoutError as error:
        raise Unreachable(f"{url}: nobody answers within {PATIENCE_S:g} seconds") from error
    except ClientError as error:
        raise Unreachable(str(error)) from error
    if status in LOCKED:
        raise _refusal(status, body)
    return Remote(base, api_key, _name(model) or _first_model(body))


def _base(url: str) -> str:
    """Return `url` without `/v1`, which paths begin with. Raises ConfigError."""
    text = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is none
        usable = False
    if not usable:
        raise ConfigError(f"--url: expected a URL such as http://127.0.0.1:8000, found {url!r}")
    return text.rstrip("/").removesuffix("/v1")


def _name(model: str) -> str:
    """Return a model's name; that of a folder is its last part, as this server calls its own."""
    return Path(model).resolve().name if model and Path(model).is_dir() else model


def _first_model(body: bytes) -> str:
    """Return the first id in a list of models; nothing where there is no such list."""
    try:
        return str(json.loads(body)["data"][0]["id"])
    except (ValueError, LookupError, TypeError):
        return ""


def _refusal(status: int, body: bytes) -> Refused:
    """Return the error in an answer's body, or what can be said of one that has none."""
    hint = "; the key is set by --api-key or STREAMTOK_API_KEY" if status in LOCKED else ""
    try:
        error = json.loads(body)["error"]
        message = error["message"] if isinstance(error, dict) else error
    except (ValueError, LookupError, TypeError):
        return Refused(f"the server answered {status}{hint}")
    code = error.get("code") if isinstance(error, dict) else None
    return Refused({"message": f"{message}{hint}", "code": code})


def _key(api_key: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {api_key}"),) if api_key else ()
