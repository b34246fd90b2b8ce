"""`streamtok help`: the reference, one Markdown file per topic, shown in the terminal.

Not an introduction, which is README.md, and no documentation of code. `streamtok.cli` calls `show`.
"""

import difflib
import sys
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from streamtok.errors import ConfigError

FOLDER = Path(__file__).parent
TOPICS = {  # in the order in which they are listed
    "using the API": (
        *("clients", "endpoints", "completions", "structured", "tools", "responses"),
        *("embeddings", "anthropic", "framings", "streams", "usage", "terminal"),
    ),
    "running the server": (
        *(
            "settings",
            "limits",
            "keys",
            "operating",
            "proxies",
            "systemd",
            "cluster",
            "performance",
        ),
    ),
    "testing and learning": (
        "testing",
        "script",
        "faults",
        "corpus",
        "doctor",
        "proxy",
        "trace",
        "lessons",
        "class",
    ),
}


def names() -> list[str]:
    """Return the names of all topics, in order."""
    return [name for group in TOPICS.values() for name in group]


def text(name: str) -> str:
    """Return the Markdown of a topic.

    Raises:
        ConfigError: there is no such topic; says which are similar or mention it.
    """
    if name not in names():
        near = difflib.get_close_matches(name, names(), cutoff=0.7)
        near += [one for one in names() if name.lower() in text(one).lower()]
        found = f"look at: {', '.join(dict.fromkeys(near))}" if near else "see: streamtok help"
        raise ConfigError(f"no help topic {name!r}; {found}")
    return (FOLDER / f"{name}.md").read_text("utf-8")


def summary(name: str) -> str:
    """Return a topic's first paragraph, which says in one line what it is about."""
    return text(name).split("\n\n")[1].replace("\n", " ").replace("`", "")


def show(name: str | None) -> int:
    """Print a topic, or the list of topics; return the exit status.

    In a terminal it is rendered; a pipe or a file gets the Markdown as it is.
    """
    if name is None:
        print(_list())
    elif sys.stdout.isatty():
        Console().print(Markdown(text(name)))
    else:
        print(text(name), end="")
    return 0


def _list() -> str:
    lines = ["streamtok help TOPIC"]
    for title, group in TOPICS.items():
        lines += ["", f"{title}:", *(f"  {name:<12} {summary(name)}" for name in group)]
    return "\n".join(lines)
