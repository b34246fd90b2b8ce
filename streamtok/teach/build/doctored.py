"""Exercise 6: make the doctor happy."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

from streamtok.teach.build.exercise import Exercise, Wrong
from streamtok.teach.build.program import serving
from streamtok.teach.doctor.examine import Report, examine
from streamtok.teach.doctor.probe import target

PATIENCE_S = 5.0


def grade(file: Path) -> Iterator[str]:
    """Have the doctor examine the server; what it finds first is what is wrong."""
    report = diagnose(file)
    yield f"the doctor has checked {len(report.checked)} rules"
    if not report.findings:
        yield "it has found nothing"
        return
    first = min(report.findings, key=lambda finding: finding.severity != "error")
    others = [finding.rule for finding in report.findings if finding is not first]
    more = f" Then: {', '.join(others)}." if others else ""
    raise Wrong(
        f"{first.severity} {first.rule}: {first.says} Seen: {first.seen}. It breaks "
        f"{first.breaks}. Fix: {first.fix}.{more}"
    )


def diagnose(file: Path) -> Report:
    """Return what the doctor says of a learner's server. Raises Wrong."""
    with serving(file) as program:
        url = "http://{}:{}".format(*program.address)
        return asyncio.run(examine(url, target(url, "", PATIENCE_S)))


EXERCISE = Exercise(
    name="doctored",
    title="Make the doctor happy",
    task=(
        "The file is a server of OpenAI's API that works with some clients. Mend `FIELDS`, "
        "`events` and `refusal` until `streamtok doctor` finds nothing: each finding says which "
        "rule, who is hurt, and what to do."
    ),
    hints=(
        "One answer is one object: `id` and `created` are the same in all its events.",
        (
            "The first event has the role, the last one before `[DONE]` the finish_reason; with "
            "`stream_options.include_usage` comes one more, with `choices: []` and `usage`."
        ),
        'An error has its own status and `{"error": {"message", "type", "param", "code"}}`.',
    ),
    real=(
        "Each rule of the doctor stands for servers that broke it: `streamtok help doctor`. "
        "xinference's first event had no content, which Spring AI refuses (xorbitsai/inference "
        "#1113); a hosted server answered errors with 200, and clients hung "
        "(huggingface/text-generation-inference #1896)."
    ),
    grade=grade,
)
