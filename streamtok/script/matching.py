"""Whether a rule is for a request. Pure. Read next: `streamtok.script.lines`."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from msgspec import Struct

from streamtok.script.rules import Match

TEXTS = ("chat", "completions", "responses", "messages", "generate")  # endpoints with a text
SHOWN = 60  # characters of a message


class Asked(Struct, frozen=True):
    """What rules look at of a request; `text` and `role` are the last message's.

    `results` are those of tools since the last answer.
    """

    endpoint: str
    model: str
    text: str
    role: str
    system: str
    results: Sequence[str]
    tools: Sequence[str]
    turn: int
    headers: Mapping[str, str]
    stream: bool

    def __str__(self) -> str:
        text = self.text if len(self.text) <= SHOWN else f"{self.text[:SHOWN]}..."
        tools = f"the tools {', '.join(self.tools)}" if self.tools else "no tools"
        return (
            f"{self.endpoint}, model {self.model!r}, turn {self.turn}, last message of the "
            f"{self.role}: {text!r}, {tools}, {'streamed' if self.stream else 'not streamed'}"
        )


def differences(match: Match, asked: Asked) -> Iterator[str]:
    """Yield the keys of `match` that do not hold for a request."""
    endpoints = _list(match.endpoint or TEXTS)
    held: Sequence[tuple[str, object, Callable[[], bool]]] = (
        ("endpoint", endpoints, lambda: asked.endpoint in endpoints),
        (
            "model",
            match.model,
            lambda: any(fnmatchcase(asked.model, m) for m in _list(match.model)),
        ),
        ("contains", match.contains, lambda: all(t in asked.text for t in _list(match.contains))),
        ("regex", match.regex, lambda: bool(re.search(match.regex or "", asked.text))),
        ("role", match.role, lambda: match.role == asked.role),
        ("system", match.system, lambda: all(t in asked.system for t in _list(match.system))),
        ("tool_results", match.tool_results, lambda: _came(match.tool_results, asked.results)),
        ("tools", match.tools, lambda: _offers(match.tools or [], asked.tools)),
        ("turn", match.turn, lambda: match.turn == asked.turn),
        ("headers", match.headers, lambda: _has(match.headers or {}, asked.headers)),
        ("stream", match.stream, lambda: match.stream == asked.stream),
    )
    yield from (key for key, wanted, holds in held if wanted is not None and not holds())


def _list(one_or_more: str | Sequence[str] | None) -> Sequence[str]:
    return [one_or_more] if isinstance(one_or_more, str) else one_or_more or ()


def _came(wanted: str | Sequence[str] | None, results: Sequence[str]) -> bool:
    texts = _list(wanted)
    return all(any(text in one for one in results) for text in texts) if texts else not results


def _offers(wanted: Sequence[str], offered: Sequence[str]) -> bool:
    return set(wanted) <= set(offered) if wanted else not offered


def _has(wanted: Mapping[str, str], headers: Mapping[str, str]) -> bool:
    return all(fnmatchcase(headers.get(name.lower(), ""), value) for name, value in wanted.items())
