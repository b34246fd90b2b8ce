"""`streamtok generate`: one answer on standard output."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import fields
from typing import Any

from streamtok.api.openai import chat as chat_endpoint
from streamtok.api.openai import completions as completions_endpoint
from streamtok.api.routing import Api
from streamtok.app import load
from streamtok.clock import SystemClock
from streamtok.config import EngineConfig, ServeConfig
from streamtok.http.edge.client import ClientError
from streamtok.http.request import Request
from streamtok.ledger import Ledger
from streamtok.terminal.answers import Refused, Unreachable, connect, deltas
from streamtok.terminal.config import GenerateConfig
from streamtok.terminal.typewriter import Typewriter

ALL_THAT_FIT = {"max_tokens": 2**31}  # for an endpoint whose default is 16


def generate(settings: GenerateConfig, prompt: str) -> int:
    """Write the answer to `prompt` to standard output; return the exit status.

    Raises:
        StreamtokError: the model cannot be loaded, or the server cannot be asked.
    """
    body: dict[str, Any] = {"messages": [{"role": "user", "content": prompt}]}
    path = chat_endpoint.ENDPOINT
    if settings.raw:
        body = {"prompt": prompt, **({} if settings.url else ALL_THAT_FIT)}
        path = completions_endpoint.ENDPOINT
    asked = {**body, **settings.sampling}
    answer = _remote(settings, path, asked) if settings.url else _local(settings, path, asked)
    asyncio.run(_show(answer))
    return 0


async def _show(answer: AsyncGenerator[str, None]) -> None:
    typewriter = Typewriter()
    async with aclosing(answer):
        async for text in answer:
            typewriter.write(text)
    typewriter.write("\n")


async def _remote(
    settings: GenerateConfig, path: str, asked: Mapping[str, Any]
) -> AsyncGenerator[str, None]:
    """Yield what the server at `--url` answers."""
    remote = await connect(settings.url, settings.api_key, settings.model)
    try:
        async for text in remote.ask(path, asked):
            yield text
    except ClientError as error:
        raise Unreachable(str(error)) from error


async def _local(
    settings: EngineConfig, path: str, asked: Mapping[str, Any]
) -> AsyncGenerator[str, None]:
    """Yield what the endpoint answers in this process, without a server."""
    body = json.dumps({**asked, "stream": True}).encode()
    config = own_server(settings)
    services = await load(config, Ledger(config.ledger), SystemClock())
    api = Api((*chat_endpoint.ROUTES, *completions_endpoint.ROUTES))
    api.open(services)
    try:
        response = await api.handle(Request("POST", path, (), body, "1.1", "terminal"))
        if isinstance(response.body, bytes):
            raise Refused(json.loads(response.body)["error"])
        async for text in deltas(response.body):
            yield text
    finally:
        await services.engine.close()
        await services.meter.close()


def own_server(settings: EngineConfig) -> ServeConfig:
    """Return the settings of a server for this command alone."""
    shared = {setting.name: getattr(settings, setting.name) for setting in fields(EngineConfig)}
    return ServeConfig(**shared, port=0, ledger=":memory:")
