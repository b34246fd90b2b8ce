"""The command line: a function for each subcommand, which imports what it needs when it runs."""

import logging
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from streamtok import __version__
from streamtok.config import ServeConfig
from streamtok.errors import ConfigError, StreamtokError
from streamtok.flags import Parser, add_settings
from streamtok.settings import read, secret

if TYPE_CHECKING:
    from streamtok.engine.remote.early import EarlyProcess

INTERRUPTED = 130  # what a shell reports of a program that Ctrl-C has ended


def main(arguments: Sequence[str] | None = None, early: "EarlyProcess | None" = None) -> int:
    """Run a command; return the process's exit status. Who started an `early` process closes it."""
    given = _parser().read(arguments)
    command = given.pop("command")
    try:
        status: int = serve(given, early) if command is serve else command(given)
        return status
    except StreamtokError as error:
        print(f"streamtok: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED


def serve(given: dict[str, Any], early: "EarlyProcess | None" = None) -> int:
    """Serve until a signal comes."""
    settings = _serve_config(given)
    _log_to_stderr(settings)
    if settings.workers > 1:
        from streamtok.serve.workers import supervise

        return supervise(settings, _announce)
    from streamtok.app import App
    from streamtok.serve.process import attach_signals, run

    return run(lambda: App(settings, early=early), attach_signals, _announce)


def serve_config(flags: Sequence[str]) -> ServeConfig:
    """Return the settings that flags of `serve` give, as tests do that start a server themselves.

    Raises:
        ConfigError: a flag is not known, or its value is wrong.
    """
    try:
        return _serve_config(_parser().read(["serve", *flags]))
    except SystemExit as error:
        raise ConfigError(
            f"streamtok serve does not know these flags: {' '.join(flags)}"
        ) from error


def _serve_config(given: dict[str, Any]) -> ServeConfig:
    return read(ServeConfig, given)


def _announce(url: str) -> None:
    print(f"streamtok is ready at {url}", flush=True)


def key(given: dict[str, Any]) -> int:
    """Show a new API key on standard error, and write its line for the key file to the output."""
    from streamtok.api.access.keys import new_key

    made, line = new_key(given["name"])
    print(f"the key, which nobody can show again: {made}", file=sys.stderr)
    print(line)
    return 0


def chat(given: dict[str, Any]) -> int:
    """Talk to a server in the terminal."""
    from streamtok.terminal.chat import chat
    from streamtok.terminal.config import ChatConfig

    return chat(read(ChatConfig, given))


def generate(given: dict[str, Any]) -> int:
    """Write one answer to standard output."""
    from streamtok.terminal.config import GenerateConfig
    from streamtok.terminal.generate import generate

    return generate(read(GenerateConfig, given), given["prompt"])


def doctor(given: dict[str, Any]) -> int:
    """Check the streams of a server that speaks OpenAI's API, this one or another."""
    from streamtok.teach.doctor.report import compare_ways, doctor

    if given["via"]:
        direct = given["direct"] or given["url"]
        if not direct:
            raise ConfigError("--via: needs --direct, the URL of the same server itself")
        return compare_ways(
            direct,
            given["via"],
            model=given["model"],
            key=secret(given["key_env"]),
            timeout_s=given["timeout"],
        )
    if not given["url"] or given["direct"]:
        raise ConfigError("doctor: expected a URL, or --direct URL --via URL")
    return doctor(
        given["url"],
        model=given["model"],
        key=secret(given["key_env"]),
        timeout_s=given["timeout"],
        as_json=given["json"],
        http=given["http"],
    )


def learn(given: dict[str, Any]) -> int:
    """Learn how streaming works: lessons with a live server, and exercises that build one."""
    from streamtok.serve.signals import interruptible
    from streamtok.teach.config import ClassConfig, LearnConfig

    settings, words = read(LearnConfig, given), given["lessons"]
    if given["classroom"]:
        from streamtok.serve.process import attach_signals, run
        from streamtok.teach.classroom.app import ClassApp

        config = read(ClassConfig, given)
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
        return run(lambda: ClassApp(config), attach_signals, _announce)
    if words[:1] == ["build"]:
        from streamtok.teach.build.learn import build

        with interruptible():
            return build(settings, words[1:], hint=given["hint"], solution=given["solution"])
    from streamtok.teach.lessons.learn import learn, list_lessons

    with interruptible():
        return list_lessons(settings) if given["list"] else learn(settings, words)


def proxy(given: dict[str, Any]) -> int:
    """Stand between a client and any HTTP server: trace, record, replay, check, break streams."""
    from streamtok.proxy.app import ProxyApp
    from streamtok.proxy.config import ProxyConfig
    from streamtok.serve.process import attach_signals, run

    settings = read(ProxyConfig, given)
    logging.basicConfig(
        level=settings.log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(message)s",
    )
    app = ProxyApp(settings, given["upstream"])
    status = run(lambda: app, attach_signals, _announce)
    return 1 if app.failed else status


def completion(given: dict[str, Any]) -> int:
    """Print a script by which a shell completes flags; see `streamtok help terminal`."""
    from streamtok.completion import script

    print(script(_parser(), given["shell"]))
    return 0


def corpus(given: dict[str, Any]) -> int:
    """Write streams as files, with the events that a right parser gets from them."""
    from pathlib import Path

    from streamtok.corpus.write import corpus

    return corpus(Path(given["folder"]), given["seed"])


def help_on(given: dict[str, Any]) -> int:
    """Print a help topic, or the list of topics."""
    from streamtok.help import show

    return show(given["topic"])


def _parser() -> Parser:
    parser = Parser("streamtok", description="Stream a language model's tokens.")
    parser.add_argument("--version", action="version", version=f"streamtok {__version__}")
    add = parser.add_command
    about = "Serve until a signal comes. More on these flags: streamtok help settings"
    add(serve, "serve the OpenAI API", lambda to: add_settings(to, ServeConfig), about=about)
    about = f"{key.__doc__} serve --api-keys reads the line."
    add(key, "make an API key", _add_key_arguments, about=about)
    add(chat, "chat in the terminal", _add_chat_flags)
    add(generate, "answer one prompt, with or without a server", _add_generate_arguments)
    add(doctor, "check the streams of any server", _add_doctor_flags)
    add(proxy, "stand between a client and any server", _add_proxy_arguments)
    add(corpus, "streams as files, to test parsers", _add_corpus_arguments)
    add(learn, "learn how streaming works", _add_learn_flags)
    add(completion, "let a shell complete flags", _add_completion_arguments)
    add(help_on, "the reference, by topic", _add_help_arguments, name="help")
    return parser


def _add_key_arguments(command: ArgumentParser) -> None:
    command.add_argument("name", help="what the key is called in the ledger and the metrics")


def _add_chat_flags(command: ArgumentParser) -> None:
    from streamtok.terminal.config import ChatConfig

    add_settings(command, ChatConfig)


def _add_generate_arguments(command: ArgumentParser) -> None:
    from streamtok.terminal.config import GenerateConfig

    command.add_argument("prompt", help="what to answer; with --raw, the text to continue")
    add_settings(command, GenerateConfig)


def _add_proxy_arguments(command: ArgumentParser) -> None:
    from streamtok.proxy.config import ProxyConfig

    about = "the server, such as https://api.example.com"
    command.add_argument("upstream", nargs="?", default="", help=about)
    add_settings(command, ProxyConfig)


def _add_corpus_arguments(command: ArgumentParser) -> None:
    command.add_argument("folder", help="where to write them; new or empty")
    about = "where bodies are to be cut (default: 0)"
    command.add_argument("--seed", metavar="N", type=int, default=0, help=about)


def _add_completion_arguments(command: ArgumentParser) -> None:
    command.add_argument("shell", metavar="{bash,fish,zsh,tcsh}", help="for which shell")


def _add_help_arguments(command: ArgumentParser) -> None:
    command.add_argument("topic", nargs="?", metavar="TOPIC", help="see `streamtok help`")


def _add_doctor_flags(command: ArgumentParser) -> None:
    add = command.add_argument
    add("url", nargs="?", help="such as http://127.0.0.1:8000, with or without /v1")
    add("--direct", metavar="URL", help="with --via: the server itself")
    about = "the same server through a proxy: who holds bytes back?"
    add("--via", metavar="URL", help=about)
    add("--model", metavar="NAME", help="model to request (default: the first that is listed)")
    add("--key-env", metavar="NAME", default="", help="variable that holds the API key")
    about = "how long to wait for a read (default: 60)"
    add("--timeout", metavar="SECONDS", type=float, default=60.0, help=about)
    add("--json", action="store_true", help="write the report as JSON")
    about = "check the HTTP/1.1 of any server instead: framing, smuggling, requests cut anywhere"
    add("--http", action="store_true", help=about)


def _add_learn_flags(command: ArgumentParser) -> None:
    from streamtok.teach.config import ClassConfig, LearnConfig

    add = command.add_argument
    about = "lessons (default: all that are left); or `build NUMBER [FILE]`: an exercise"
    add("lessons", nargs="*", metavar="NUMBER", help=about)
    add("--list", action="store_true", help="name the lessons and exercises")
    add("--class", dest="classroom", action="store_true", help="lessons for a room of people")
    add_settings(command, ClassConfig)
    add("--hint", action="store_true", help="of an exercise: the next hint")
    add("--solution", action="store_true", help="of an exercise: print one")
    add_settings(command, LearnConfig)


def _log_to_stderr(settings: ServeConfig) -> None:
    process = " [%(process)d]" if settings.workers > 1 else ""
    logging.basicConfig(
        level=settings.log_level.upper(),
        stream=sys.stderr,
        format=f"%(asctime)s{process} %(levelname)s %(message)s",
    )
    logging.getLogger("asyncio").setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
