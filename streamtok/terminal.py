"""`streamtok chat` and `streamtok generate`: text as it is made, in a terminal.

Both read the same server-sent events that any client gets: `chat` over a socket, `generate`
straight from the endpoint, without a server.
"""

import asyncio
import errno
import json
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import fields, replace
from typing import Any

from rich.console import Console

from streamtok.api.openai import chat as chat_endpoint
from streamtok.api.openai import completions as completions_endpoint
from streamtok.api.routing import Api
from streamtok.app import App, load
from streamtok.clock import SystemClock
from streamtok.config import EngineConfig, ServeConfig
from streamtok.errors import StreamtokError
from streamtok.http.edge.client import ClientError, post
from streamtok.http.request import Request
from streamtok.http.sse import EventDecoder
from streamtok.ledger import Ledger
from streamtok.serve.process import LOOP
from streamtok.serve.signals import interruptible
from streamtok.settings import ChatConfig, GenerateConfig

Message = dict[str, str]


class Refused(StreamtokError):
    """The server answered with an error; `code` is its short reason."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(str(error.get("message", error)))
        self.code = error.get("code")


class OutputError(StreamtokError):
    """Standard output cannot be written, as on a full disk."""


async def deltas(body: AsyncGenerator[bytes, None]) -> AsyncIterator[str]:
    """Yield the text of each event in a stream of either endpoint.

    Raises:
        Refused: the stream ends in an error event.
    """
    decoder = EventDecoder()
    async with aclosing(body):
        async for data in body:
            for event in decoder.feed(data):
                if event.data == "[DONE]":
                    return
                chunk = json.loads(event.data)
                if "error" in chunk:
                    raise Refused(chunk["error"])
                for choice in chunk["choices"]:
                    yield choice.get("text") or choice.get("delta", {}).get("content") or ""


# generate


def generate(settings: GenerateConfig, prompt: str) -> int:
    """Write the answer to `prompt` to standard output; return the exit status."""
    given = {
        name: value
        for name in ("max_tokens", "temperature", "seed")
        if (value := getattr(settings, name)) is not None
    }
    if settings.raw:
        path, body = completions_endpoint.ENDPOINT, {"prompt": prompt, "max_tokens": 2**31}
    else:
        path, body = chat_endpoint.ENDPOINT, {"messages": [{"role": "user", "content": prompt}]}
    text = json.dumps({**body, **given, "stream": True})
    return asyncio.run(_generate(settings, path, text.encode()))


async def _generate(settings: EngineConfig, path: str, body: bytes) -> int:
    shared = {setting.name: getattr(settings, setting.name) for setting in fields(EngineConfig)}
    config = ServeConfig(**shared, ledger=":memory:")
    services = await load(config, Ledger(config.ledger), SystemClock())
    api = Api((*chat_endpoint.ROUTES, *completions_endpoint.ROUTES))
    api.open(services)
    try:
        response = await api.handle(Request("POST", path, (), body, "1.1", "terminal"))
        if isinstance(response.body, bytes):
            raise Refused(json.loads(response.body)["error"])
        async for text in deltas(response.body):
            _write(text)
        _write("\n")
    finally:
        await services.engine.close()
        await services.meter.close()
    return 0


def _write(text: str) -> None:
    """Write `text` to standard output at once.

    Raises:
        BrokenPipeError: nobody reads it any more.
        OutputError: it cannot be written.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        if error.errno in (errno.EPIPE, errno.EINVAL):  # Windows' word for it is the second
            raise BrokenPipeError from error
        raise OutputError(f"standard output: cannot be written: {error.strerror}") from error


# chat


def chat(config: ChatConfig) -> int:
    """Chat until the end of input; return the exit status."""
    _enable_line_editing()
    console = Console()
    with asyncio.Runner(loop_factory=LOOP) as runner:
        app = None
        if not config.url:
            app = App(ServeConfig(port=0, ledger=":memory:"))
            config = replace(config, url=runner.run(app.start()))
        console.print(
            f"[dim]{config.url} - Ctrl-C stops an answer, /new starts over, Ctrl-D leaves[/]"
        )
        try:
            with interruptible():
                _talk(runner, console, config)
        finally:
            if app:
                runner.run(app.stop())
    return 0


def _talk(runner: asyncio.Runner, console: Console, config: ChatConfig) -> None:
    opening = [{"role": "system", "content": config.system}] if config.system else []
    messages = list(opening)
    while True:
        try:
            line = console.input("[bold cyan]you[/] ").strip()
        except EOFError:
            console.print()
            return
        except KeyboardInterrupt:
            console.print("[dim] Ctrl-D leaves[/]")
            continue
        if line == "/new":
            messages = list(opening)
        elif line:
            messages.append({"role": "user", "content": line})
            if (text := _answer(runner, console, config, messages)) is None:
                messages.pop()
            else:
                messages.append({"role": "assistant", "content": text})


def _answer(
    runner: asyncio.Runner, console: Console, config: ChatConfig, messages: list[Message]
) -> str | None:
    """Show the answer to `messages` as it comes and return it; None if there was none."""
    console.print("[bold green]bot[/] ", end="")
    shown: list[str] = []
    while True:
        try:
            runner.run(_show(config, messages, shown))
        except KeyboardInterrupt:
            console.print(" [dim](stopped)[/]", end="")
        except Refused as error:
            if error.code == "context_length_exceeded" and len(messages) > 1:
                # Forget the oldest turn; what a system message says stays.
                del messages[1 if messages[0]["role"] == "system" and len(messages) > 2 else 0]
                continue
            console.print(f"[red]{error}[/]", end="", markup=True)
        except ClientError as error:
            console.print(f"[red]{error}[/]", end="")
        console.print()
        return "".join(shown) or None


async def _show(config: ChatConfig, messages: list[Message], shown: list[str]) -> None:
    """Write text to standard output as it arrives: the typewriter."""
    body = json.dumps({"messages": messages, "stream": True}).encode()
    key = (("authorization", f"Bearer {config.api_key}"),) if config.api_key else ()
    async with post(config.url, chat_endpoint.ENDPOINT, body, key) as answer:
        if answer.status != 200:
            raise Refused(json.loads(await answer.read())["error"])
        async for text in deltas(answer.body):
            shown.append(text)
            _write(text)


def _enable_line_editing() -> None:
    with suppress(ImportError):
        import readline  # noqa: F401  importing it is what gives input() its history
