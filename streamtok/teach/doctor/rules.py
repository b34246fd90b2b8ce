"""What a rule is, and what it finds. The rules themselves are small functions in tables.

Read next: `streamtok.teach.doctor.framing` (HTTP), `streamtok.teach.doctor.events` (server-sent
events), `streamtok.teach.doctor.chunks` and `streamtok.teach.doctor.totals` (OpenAI's schema),
`streamtok.teach.doctor.behaviour` (more than one answer).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Literal, TypeVar

from msgspec import Struct

Seen = TypeVar("Seen")
Severity = Literal["error", "warning"]


class Rule(Struct, Generic[Seen], frozen=True):
    """`check` yields what was seen of each breach, in the order of the bytes.

    `says` is the rule, `source` who made it, `breaks` which client suffers, `fix` what to do.
    """

    name: str
    severity: Severity
    says: str
    source: str
    breaks: str
    fix: str
    check: Callable[[Seen], Iterator[str]]


class Finding(Struct, frozen=True):
    """A rule that was broken, `count` times, while `probe` was asked; `seen` the first time."""

    rule: str
    severity: Severity
    probe: str
    seen: str
    count: int
    says: str
    source: str
    breaks: str
    fix: str


def rule(
    severity: Severity, *, source: str, breaks: str, fix: str
) -> Callable[[Callable[[Seen], Iterator[str]]], Rule[Seen]]:
    """Make a rule of a function: its name is the rule's, its docstring what the rule says."""

    def make(check: Callable[[Seen], Iterator[str]]) -> Rule[Seen]:
        name = check.__name__.replace("_", "-")
        return Rule(name, severity, (check.__doc__ or "").strip(), source, breaks, fix, check)

    return make


def findings(rules: Iterable[Rule[Seen]], seen: Seen, probe: str) -> Iterator[Finding]:
    """Yield what `rules` find in what a probe has seen, one finding for each rule."""
    for one in rules:
        if breaches := list(one.check(seen)):
            yield Finding(
                one.name,
                one.severity,
                probe,
                breaches[0],
                len(breaches),
                one.says,
                one.source,
                one.breaks,
                one.fix,
            )
