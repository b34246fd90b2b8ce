"""The layers and rooms of the package, as its imports must keep them; and that a violation is seen.

The heart is what one streamed answer runs through. Rooms are what stands around it: they import
the heart, and the heart does not import them; `streamtok.app` plugs them in.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import streamtok

LAYERS = (  # a module imports from its own layer and from those after it
    (
        *("__main__", "cli", "completion", "corpus", "flags", "help", "pytest_plugin"),
        *("terminal", "testing"),
    ),
    ("app", "startup", "first", "proxy", "serve", "teach"),
    ("api", "faults", "observe", "postgres", "script", "settings"),
    ("answer",),
    ("http", "text", "engine", "ledger", "metrics"),
    ("model",),
    ("config", "messages", "errors", "clock", "ids", "__init__"),
)
SEPARATE = LAYERS[4]  # do not import each other
COMPOSITION = ("app.py", "startup.py", "model/load.py")  # plug rooms into the heart
HEART = (
    *("first/", "answer/", "api/", "engine/", "http/", "model/", "text/"),
    *("config.py", "messages.py", "errors.py", "clock.py", "ids.py", "metrics.py", "ledger.py"),
)
ROOMS = (
    *(
        "answer/direct/",
        "http/edge/",
        "engine/remote/",
        "engine/extras/",
        "engine/cluster/",
        "model/families/",
    ),
    *("model/gpt/", "model/machine/", "model/wide/", "text/long/", "text/templates/"),
    *(
        "text/tool_calls/",
        "api/access/",
        "api/constraints/",
        "api/input/",
        "api/responses/",
        "api/anthropic/",
    ),
    *(
        "api/more/",
        "corpus/",
        "faults/",
        "help/",
        "observe/",
        "postgres/",
        "proxy/",
        "script/",
        "serve/",
    ),
    *("teach/", "terminal/", "testing/"),
    "api/resume/",
)
ONLY_IN = {  # library -> where it may be imported
    "h11": ("http/", "first/"),
    "jinja2": ("text/", "testing/"),
    "opentelemetry": ("observe/spans.py",),
    "numpy": ("model/", "engine/", "testing/", "first/", "teach/lessons/forward.py"),
    "ray": ("engine/cluster/ray.py",),
    "psycopg": ("postgres/",),
    "psycopg_pool": ("postgres/",),
    "sqlite3": ("ledger.py",),
    "tokenizers": ("text/", "testing/", "first/"),
}
SYNCHRONOUS = (
    "faults/events.py",
    "faults/catalogue.py",
    "model/",
    "text/",
    "engine/extras/",
    "engine/fairness.py",
    "engine/plan.py",
    "engine/prefix_cache.py",
    "engine/runner.py",
    "engine/sampler.py",
    "engine/scheduler.py",
    "engine/sequence.py",
    "observe/annotate.py",
    "observe/annotations.py",
    "observe/reader.py",
    "teach/doctor/behaviour.py",
    "teach/doctor/chunks.py",
    "teach/doctor/desync.py",
    "teach/doctor/events.py",
    "teach/doctor/eventstream.py",
    "teach/doctor/framing.py",
    "teach/doctor/pace.py",
    "teach/doctor/recording.py",
    "teach/doctor/resumption.py",
    "teach/doctor/rules.py",
    "teach/doctor/totals.py",
    *("teach/lessons/learn.py", "teach/lessons/lesson.py", "teach/progress.py"),
    "teach/lessons/screen.py",
)
PACKAGE = Path(streamtok.__file__).parent
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
NAMES = {
    path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in MODULES
}


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


def module_of(parts: list[str]) -> str:
    """Return the path of the module that a name, split at its dots, belongs to."""
    for end in range(len(parts), 1, -1):
        if path := NAMES.get(".".join(parts[1:end])):
            return path
    return "__init__.py"


def room_of(path: str) -> str | None:
    """Return the room that the module at `path` is in; None for the heart and for `app`."""
    return next((room for room in ROOMS if path.startswith(room)), None)


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
            yield from wrong_room(path, module_of(parts))


def wrong_way(own: str, other: str) -> Iterator[str]:
    """Yield what forbids `own` to import `other`."""
    if other == own:
        return
    if other == "testing" and own != "pytest_plugin":
        yield "testing is for tests"
    elif rank(other) < rank(own):
        yield f"{other} is above {own}"
    elif own in SEPARATE and other in SEPARATE:
        yield f"{other} is separate from {own}"


def wrong_room(path: str, other: str) -> Iterator[str]:
    """Yield what forbids the module at `path`, if of the heart, to import the one at `other`."""
    in_heart = path.startswith(HEART) and room_of(path) is None and path not in COMPOSITION
    room = room_of(other)
    if in_heart and room:
        yield f"{room} is a room, {path} is of the heart"


@pytest.mark.parametrize("path", MODULES)
def test_a_module_keeps_to_its_layer(path: str) -> None:
    assert list(violations(path, (PACKAGE / path).read_text("utf-8"))) == []


@pytest.mark.parametrize(
    ("path", "line", "words"),
    [
        ("errors.py", "", "no docstring"),
        ("errors.py", "from streamtok.model import weights", "model is above errors"),
        ("messages.py", "import streamtok.api.openai.chat", "api is above messages"),
        ("model/config.py", "from streamtok.engine.base import Engine", "engine is above model"),
        ("model/config.py", "from streamtok import app", "app is above model"),
        ("engine/local.py", "from streamtok.answer.meter import Meter", "answer is above engine"),
        ("http/server.py", "from streamtok.text import stops", "text is separate from http"),
        ("text/stops.py", "from streamtok import engine", "engine is separate from text"),
        ("ledger.py", "from streamtok.metrics import Metrics", "metrics is separate from ledger"),
        (
            "http/server.py",
            "from streamtok.http.edge.tls import x",
            "http/edge/ is a room, http/server.py is of the heart",
        ),
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
        ("cli.py", "from streamtok.terminal.chat import chat"),
        ("engine/local.py", "import asyncio, numpy\nfrom streamtok.model.decoder import Decoder"),
        ("testing/models.py", "import numpy, tokenizers\nfrom streamtok.app import App"),
    ],
)
def test_what_keeps_to_its_layer_is_let_through(path: str, line: str) -> None:
    assert list(violations(path, f'"""A module."""\n{line}\n')) == []
