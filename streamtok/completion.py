"""`streamtok completion`: a script by which a shell completes commands, flags and their values."""

from importlib import import_module
from itertools import chain
from typing import Any

from streamtok import help as pages
from streamtok.errors import ConfigError
from streamtok.flags import Parser

FILES, FOLDERS = ("FILE", "PATH"), ("FOLDER",)  # metavars whose values are names of these


def script(parser: Parser, shell: str) -> str:
    """Return the script for `shell`.

    Raises:
        ConfigError: the extra is not installed, or there is no script for that shell.
    """
    try:
        shtab: Any = import_module("shtab")
    except ImportError as error:
        raise ConfigError("completion needs the library shtab: pip install shtab") from error
    if shell not in shtab.SUPPORTED_SHELLS:
        known = ", ".join(shtab.SUPPORTED_SHELLS)
        raise ConfigError(f"completion: expected one of {known}, found {shell!r}")
    found = [*parser._actions, *chain.from_iterable(c._actions for c in parser.commands.values())]
    for action in found:
        _say_values(action, shtab)
    return str(shtab.complete(parser, shell))


def _say_values(action: Any, shtab: Any) -> None:
    """Say which values an argument has, for shtab: files, folders, or a choice of words."""
    metavar = action.metavar or ""
    if metavar in FILES:
        action.complete = shtab.FILE
    elif metavar in FOLDERS:
        action.complete = shtab.DIRECTORY
    elif metavar == "TOPIC":
        action.choices = pages.names()
    elif metavar.startswith("{"):
        action.choices = metavar.strip("{}").split(",")
