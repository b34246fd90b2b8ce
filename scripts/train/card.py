"""Prints the measured parts of the model card, in Markdown, from the figures of `evaluate.py`.

    python scripts/train/card.py figures.json --before old.json

It chooses nothing: the samples are every so many-th answer. The rest of the card is written by
hand.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

SHOWN = {"stories": 4, "protocol": 6, "talk": 4, "follow-ups": 3}
TITLES = {
    "stories": "stories on kept-back subjects in kept-back phrasings",
    "protocol": "questions about HTTP streaming and the server, in kept-back phrasings",
    "talk": "small talk and things it cannot know, in kept-back phrasings",
    "follow-ups": "second requests after a story",
}


def percent(share: float) -> str:
    """`0.914` -> `"91 %"`."""
    return f"{100 * share:.0f} %"


def checks_table(figures: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """A row for every check, with the share that passes it, now and with the model before."""
    lines = ["| | answers | this model | the one before |", "| --- | ---: | ---: | ---: |"]
    for kind, summary in figures["summaries"].items():
        old = before["summaries"][kind]
        lines.append(
            f"| **{TITLES[kind]}**: pass all checks | {summary['answers']} "
            f"| **{percent(summary['good'])}** | {percent(old['good'])} |"
        )
        lines += [
            f"| {name.replace('_', ' ')} | | {percent(share)} | {percent(old[name])} |"
            for name, share in summary.items()
            if name not in ("answers", "good")
        ]
    plots, old_plots = figures["plots"], before["plots"]
    lines.append(
        f"| plots among ten seeds of a request, least and mean | {len(plots)} "
        f"| {min(plots)}, {sum(plots) / len(plots):.1f} "
        f"| {min(old_plots)}, {sum(old_plots) / len(old_plots):.1f} |"
    )
    chats, old_chats = figures["long_chats"], before["long_chats"]
    lines.append(
        f"| chats in which five stories in a row end | {len(chats)} "
        f"| {sum(n == 5 for n in chats)} | {sum(n == 5 for n in old_chats)} |"
    )
    return lines


def bits_table(figures: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """A row for every held-out source, with bits per byte."""
    others = [name for name in next(iter(figures.values())) if name not in ("bytes", "model")]
    lines = [
        f"| source | bytes | this model | the one before | {' | '.join(others)} |",
        "| --- | ---: | ---: | ---: |" + " ---: |" * len(others),
    ]
    for source, row in figures.items():
        columns = " | ".join(f"{row[name]:.2f}" for name in others)
        old = before[source]["model"]
        lines.append(
            f"| {source} | {row['bytes']:,} | **{row['model']:.2f}** | {old:.2f} | {columns} |"
        )
    return lines


def samples(answers: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Every so many-th answer of each kind, with its seed and what the checks said."""
    lines = []
    for kind, count in SHOWN.items():
        step = max(1, len(answers[kind]) // count)
        for answer in answers[kind][::step][:count]:
            text = answer["text"].strip().replace("\n", "  \n> ")
            failed = [name for name, found in answer.items() if found is False and name != "good"]
            verdict = "passes all checks" if answer["good"] else f"fails: {', '.join(failed)}"
            lines += [f"> **{answer['request']}** (seed {answer['seed']})", ">", f"> {text}", ">"]
            lines += [f"> *{answer['tokens']} tokens; {verdict}*", ""]
    return lines


def main() -> None:
    """Print the tables and the samples."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figures", type=Path)
    parser.add_argument("--before", type=Path, required=True, help="figures of the model before")
    arguments = parser.parse_args()
    figures = json.loads(arguments.figures.read_text("utf-8"))
    before = json.loads(arguments.before.read_text("utf-8"))
    parts = [
        checks_table(figures, before),
        bits_table(figures["bits_per_byte"], before["bits_per_byte"]),
        samples(figures["answers"]),
    ]
    print("\n\n".join("\n".join(part) for part in parts))


if __name__ == "__main__":
    main()
