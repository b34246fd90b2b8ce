"""Invents short stories about what was asked for.

What it does: casts a small world (a hero, a friend, a stranger, an object, three places, a season),
picks a plot that fits it, and tells it, keeping track of who has been introduced, which pronouns
belong to whom, and what the object is good for. What it does not do: phrase the request (see
`prompts.py`). The plots stand in `plots.txt`, the vocabulary in `words.toml`; read `grammar.py`
next for how they are expanded.
"""

import random
import re
import tomllib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files

from .grammar import Section, expand, parse_sections
from .subjects import with_article

SHORTEST_STORY = 430  # characters
LONGEST_STORY = 1300  # characters
HELD_OUT_ONE_IN = 25
MOST_ATTEMPTS = 20_000
OFTEN = 4  # how much likelier than others a plot marked "often" is
PRONOUNS = {"she": ("she", "her", "her", "herself"), "he": ("he", "him", "his", "himself")}
SEASONS = {
    "spring": "bright, fresh, green, mild, rainy",
    "summer": "warm, golden, sunny, long, quiet",
    "autumn": "windy, misty, grey, golden, cool",
    "winter": "cold, frosty, snowy, clear, icy",
}
LATER = ("one day", "a few days later", "then one afternoon", "some time later", "one evening")
LOUD = ("music", "mend", "dig", "ride", "toy")
HANDY_TOOLS = ("music", "paint", "mend", "dig", "toy", "ride", "boat")
SLOT = re.compile(r"\{([A-Za-z_0-9]+)\}")


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
class Wish:
    """What a story was asked to be about; empty strings are left to chance."""

    hero: str = ""
    friend: str = ""
    thing: str = ""
    place: str = ""
    theme: str = ""
    trait: str = ""
    look: str = ""

    @property
    def nouns(self) -> tuple[str, ...]:
        """The subjects that the story must mention, without articles."""
        return tuple(n for n in (self.hero, self.friend, self.thing, self.place) if n)


@dataclass(frozen=True)
class Character:
    """A character in a story: kind ("fox"), name (or nothing), trait and pronouns."""

    kind: str
    name: str
    trait: str
    gender: str

    @property
    def reference(self) -> str:
        """How the story speaks of the character once introduced."""
        return self.name or f"the {self.kind}"


@dataclass(frozen=True)
class Vocabulary:
    """The tables of `words.toml` and the sections of `plots.txt`."""

    kinds: tuple[str, ...]
    water_kinds: frozenset[str]
    gender_of: dict[str, str]
    names: dict[str, tuple[str, ...]]
    traits: tuple[str, ...]
    things: dict[str, Thing]
    places: dict[str, Place]
    unique_places: frozenset[str]
    themes: dict[str, tuple[str, ...]]
    sections: dict[str, Section]

    @property
    def plots(self) -> list[Section]:
        """All whole plots, those marked "often" several times."""
        return [
            section
            for section in self.sections.values()
            if section.is_plot
            for _ in range(OFTEN if "often" in section.flags else 1)
        ]


def load_vocabulary() -> Vocabulary:
    """Read the tables that stand beside this module."""
    folder = files(__package__)
    words = tomllib.loads((folder / "words.toml").read_text(encoding="utf-8"))
    kinds, objects, places = words["kinds"], words["objects"], words["places"]
    large = split_list(objects.pop("large"))
    unique = frozenset(split_list(places.pop("unique")))
    he, she = split_list(kinds["he"]), split_list(kinds["she"])
    water = split_list(kinds["water_animals"])
    return Vocabulary(
        kinds=(*split_list(kinds["animals"]), *water, *he, *she, *split_list(kinds["people"])),
        water_kinds=frozenset(water),
        gender_of=dict.fromkeys(he, "he") | dict.fromkeys(she, "she"),
        names={gender: split_list(names) for gender, names in words["names"].items()},
        traits=tuple(trait for group in words["traits"].values() for trait in split_list(group)),
        things={
            noun: Thing(noun, group, split_list(table["looks"]), noun in large)
            for group, table in objects.items()
            for noun in split_list(table["nouns"])
        },
        places={
            noun: Place(noun, preposition)
            for preposition, nouns in places.items()
            for noun in split_list(nouns)
        },
        unique_places=unique,
        themes={theme: split_list(names) for theme, names in words["themes"].items()},
        sections=parse_sections((folder / "plots.txt").read_text(encoding="utf-8")),
    )


def is_held_out(first: str, second: str) -> bool:
    """Whether this pair of subjects is kept for evaluation; about one pair in 25 is."""
    return zlib.crc32(" + ".join(sorted((first, second))).encode()) % HELD_OUT_ONE_IN == 0


class World:
    """The cast and the state of one story."""

    def __init__(self, wish: Wish, words: Vocabulary, rng: random.Random) -> None:
        self.words, self.rng = words, rng
        self.names_taken: set[str] = set()
        self.hero = self._cast(wish.hero, wish.trait, "", ())
        other = "he" if self.hero.gender == "she" else "she"
        self.friend = self._cast(wish.friend, "", other, (self.hero.kind,))
        self.stranger = self._cast("", "", "", (self.hero.kind, self.friend.kind))
        self.thing = words.things[wish.thing or rng.choice(list(words.things))]
        looks = [look for look in self.thing.looks if look not in self.thing.noun]
        self.look = wish.look or (rng.choice(looks) if rng.random() < 0.6 else "")
        self.places = self._choose_places(wish.place)
        self.season = rng.choice(list(SEASONS))
        self.introduced: set[str] = set()

    def _cast(self, kind: str, trait: str, gender: str, taken: tuple[str, ...]) -> Character:
        rng, words = self.rng, self.words
        kind = kind or rng.choice([k for k in words.kinds if k not in taken])
        gender = words.gender_of.get(kind) or gender or rng.choice(("she", "he"))
        is_named = rng.random() < 0.75
        free = [name for name in words.names[gender] if name not in self.names_taken]
        name = rng.choice(free) if is_named else ""
        self.names_taken.add(name)
        return Character(kind, name, trait or rng.choice(words.traits), gender)

    def _choose_places(self, wanted: str) -> list[Place]:
        rng, words = self.rng, self.words
        chosen = rng.sample(list(words.places.values()), 4)
        chosen = [place for place in chosen if place.noun != wanted][:3]
        if wanted:
            chosen[0] = words.places[wanted]
        return chosen

    def fits(self, plot: Section) -> bool:
        """Whether the object can play its part in the plot."""
        flags, thing = plot.flags, self.thing
        return not (
            ("hand" in flags and thing.is_large)
            or ("keep" in flags and thing.group in ("food", "keepsake", "grow"))
            or ("loud" in flags and thing.group not in LOUD)
            or ("tool" in flags and thing.group not in HANDY_TOOLS)
        )

    def introduce(self, who: str, character: Character) -> str:
        """ "a shy fox named Fern" the first time, "Fern" after that."""
        if who in self.introduced:
            return character.reference
        self.introduced.add(who)
        with_trait = who == "h" or self.rng.random() < 0.5
        trait = f"{character.trait} " if with_trait else ""
        phrase = with_article(trait + character.kind)
        if who == "g" or not character.name:
            return phrase
        link = self.rng.choice((" named ", " called ", " named ", " whose name was "))
        return f"{phrase}{link}{character.name}"

    def _object(self, slot: str) -> str:
        first = "o" not in self.introduced
        self.introduced.add("o")
        full = f"{self.look} {self.thing.noun}".strip() if first else self.thing.noun
        if slot == "lo":
            return full
        return with_article(full) if first else f"the {self.thing.noun}"

    def _place(self, slot: str) -> str:
        way, index = re.fullmatch(r"(p|at|to)([23]?)", slot).groups()  # type: ignore[union-attr]
        place = self.places[int(index or 1) - 1]
        before = {"p": "", "at": f"{place.preposition} ", "to": "to "}[way]
        return f"{before}the {place.noun}"

    def _morning(self) -> str:
        if "morning" in self.introduced:
            return self.rng.choice(LATER)
        self.introduced.add("morning")
        weather = self.rng.choice(split_list(SEASONS[self.season]))
        return f"one {weather} {self.season} {self.rng.choice(('morning', 'day', 'morning'))}"

    def fill_all(self, outline: str) -> str:
        """The outline with every slot filled, from left to right."""
        return SLOT.sub(lambda match: self._fill(match.group(1)), outline)

    def _fill(self, slot: str) -> str:
        name = slot[0].lower() + slot[1:]
        text = self._fill_lower(name)
        return text[0].upper() + text[1:] if slot != name else text

    def _fill_lower(self, name: str) -> str:
        cast = {"h": self.hero, "f": self.friend, "g": self.stranger}
        simple: dict[str, Callable[[], str]] = {
            "o": lambda: self.thing.noun,
            "a_o": lambda: with_article(self.thing.noun),
            "ao": lambda: self._object("ao"),
            "lo": lambda: self._object("lo"),
            "they": lambda: "they",
            "their": lambda: "their",
            "morning": self._morning,
            "g": lambda: f"the {self.stranger.kind}",
            "ag": lambda: (
                f"the {self.stranger.kind}"
                if "g" in self.introduced
                else self.introduce("g", self.stranger)
            ),
            "af_plain": lambda: with_article(self.friend.kind),
        }
        if name in simple:
            return simple[name]()
        if name in cast:
            return cast[name].reference
        if name[0] == "a" and name[1:] in cast:
            return self.introduce(name[1:], cast[name[1:]])
        if re.fullmatch(r"(p|at|to)[23]?", name):
            return self._place(name)
        who = cast[name[0]] if name[0] in "fg" else self.hero
        pronoun = name[1:] if name[0] in "fg" else name
        return PRONOUNS[who.gender][PRONOUNS["he"].index(pronoun)]


def opening(story: str) -> str:
    """The first two sentences or so."""
    ends = [match.end() for match in re.finditer(r'[.!?]["\']?(?=\s)', story)]
    return story[: ends[2]] if len(ends) > 2 else story


def tell(wish: Wish, words: Vocabulary, rng: random.Random) -> tuple[str, World]:
    """A story that mentions everything asked for early on, and the world it happened in.

    No character meets an object that is held out for it. Raises ValueError where no plot can bring
    the wished-for subjects together.
    """
    plots = [p for p in words.plots if not wish.theme or wish.theme in p.themes]
    for _ in range(MOST_ATTEMPTS):
        world = World(wish, words, rng)
        cast = (world.hero, world.friend, world.stranger)
        if any(is_held_out(character.kind, world.thing.noun) for character in cast):
            continue
        plot = rng.choice(plots)
        if not world.fits(plot):
            continue
        variants = [world.thing.group, *(["large"] if world.thing.is_large else [])]
        outline = expand(words.sections, plot.name, variants, rng)
        story = world.fill_all(outline)
        start = opening(story)
        names_all = all(re.search(rf"\b{noun}\b", start) for noun in wish.nouns)
        if names_all and SHORTEST_STORY <= len(story) <= LONGEST_STORY:
            return story, world
    raise ValueError(f"no plot fits {wish}")
