"""`streamtok chat`: a conversation in the terminal."""

import asyncio
import importlib.util
from contextlib import aclosing, suppress

from msgspec import Struct
from rich.console import Console
from rich.text import Text

from streamtok.api.openai import chat as chat_endpoint
from streamtok.app import App
from streamtok.http.edge.client import ClientError
from streamtok.serve.process import LOOP
from streamtok.serve.signals import interruptible
from streamtok.terminal.answers import Refused, Remote, connect
from streamtok.terminal.config import ChatConfig
from streamtok.terminal.generate import own_server
from streamtok.terminal.typewriter import Typewriter

Message = dict[str, str]

YOU, BOT = "you ", "bot "
HELP = {
    "/new": "start over, with an empty conversation",
    "/help": "show these lines",
    "/quit": "leave",
}
KEYS = {"Ctrl-C": "stop an answer", "Ctrl-D": "leave"}


def chat(config: ChatConfig) -> int:
    """Chat until the end of input; return the exit status.

    Raises:
        StreamtokError: the model cannot be loaded, or nobody answers at `--url`.
    """
    _enable_line_editing()
    console = Console(highlight=False, soft_wrap=True)
    with asyncio.Runner(loop_factory=LOOP) as runner:
        app = None if config.url else App(own_server(config))
        try:
            url = runner.run(app.start()) if app else config.url
            remote = runner.run(connect(url, config.api_key, config.model if config.url else ""))
            said = f"{remote.model or 'a model'} at {remote.url}; /help lists the commands"
            console.print(Text(said, "dim"))
            with interruptible():
                _Chat(runner, console, remote, config).talk()
        finally:
            if app:
                runner.run(app.stop())
    return 0


class _Chat(Struct, dict=True):
    """A conversation with someone who types."""

    runner: asyncio.Runner
    console: Console
    remote: Remote
    config: ChatConfig

    def talk(self) -> None:
        """Answer each line, until the end of input."""
        self._messages = self._opening()
        while True:
            try:
                line = input(_prompt(self.console)).strip()
            except EOFError:
                self.console.print()
                return
            except KeyboardInterrupt:
                self.console.print(Text(" Ctrl-D leaves", "dim"))
                continue
            if line == "/quit":
                return
            if line.startswith("/"):
                self._command(line)
            elif line:
                self._turn(line)

    def _opening(self) -> list[Message]:
        system = self.config.system
        return [{"role": "system", "content": system}] if system else []

    def _command(self, line: str) -> None:
        if line == "/new":
            self._messages = self._opening()
            return
        if line != "/help":
            self.console.print(Text(f"no command {line}; these are known:", "red"))
        for name, meaning in (HELP | KEYS).items():
            self.console.print(Text(f"{name:<8} {meaning}", "dim"))

    def _turn(self, line: str) -> None:
        self._messages.append({"role": "user", "content": line})
        if text := self._answer():
            self._messages.append({"role": "assistant", "content": text})
        else:
            self._messages.pop()

    def _answer(self) -> str:
        """Show the answer to the messages as it comes, and return it; empty if there was none."""
        self.console.print(Text(BOT, "bold green"), end="")
        shown: list[str] = []
        while self._messages:
            try:
                self.runner.run(self._show(shown))
            except KeyboardInterrupt:
                self.console.print(Text(" (stopped)", "dim"), end="")
            except Refused as error:
                if error.code == "context_length_exceeded" and self._forget():
                    continue
                self.console.print(Text(str(error), "red"), end="")
            except ClientError as error:
                self.console.print(Text(str(error), "red"), end="")
            break
        self.console.print()
        return "".join(shown)

    def _forget(self) -> bool:
        """Forget the oldest turn; what a system message says stays. False if there is no other."""
        first = len(self._opening())
        if len(self._messages) < first + 3:
            return False
        del self._messages[first : first + 2]
        return True

    async def _show(self, shown: list[str]) -> None:
        typewriter = Typewriter(len(BOT))
        asked = {"messages": self._messages, **self.config.sampling}
        async with aclosing(self.remote.ask(chat_endpoint.ENDPOINT, asked)) as answer:
            async for text in answer:
                shown.append(text)
                typewriter.write(text)


def _prompt(console: Console) -> str:
    """Return the prompt; readline counts what is not between \\001 and \\002."""
    if not (console.is_terminal and importlib.util.find_spec("readline")) or console.no_color:
        return YOU
    return f"\001\x1b[1;36m\002{YOU.strip()}\001\x1b[0m\002 "


def _enable_line_editing() -> None:
    with suppress(ImportError):
        import readline  # noqa: F401  importing it is what gives input() its history
