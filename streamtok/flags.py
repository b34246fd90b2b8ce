"""Settings as flags of a command, in groups; and what was probably meant by one that is unknown."""

import argparse
import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import Field, fields
from typing import Any, NoReturn

from streamtok.settings import choices, flag_name, variable_name

GROUPS = {  # the class of a setting -> its heading in the help
    "ListenConfig": "where to listen",
    "ClassConfig": "a class",
    "TalkConfig": "server and sampling",
    "EngineConfig": "model and engine",
    "ApiConfig": "API: keys, rates, streams",
    "ConnectionConfig": "limits of connections and requests",
    "ServeConfig": "server",
    "ProxyConfig": "proxy",
    "TraceConfig": "trace",
}
UNITS = {"s": "SECONDS", "bytes": "BYTES"}  # the end of a setting's name -> its metavar
METAVARS = {
    "admin_keys": "NAMES",
    "allowed_hosts": "NAMES",
    "api_key": "KEY",
    "api_keys": "FILE",
    "certfile": "FILE",
    "cors_origins": "ORIGINS",
    "forwarded_allow_ips": "ADDRESSES",
    "host": "ADDRESS",
    "keyfile": "FILE",
    "kv_memory": "SIZE",
    "ledger": "FILE",
    "ledger_days": "DAYS",
    "min_body_rate": "BYTES",
    "model": "FOLDER",
    "model_alias": "NAMES",
    "port": "PORT",
    "ray_address": "ADDRESS",
    "progress": "FILE",
    "record": "FOLDER",
    "replay": "FOLDER",
    "root_path": "PATH",
    "script": "FILE",
    "system": "TEXT",
    "trace_file": "FILE",
    "trace_pcapng": "FILE",
    "uds": "PATH",
    "url": "URL",
}

Run = Callable[[dict[str, Any]], int]  # what a command does with its values; returns a status
Fill = Callable[[argparse.ArgumentParser], None]


class Parser(argparse.ArgumentParser):
    """The command line; what a command does not know is an error with that command's usage."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._rows = self.add_subparsers(
            metavar="COMMAND",
            required=True,
            dest="command_name",
            parser_class=argparse.ArgumentParser,
        )
        self._commands: dict[str, argparse.ArgumentParser] = self._rows.choices
        self._unfilled: dict[str, Fill] = {}

    def add_command(
        self, run: Run, summary: str, fill: Fill, name: str = "", about: str = ""
    ) -> None:
        """Add a command, whose arguments `fill` adds to its parser when they are needed."""
        name = name or run.__name__
        command = self._rows.add_parser(name, help=summary, description=about or run.__doc__)
        command.set_defaults(command=run)
        self._unfilled[name] = fill

    @property
    def commands(self) -> dict[str, argparse.ArgumentParser]:
        """The parser of each command, by its name."""
        for name in [*self._unfilled]:
            self._fill(name)
        return self._commands

    def _fill(self, name: str) -> None:
        if fill := self._unfilled.pop(name, None):
            fill(self._commands[name])

    def read(self, arguments: Sequence[str] | None) -> dict[str, Any]:
        """Return the values by name, `command` among them. Raises SystemExit where one is wrong."""
        arguments = sys.argv[1:] if arguments is None else arguments
        self._check_first(arguments)
        self._fill(arguments[0] if arguments else "")
        found, unknown = self.parse_known_args(arguments)
        given = vars(found)
        command = self._commands[given.pop("command_name")]
        if unknown:
            command.error(_unknown(command, unknown))
        return given

    def _check_first(self, arguments: Sequence[str]) -> None:
        """Refuse a flag that stands before the command, where only this parser's own may be."""
        name = arguments[0].partition("=")[0] if arguments else ""
        if not name.startswith("-") or name in _flags(self):
            return
        knowing = [key for key, command in self.commands.items() if name in _flags(command)]
        if knowing:
            self.error(f"{name} is a flag of a command: streamtok {knowing[0]} {name} ...")
        self.error(f"unknown flag {name}{_meant(name, _flags(self))}")

    def error(self, message: str) -> NoReturn:
        """Show the usage and what was wrong, with what was probably meant; exit with 2."""
        wrong = message.partition("invalid choice: '")[2].partition("'")[0]
        if wrong:
            names = ", ".join(self._commands)
            message = f"unknown command {wrong!r}{_meant(wrong, self._commands)}; one of {names}"
        super().error(message)


def _unknown(command: argparse.ArgumentParser, unknown: Sequence[str]) -> str:
    """Return what to say of arguments that `command` does not know."""
    flags = _flags(command)
    first = unknown[0]
    if not first.startswith("-"):
        port = first.isdecimal() and "--port" in flags
        return f"unexpected argument {first!r}" + (f"; --port {first}?" if port else "")
    name = first.partition("=")[0]
    return f"unknown flag {name}{_meant(name, flags)}"


def _flags(parser: argparse.ArgumentParser) -> list[str]:
    return [flag for action in parser._actions for flag in action.option_strings]


def _meant(wrong: str, known: Iterable[str]) -> str:
    """Return the question whether the nearest of `known` was meant; nothing if none is near."""
    from difflib import get_close_matches  # most command lines have nothing wrong

    names = list(known)
    longer = [name for name in names if len(wrong) > 2 and name.startswith(wrong)]
    near = longer[:1] or get_close_matches(wrong.lower().replace("_", "-"), names, 1, 0.6)
    return f"; did you mean {near[0]}?" if near else ""


def add_settings(command: argparse.ArgumentParser, kind: type[Any]) -> None:
    """Add a flag for each field of a config; those of each class it is made of are a group."""
    groups: dict[str, Any] = {}
    for setting in sorted(fields(kind), key=lambda setting: _rank(kind, setting)):
        title = GROUPS.get(_declared_in(kind, setting), "")
        if title not in groups:
            groups[title] = command.add_argument_group(title) if title else command
        groups[title].add_argument(flag_name(setting), **_options(kind, setting))


def _rank(kind: type[Any], setting: Field[Any]) -> int:
    """Return where a field's group stands among the others; first if it has none."""
    return [*GROUPS].index(name) if (name := _declared_in(kind, setting)) in GROUPS else -1


def _declared_in(kind: type[Any], setting: Field[Any]) -> str:
    """Return the name of the class that declares a field of `kind`."""
    return next(c.__name__ for c in kind.__mro__ if setting.name in inspect.get_annotations(c))


def _options(kind: type[Any], setting: Field[Any]) -> dict[str, Any]:
    """Return how argparse is to take a field, and what its help says."""
    shown = setting.default not in ("", False, None)
    default = f" (default: {setting.default})" if shown else ""
    text = f"{setting.metadata['help']}{default} [{variable_name(setting)}]"
    options: dict[str, Any] = {"dest": setting.name, "default": None}
    options["help"] = text.replace("%", "%%")
    if setting.default is False:
        return options | {"action": "store_const", "const": "true"}
    return options | {"metavar": _metavar(kind, setting)}


def _metavar(kind: type[Any], setting: Field[Any]) -> str:
    """Return what stands for a field's value in the help: its choices, its unit, or its kind."""
    if values := choices(kind, setting.name):
        return "{" + ",".join(values) + "}"
    unit = setting.name.rpartition("_")[2]
    return METAVARS.get(setting.name) or UNITS.get(unit) or "N"
