"""The tables that invented stories are made from, and which of their subjects are kept back.

What it does: reads `words.toml`, `subjects.toml` and the plots, and draws the held-out subjects and
plots. What it does not do: tell a story (read `world.py` next).
"""

import tomllib
import zlib
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any

from .grammar import Section, parse_sections

HELD_OUT_SEED = "2026-11-27"
SUBJECTS_HELD_OUT = 10  # one in so many of every list of subjects.toml
CLAUSES_HELD_OUT = 6  # the same of the clauses, as there are few
PLOTS_HELD_OUT = 12  # one in so many of the plots without an object
NUMBER_HELD_OUT = "five"  # no training story is about five of anything
ANY = "any"  # the group of objects of which no special use is known


def is_drawn(name: str, one_in: int) -> bool:
    """Whether a name is among those kept back: by its hash, so that the lists may grow."""
    return zlib.crc32(f"{HELD_OUT_SEED} {name}".encode()) % one_in == 0


def split_list(text: str) -> tuple[str, ...]:
    """`"a, b,\\nc"` -> `("a", "b", "c")`."""
    return tuple(" ".join(item.split()) for item in text.split(",") if item.strip())


@dataclass(frozen=True)
class Thing:
    """An object: its noun, the group that says what it is good for, and how it may look."""

    noun: str
    group: str
    looks: tuple[str, ...]
    is_large: bool


@dataclass(frozen=True)
class Place:
    """A place: `preposition` says how one is there ("in", "at", "on", "by")."""

    noun: str
    preposition: str


@dataclass(frozen=True)
class Vocabulary:
    """Either what training stories are made from, or what only held-out ones are about.

    `kinds` are animals and people, `thing_heroes` things that think, `plurals` plural nouns,
    `clauses` what follows "who", with how it ends for the hero; `names` are by pronoun.
    """

    kinds: tuple[str, ...]
    gender_of: dict[str, str]
    thing_heroes: tuple[str, ...]
    thing_traits: tuple[str, ...]
    plurals: tuple[str, ...]
    numbers: tuple[str, ...]
    clauses: dict[str, str]
    names: dict[str, tuple[str, ...]]
    traits: tuple[str, ...]
    things: dict[str, Thing]
    places: dict[str, Place]
    unique: frozenset[str]
    themes: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Library:
    """All that stories are made from: subjects to train on, subjects kept back, and plots."""

    training: Vocabulary
    held_out: Vocabulary
    sections: dict[str, Section]

    @cached_property
    def plots(self) -> list[Section]:
        """All whole plots that are trained on."""
        return [s for s in self.sections.values() if s.is_plot and not is_held_out_plot(s)]

    @cached_property
    def held_out_plots(self) -> list[Section]:
        """The plots that no training story has."""
        return [s for s in self.sections.values() if s.is_plot and is_held_out_plot(s)]


def is_held_out_plot(plot: Section) -> bool:
    """Whether a plot is kept back; those of `plots.txt`, marked "object", never are."""
    return "object" not in plot.flags and is_drawn(plot.name, PLOTS_HELD_OUT)


def read_toml(name: str) -> dict[str, Any]:
    """A table that stands beside this module."""
    return tomllib.loads((files(__package__) / name).read_text(encoding="utf-8"))


def read_sections() -> dict[str, Section]:
    """The plots with an object, those without, and those of things, with all they refer to."""
    sections: dict[str, Section] = {}
    for name, flag in (("plots.txt", "object"), ("tales.txt", "tale"), ("things.txt", "")):
        found = parse_sections((files(__package__) / name).read_text(encoding="utf-8"))
        if repeated := sections.keys() & found.keys():
            raise ValueError(f"{name} has sections that another file has: {sorted(repeated)}")
        for section in found.values():
            section.flags |= {flag} - {""}
        sections |= found
    return sections


def chosen(
    old: tuple[str, ...], new: tuple[str, ...], held_out: bool, one_in: int = SUBJECTS_HELD_OUT
) -> tuple[str, ...]:
    """The subjects to train on, or those kept back, which are all new and not in the old list."""
    kept_back = tuple(name for name in new if is_drawn(name, one_in))
    if held_out:
        return tuple(name for name in kept_back if name not in old)
    return (*old, *(name for name in new if name not in kept_back and name not in old))


def read_things(words: dict[str, Any], more: dict[str, Any], held_out: bool) -> dict[str, Thing]:
    """Objects by their noun."""
    large = split_list(words["objects"]["large"])
    groups = {name: table for name, table in words["objects"].items() if name != "large"}
    known = {
        noun: Thing(noun, group, split_list(table["looks"]), noun in large)
        for group, table in groups.items()
        for noun in split_list(table["nouns"])
    }
    looks, nouns = split_list(more["things"]["looks"]), split_list(more["things"]["nouns"])
    found = chosen(tuple(known), nouns, held_out)
    return {noun: known.get(noun) or Thing(noun, ANY, looks, is_large=False) for noun in found}


def read_clauses(text: str, held_out: bool) -> dict[str, str]:
    """What may follow "who", with the sentence that ends such a story."""
    ends = dict(line.split(": ", 1) for line in text.strip().splitlines())
    return {c: ends[c] for c in chosen((), tuple(ends), held_out, CLAUSES_HELD_OUT)}


def read_vocabulary(held_out: bool) -> Vocabulary:
    """The subjects to train on, or those kept back; places, traits and themes are common."""
    words, more = read_toml("words.toml"), read_toml("subjects.toml")

    def both(*path: str) -> tuple[str, ...]:
        old, new = words, more
        for key in path:
            old, new = old.get(key, {}), new.get(key, {})
        lists = [split_list(part) if isinstance(part, str) else () for part in (old, new)]
        return chosen(lists[0], lists[1], held_out)

    he, she = both("kinds", "he"), both("kinds", "she")
    places = {name: text for name, text in words["places"].items() if name != "unique"}
    kinds = (*both("kinds", "animals"), *both("kinds", "water_animals"), *he, *she)
    numbers = split_list(more["plurals"]["numbers"])
    return Vocabulary(
        kinds=(*kinds, *both("kinds", "people")),
        gender_of=dict.fromkeys(he, "he") | dict.fromkeys(she, "she"),
        thing_heroes=both("things_as_heroes", "nouns"),
        thing_traits=split_list(more["things_as_heroes"]["traits"]),
        plurals=both("plurals", "nouns"),
        numbers=(NUMBER_HELD_OUT,) if held_out else numbers,
        clauses=read_clauses(more["clauses"]["who"], held_out),
        names={gender: both("names", gender) for gender in ("she", "he")},
        traits=tuple(trait for group in words["traits"].values() for trait in split_list(group)),
        things=read_things(words, more, held_out),
        places={
            noun: Place(noun, preposition)
            for preposition, nouns in places.items()
            for noun in split_list(nouns)
        },
        unique=frozenset(
            (
                *split_list(words["places"]["unique"]),
                *split_list(more["things_as_heroes"]["unique"]),
            )
        ),
        themes={
            theme: split_list(names) for theme, names in (words["themes"] | more["themes"]).items()
        },
    )


def load_library() -> Library:
    """Read all tables and plots."""
    return Library(read_vocabulary(held_out=False), read_vocabulary(held_out=True), read_sections())
