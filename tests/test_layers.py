"""The layers of the package, as its imports must keep them; and that a violation is seen."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import streamtok

LAYERS = (  # a module imports from its own layer and from those after it
    ("__main__", "cli", "process", "pytest_plugin", "terminal", "testing", "workers"),
    ("app", "background", "teach"),
    ("api", "tracing"),
    ("http", "text", "engine", "ledger", "metrics"),
    ("model",),
    ("config", "messages", "errors", "clock", "ids", "__init__"),
)
STRANGERS = LAYERS[3]  # do not import each other
ONLY_IN = {  # library -> where it may be imported
    "h11": ("http/",),
    "jinja2": ("text/", "testing/"),
    "opentelemetry": ("tracing/spans.py",),
    "numpy": ("model/", "engine/", "testing/"),
    "sqlite3": ("ledger.py",),
    "tokenizers": ("text/", "testing/"),
}
SYNCHRONOUS = (
    "api/event_faults.py",
    "api/faults.py",
    "model/",
    "text/",
    "engine/backlog.py",
    "engine/logprobs.py",
    "engine/runner.py",
    "engine/sampler.py",
    "engine/scheduler.py",
    "engine/sequence.py",
    "http/notes.py",
    "http/wire.py",
    "teach/behaviour.py",
    "teach/chunks.py",
    "teach/events.py",
    "teach/eventstream.py",
    "teach/framing.py",
    "teach/lab.py",
    "teach/learn.py",
    "teach/lesson.py",
    "teach/lessons/",
    "teach/progress.py",
    "teach/recording.py",
    "teach/rules.py",
    "teach/screen.py",
    "teach/totals.py",
)
PACKAGE = Path(streamtok.__file__).parent
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def imports(tree: ast.Module) -> Iterator[str]:
    """Yield the full name of all that is imported, within functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def rank(unit: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if unit in layer)


def unit_of(parts: list[str]) -> str:
    """Return the module or subpackage of streamtok that a name, split at its dots, belongs to."""
    known = len(parts) > 1 and any(parts[1] in layer for layer in LAYERS)
    return parts[1] if known else "__init__"


def violations(path: str, source: str) -> Iterator[str]:
    """Yield what is wrong with the module at `path`, relative to the package."""
    tree = ast.parse(source)
    if not ast.get_docstring(tree):
        yield "no docstring"
    own = path.split("/")[0].removesuffix(".py")
    for name in imports(tree):
        parts = name.split(".")
        if not path.startswith(ONLY_IN.get(parts[0], "")):
            yield f"{parts[0]} is not for this module"
        elif parts[0] == "asyncio" and path.startswith(SYNCHRONOUS):
            yield "asyncio in a synchronous module"
        elif parts[0] == "":
            yield f"{name}: a relative import"
        elif parts[0] == "streamtok":
            yield from wrong_way(own, unit_of(parts))


def wrong_way(own: str, other: str) -> Iterator[str]:
    """Yield what forbids `own` to import `other`."""
    if other == own:
        return
    if other == "testing" and own != "pytest_plugin":
        yield "testing is for tests"
    elif rank(other) < rank(own):
        yield f"{other} is above {own}"
    elif own in STRANGERS and other in STRANGERS:
        yield f"{other} is not {own}'s business"


@pytest.mark.parametrize("path", MODULES)
def test_a_module_keeps_to_its_layer(path: str) -> None:
    assert list(violations(path, (PACKAGE / path).read_text("utf-8"))) == []


@pytest.mark.parametrize(
    ("path", "line", "words"),
    [
        ("errors.py", "", "no docstring"),
        ("errors.py", "from streamtok.model import weights", "model is above errors"),
        ("messages.py", "import streamtok.api.chat", "api is above messages"),
        ("model/config.py", "from streamtok.engine.base import Engine", "engine is above model"),
        ("model/config.py", "from streamtok import app", "app is above model"),
        ("engine/local.py", "from streamtok.api.generation import Job", "api is above engine"),
        ("http/server.py", "from streamtok.text import stops", "text is not http's business"),
        ("text/stops.py", "from streamtok import engine", "engine is not text's business"),
        ("ledger.py", "from streamtok.metrics import Metrics", "metrics is not ledger's business"),
        ("api/chat.py", "from streamtok.app import App", "app is above api"),
        ("app.py", "def f():\n    from streamtok.cli import main", "cli is above app"),
        ("cli.py", "from streamtok.testing import FakeClock", "testing is for tests"),
        ("api/chat.py", "from . import answers", "..answers: a relative import"),
        ("api/chat.py", "import h11", "h11 is not for this module"),
        ("api/chat.py", "from jinja2.sandbox import X", "jinja2 is not for this module"),
        ("http/sse.py", "import numpy as np", "numpy is not for this module"),
        ("api/services.py", "import sqlite3", "sqlite3 is not for this module"),
        ("engine/local.py", "from tokenizers import X", "tokenizers is not for this module"),
        ("engine/scheduler.py", "import asyncio", "asyncio in a synchronous module"),
        ("model/decoder.py", "from asyncio import sleep", "asyncio in a synchronous module"),
    ],
)
def test_a_violation_is_seen(path: str, line: str, words: str) -> None:
    source = f'"""A module."""\n{line}\n' if line else "x = 1\n"
    assert list(violations(path, source)) == [words]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("http/connection.py", "from http import HTTPStatus\nfrom streamtok import __version__"),
        ("cli.py", "from streamtok.terminal import chat"),
        ("engine/local.py", "import asyncio, numpy\nfrom streamtok.model.decoder import Decoder"),
        ("testing/models.py", "import numpy, tokenizers\nfrom streamtok.app import App"),
    ],
)
def test_what_keeps_to_its_layer_is_let_through(path: str, line: str) -> None:
    assert list(violations(path, f'"""A module."""\n{line}\n')) == []
