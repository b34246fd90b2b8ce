"""The command line: `serve`, `chat` and `generate`. Each imports what it needs when it runs."""

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from streamtok import __version__, config
from streamtok.errors import StreamtokError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the process's exit status."""
    given = vars(_parser().parse_args(arguments))
    command = given.pop("command")
    try:
        status: int = command(given)
        return status
    except StreamtokError as error:
        print(f"streamtok: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def serve(given: dict[str, Any]) -> int:
    """Serve until a signal comes."""
    settings: config.ServeConfig = config.read(config.ServeConfig, given)
    _log_to_stderr(settings.log_level)
    run = asyncio.run
    try:
        import uvloop  # the extra "fast"
    except ImportError:
        pass
    else:
        run = uvloop.run
    return run(_serve(settings))


async def _serve(settings: config.ServeConfig) -> int:
    from streamtok.app import App

    stopping = asyncio.Event()
    signals = _Signals(stopping)
    app = App(settings)
    starting = asyncio.ensure_future(app.start())
    waiting = asyncio.ensure_future(stopping.wait())
    await asyncio.wait((starting, waiting), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.wait((starting,))
    try:
        if not starting.cancelled():
            print(f"streamtok is ready at {starting.result()}", flush=True)
            await waiting
    finally:
        waiting.cancel()
        await app.stop()
        signals.restore()
    return 0


class _Signals:
    """Sets `stopping` at the first SIGINT or SIGTERM; the second one ends the process at once."""

    def __init__(self, stopping: asyncio.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = stopping
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._stop, number)

    def _stop(self, number: signal.Signals) -> None:
        if self._stopping.is_set():
            raise SystemExit(128 + number)
        print("stopping: running streams may finish; once more to stop at once", file=sys.stderr)
        self._stopping.set()

    def restore(self) -> None:
        """Let signals do again what they did before."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.remove_signal_handler(number)


def chat(given: dict[str, Any]) -> int:
    """Talk to a server in the terminal."""
    from streamtok.terminal import chat

    return chat(given["url"], given["system"])


def generate(given: dict[str, Any]) -> int:
    """Write one answer to standard output."""
    from streamtok.terminal import generate

    settings: config.EngineConfig = config.read(config.EngineConfig, given)
    return generate(settings, given["prompt"], given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("streamtok", description="Stream a language model's tokens.")
    parser.add_argument("--version", action="version", version=f"streamtok {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    command = commands.add_parser("serve", help="serve the OpenAI API", description=serve.__doc__)
    command.set_defaults(command=serve)
    _add_settings(command, config.ServeConfig)
    command = commands.add_parser("chat", help="chat in the terminal", description=chat.__doc__)
    command.set_defaults(command=chat)
    command.add_argument("--url", help="a server's URL (default: one is started for the chat)")
    command.add_argument("--system", help="what the assistant is told before the chat")
    command = commands.add_parser(
        "generate", help="answer one prompt, without a server", description=generate.__doc__
    )
    command.set_defaults(command=generate)
    command.add_argument("prompt", help="what to answer; with --raw, the text to continue")
    command.add_argument("--raw", action="store_true", help="continue the prompt, do not chat")
    command.add_argument("--max-tokens", type=int, help="the most tokens to generate")
    command.add_argument("--temperature", type=float, help="0 takes the likeliest token always")
    command.add_argument("--seed", type=int, help="the same seed gives the same answer")
    _add_settings(command, config.EngineConfig)
    return parser


def _add_settings(command: argparse.ArgumentParser, kind: type[Any]) -> None:
    """Add a flag for each field of a config."""
    for setting in fields(kind):
        default = f" (default: {setting.default})" if setting.default not in ("", False) else ""
        options: dict[str, Any] = {"dest": setting.name, "default": None}
        if setting.default is False:
            options |= {"action": "store_const", "const": "true"}
        else:
            options |= {"metavar": "VALUE"}
        text = f"{setting.metadata['help']}{default} [{config.variable_name(setting)}]"
        command.add_argument(config.flag_name(setting), help=text.replace("%", "%%"), **options)


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("asyncio").setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
