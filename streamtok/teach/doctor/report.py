"""What the doctor found, for people or as JSON; and the command itself."""

import asyncio
import json

from msgspec import to_builtins
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from streamtok.teach.doctor.examine import Report, compare, examine
from streamtok.teach.doctor.http import examine_http
from streamtok.teach.doctor.pace import NOBODY, measured, timeline, times_of, verdict
from streamtok.teach.doctor.probe import target
from streamtok.teach.doctor.rules import Finding

TIMELINE_COLUMNS = 64
COLOURS = {"error": "bold red", "warning": "bold yellow"}


def doctor(
    url: str, *, model: str | None, key: str, timeout_s: float, as_json: bool, http: bool = False
) -> int:
    """Examine the server at `url` and print the report; return 1 if there are errors, else 0.

    With `http`, its HTTP/1.1 is examined instead of its streams.

    Raises:
        ConfigError: this is no URL.
        Unreachable: nobody listens there.
    """
    where = target(url, key, timeout_s)
    report = asyncio.run(examine_http(url, where) if http else examine(url, where, model))
    if as_json:
        print(json.dumps({**to_builtins(report), "failed": report.failed}, indent=2))
    else:
        render(report, Console(highlight=False))
    return 1 if report.failed else 0


def compare_ways(direct: str, via: str, *, model: str | None, key: str, timeout_s: float) -> int:
    """Ask a server directly and through what stands before it, and print who holds bytes back.

    Returns 1 if somebody does, else 0.

    Raises:
        ConfigError: one of these is no URL.
        Unreachable: nobody listens there.
    """
    targets = [target(url, key, timeout_s) for url in (direct, via)]
    paces = asyncio.run(compare(targets[0], targets[1], model))
    console = Console(highlight=False)
    end_s = max((times[-1] for pace in paces if (times := times_of(pace.long))), default=0.0)
    for name, url, pace in zip(("direct", "via"), (direct, via), paces, strict=True):
        line = f"[bold]{name:<7}[/]{escape(url)}: {measured(pace.long)}"
        console.print(line, soft_wrap=True)
        console.print(f"       |{timeline(pace.long, TIMELINE_COLUMNS, end_s)}|", markup=False)
    found = verdict(*paces)
    held = found != NOBODY
    console.print(f"[bold {'red' if held else 'green'}]{escape(found)}[/]")
    return 1 if held else 0


def render(report: Report, console: Console) -> None:
    """Print a report for people."""
    model = f", model {escape(report.model)}" if report.model else ""
    console.print(f"[bold]{escape(report.url)}[/]{model}")
    for finding in report.findings:
        _render_finding(finding, console)
    if report.findings:
        console.print()
    if report.timing:
        gaps = ", ".join(f"{k} {1000 * gap:.1f}" for k, gap in report.timing.gaps_s.items())
        console.print(
            f"[dim]{report.timing.events} events with text, the first after "
            f"{1000 * report.timing.first_token_s:.1f} ms; gaps in ms: {gaps or 'none'}[/]"
        )
    for what, why in report.unchecked.items():
        console.print(f"[dim]not checked: {escape(what)}: {escape(why)}[/]")
    errors = sum(finding.severity == "error" for finding in report.findings)
    counts = f"{_count(errors, 'error')}, {_count(len(report.findings) - errors, 'warning')}"
    colour = "red" if errors else "green"
    console.print(f"[bold {colour}]{len(report.checked)} rules checked: {counts}[/]")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _render_finding(finding: Finding, console: Console) -> None:
    times = f" ({finding.count} times)" if finding.count > 1 else ""
    console.print(
        f"\n[{COLOURS[finding.severity]}]{finding.severity}[/] [bold]{finding.rule}[/]{times}: "
        f"{escape(finding.says)}"
    )
    lines = (
        ("seen", f"{finding.seen} [in: {finding.probe}]"),
        ("rule", finding.source),
        ("breaks", finding.breaks),
        ("fix", finding.fix),
    )
    for name, text in lines:
        console.print(Padding(f"[dim]{name:<7}[/]{escape(text)}", (0, 0, 0, 2), expand=False))
