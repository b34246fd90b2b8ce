"""A small generative grammar: named sections of alternative blocks, read from a text file.

What it does: reads `plots.txt` and expands a section into one text in which only the `{slots}` are
left open. What it does not do: know what the slots mean (read `world.py` next, which fills them).
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

HEADER = re.compile(r"== (plot )?([a-z -]+?)((?: @[a-z]+)*)(?: : (.*))?$")
CHOICE = re.compile(r"\[([^\[\]]*)\]")
REFERENCE = re.compile(r"<([a-z-]+)>")


@dataclass
class Section:
    """One named section; `flags`, `themes` and `gist` are given to whole plots only."""

    name: str
    is_plot: bool = False
    flags: frozenset[str] = frozenset()
    themes: tuple[str, ...] = ()
    gist: str = ""
    blocks: list[list[str]] = field(default_factory=list)


def parse_sections(source: str) -> dict[str, Section]:
    """The sections of a grammar file by name."""
    sections: dict[str, Section] = {}
    section = Section("")
    for line in source.splitlines():
        match = HEADER.match(line)
        if match:
            plot, name, flags, themes = match.groups()
            section = Section(
                name,
                bool(plot),
                frozenset(flags.replace("@", "").split()),
                tuple((themes or "").split(", ")) if themes else (),
                blocks=[[]],
            )
            sections[name] = section
        elif not line.strip():
            section.blocks.append([])
        elif line.startswith("~ "):
            section.gist = line[2:]
        elif not line.startswith("#"):
            section.blocks[-1].append(line)
    for section in sections.values():
        section.blocks = [block for block in section.blocks if block]
    return sections


def choose_inline(text: str, rng: random.Random) -> str:
    """Resolve every `[a|b|c]`, innermost first."""
    while CHOICE.search(text):
        text = CHOICE.sub(lambda match: rng.choice(match.group(1).split("|")), text)
    return text


def expand(
    sections: dict[str, Section], name: str, variants: Sequence[str], rng: random.Random
) -> str:
    """One text from the section `name`, or from its special case `name variant` where there is one.

    Lines are joined by spaces; "--" becomes a line break. Raises KeyError for an unknown section.
    """
    special = [f"{name} {variant}" for variant in variants if f"{name} {variant}" in sections]
    lines = []
    for line in rng.choice(sections[special[0] if special else name].blocks):
        if line.startswith("? "):
            if rng.random() < 0.5:
                continue
            line = line[2:]
        line = "\n" if line == "--" else choose_inline(line, rng)
        lines.append(REFERENCE.sub(lambda m: expand(sections, m.group(1), variants, rng), line))
    return re.sub(r" +", " ", re.sub(r" *\n *", "\n", " ".join(lines)))
