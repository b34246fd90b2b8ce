"""Invents short stories about what was asked for.

What it does: casts a small world (a hero, a friend, a stranger, an object, three places, a season),
picks a plot that fits it, and tells it, keeping track of who has been introduced, which pronouns
belong to whom, and what the object is good for. What it does not do: phrase the request (see
`prompts.py`). The plots are in `plots.txt`, `tales.txt` and `things.txt`, the vocabulary in
`words.toml` and `subjects.toml`; read `grammar.py` next for how plots are expanded.
"""

import random
import re
from dataclasses import dataclass, field

from .cast import PRONOUNS, SPEECH, Character
from .grammar import Section, expand
from .subjects import with_article
from .vocabulary import Library, Place, Vocabulary, split_list

SHORTEST_STORY = 280  # characters
LONGEST_STORY = 1300  # characters
LAST_PART = 0.6  # of a story: where what it is about must still be told of
MOST_ATTEMPTS = 300
OFTEN = 2  # how much likelier than others a plot marked "often" is
BOTH_AT_FIRST = 0.85  # how often the opening has the second subject, too; always where it is alone
HERO_NAMED = 0.55
FRIEND_NAMED = {True: 0.15, False: 0.4}  # by whether the hero has a name
SEASONS = {
    "spring": "bright, fresh, green, mild, rainy",
    "summer": "warm, golden, sunny, long, quiet",
    "autumn": "windy, misty, grey, golden, cool",
    "winter": "cold, frosty, snowy, clear, icy",
}
LATER = ("one day", "a few days later", "then one afternoon", "some time later", "one evening")
BERRIES = ("blackberries", "wild strawberries", "blueberries", "ripe plums", "sweet pears")
LOUD = ("music", "mend", "dig", "ride", "toy")
HANDY_TOOLS = ("music", "paint", "mend", "dig", "toy", "ride", "boat")
SLOT = re.compile(r"\{([A-Za-z_0-9]+)\}")
HERO_WAS = re.compile(r"(\{(?:[Hh]|[Hh]e)\}) was\b|\bwas (?:once )?(?=\{[Aa]h\})")
ADDRESS = re.compile(r', \{([hf])\}(?=[!?."])')
THEME_ENDS = (
    "And that was a story about {0}.", "So that is what I know about {0}.",
    "That is all there is to say about {0}.", "And that is what {0} can do.",
)  # fmt: skip


@dataclass(frozen=True)
class Wish:
    """What a story was asked to be about; empty strings are left to chance.

    `hero` is a kind, a plural noun (with a `number`) or, with `is_thing`, a thing.
    """

    hero: str = ""
    friend: str = ""
    thing: str = ""
    place: str = ""
    theme: str = ""
    trait: str = ""
    look: str = ""
    name: str = ""
    friend_name: str = ""
    clause: str = ""
    number: str = ""
    is_thing: bool = False
    gender: str = ""

    @property
    def nouns(self) -> tuple[str, ...]:
        """The subjects that the story must mention early, without articles."""
        words = (self.hero, self.thing, self.name, self.clause)
        return tuple(word for word in words if word)


@dataclass
class World:
    """The cast and the state of one story."""

    wish: Wish
    library: Library
    words: Vocabulary  # places, traits and objects to choose from
    rng: random.Random
    hero: Character = field(init=False)
    friend: Character = field(init=False)
    stranger: Character = field(init=False)
    introduced: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        rng, wish, words = self.rng, self.wish, self.words
        self.hero = self._cast_hero()
        other = {"she": "he", "he": "she"}.get(self.hero.gender, rng.choice(("she", "he")))
        self.friend = self._cast_other(wish.friend, wish.friend_name, other, [self.hero])
        self.stranger = self._cast_other("", "", "", [self.hero, self.friend])
        noun = wish.thing or rng.choice(list(words.things))
        self.thing = words.things.get(noun) or self.library.held_out.things[noun]
        looks = [look for look in self.thing.looks if look not in self.thing.noun]
        self.look = wish.look or (rng.choice(looks) if rng.random() < 0.6 else "")
        self.places = self._choose_places(wish.place)
        self.season = rng.choice(list(SEASONS))

    def _cast_hero(self) -> Character:
        rng, wish, words = self.rng, self.wish, self.words
        kind = wish.hero or rng.choice(self.library.training.kinds)
        if wish.is_thing:
            trait = wish.trait or rng.choice(words.thing_traits)
            return Character(kind, "", trait, "it", unique=kind in words.unique)
        trait = wish.trait or rng.choice(words.traits)
        if wish.number:
            return Character(kind, "", wish.trait, "they", wish.clause, wish.number)
        friend_gender = words.gender_of.get(wish.friend, "")
        other = {"she": "he", "he": "she"}.get(friend_gender) or rng.choice(("she", "he"))
        gender = wish.gender or self._gender_of(kind) or other
        name = wish.name
        if not name and not wish.clause and not wish.friend_name and rng.random() < HERO_NAMED:
            name = rng.choice(self.library.training.names[gender])
        clause = wish.clause.format(**dict(zip(PRONOUNS["he"], PRONOUNS[gender], strict=True)))
        return Character(kind, name, "" if clause else trait, gender, clause)

    def _cast_other(self, kind: str, name: str, gender: str, others: list[Character]) -> Character:
        rng, training = self.rng, self.library.training
        gender = self._gender_of(kind) or gender or rng.choice(("she", "he"))
        taken = {word for other in others for word in other.kind.split()}
        while not kind:  # until one is unlike the others
            drawn = rng.choice(training.kinds)
            if training.gender_of.get(drawn, gender) == gender and taken.isdisjoint(drawn.split()):
                kind = drawn
        if not name and rng.random() < FRIEND_NAMED[bool(others[0].name)]:
            initials = {other.name[:1] for other in others}
            while not name or name[0] in initials:
                name = rng.choice(training.names[gender])
        return Character(kind, name, rng.choice(training.traits), gender)

    def _gender_of(self, kind: str) -> str:
        return self.words.gender_of.get(kind) or self.library.training.gender_of.get(kind, "")

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
        return "object" not in flags or not (
            ("hand" in flags and thing.is_large)
            or ("keep" in flags and thing.group in ("food", "keepsake", "grow"))
            or ("loud" in flags and thing.group not in LOUD)
            or ("tool" in flags and thing.group not in HANDY_TOOLS)
        )

    def introduce(self, who: str, character: Character) -> str:
        """ "a shy fox named Fern" the first time, "Fern" after that."""
        if who in self.introduced:
            return character.reference if who != "g" else f"the {character.kind}"
        self.introduced.add(who)
        if who == "g":
            return with_article(character.kind)
        return character.introduction(self.rng, who == "h" or self.rng.random() < 0.5)

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
        outline = HERO_WAS.sub(lambda match: match.group().replace("was", "{was}"), outline)
        outline = ADDRESS.sub(r", {v\1}", outline.replace("  ", " "))
        text = SLOT.sub(self._fill, outline)
        text = re.sub(r"s's\b", "s'", text) if self.hero.is_plural else text
        if self.hero.clause:
            text = text.replace(f"{self.hero.clause} who ", f"{self.hero.clause} and ")
        return re.sub(r" +", " ", text).replace(" .", ".").replace(" ,", ",")

    def _fill(self, match: re.Match[str]) -> str:
        slot, before = match.group(1), match.string[: match.start()]
        if slot in SPEECH:
            text = self.hero.speech(slot)
            begins = re.search(r'(^|[.!?:] |")$', before) is not None
            return text[0].upper() + text[1:] if begins else text
        name = slot[0].lower() + slot[1:]
        text = self._fill_lower(name)
        return text[0].upper() + text[1:] if slot != name else text

    def _fill_lower(self, name: str) -> str:
        cast = {"h": self.hero, "f": self.friend, "g": self.stranger}
        match name:
            case "o":
                return self.thing.noun
            case "a_o":
                return with_article(self.thing.noun)
            case "ao" | "lo":
                return self._object(name)
            case "they" | "their":
                return name
            case "morning":
                return self._morning()
            case "the_full":
                return self.hero.definite
            case "a_hero":
                return with_article(self.hero.kind)
            case "berries":
                return self.rng.choice(BERRIES)
            case "af_plain":
                return with_article(self.friend.kind)
        if name in cast:
            return self.introduce(name, cast[name])
        if name[0] in "av" and name[1:] in cast:
            who = cast[name[1:]]
            return who.address if name[0] == "v" else self.introduce(name[1:], who)
        if re.fullmatch(r"(p|at|to)[23]?", name):
            return self._place(name)
        who = cast[name[0]] if name[0] in "fg" else self.hero
        return who.pronoun(name[1:] if name[0] in "fg" else name)


def mentions_early(text: str, noun: str, share: float) -> bool:
    """Whether the noun stands in the first `share` of the text."""
    found = re.search(rf"\b{re.escape(noun)}\b", text, re.IGNORECASE)
    return found is not None and found.start() < share * len(text)


def is_told_to_the_end(wish: Wish, world: World, story: str) -> bool:
    """Whether what the story is about, by its noun or its name, is there in its last part, too."""
    nouns = [world.hero.name, wish.hero] if wish.hero else [wish.thing]
    late = story[round(LAST_PART * len(story)) :]
    return not any(nouns) or any(noun and mentions_early(late, noun, 1.0) for noun in nouns)


def suits(wish: Wish, world: World, story: str, longest: int) -> bool:
    """Whether the story has a fair length, says early what it is about, and stays with it."""
    clause = world.hero.clause if wish.clause else ""
    early = [clause if noun == wish.clause else noun for noun in wish.nouns]
    later = [noun for noun in (wish.friend, wish.friend_name, wish.place) if noun]
    return (
        SHORTEST_STORY <= len(story) <= longest
        and all(mentions_early(story, noun, 0.35) for noun in early)
        and all(mentions_early(story, noun, 0.6) for noun in later)
        and is_told_to_the_end(wish, world, story)
    )


def allows(wish: Wish, plot: Section) -> bool:
    """Whether a plot can be about what is wished for."""
    if wish.theme and wish.theme not in plot.themes:
        return False
    if ("thing" in plot.flags) != wish.is_thing:
        return False
    if "object" in plot.flags:
        return not (wish.number or wish.clause)
    return not wish.thing


def before_the_last_sentence(story: str, addition: str) -> str:
    """The story with an addition where its ending begins."""
    match = re.fullmatch(r'(.*[.!?]"?)(\s+)([^.!?]*[.!?]"?)', story, re.DOTALL)
    if match is None:
        return f"{story} {addition}"
    return f"{match.group(1)}{match.group(2)}{addition} {match.group(3)}"


def tell(
    wish: Wish,
    library: Library,
    rng: random.Random,
    longest: int = LONGEST_STORY,
    held_out: bool = False,
    other_than: str = "",
) -> tuple[str, World, Section]:
    """A story that mentions everything asked for early on, with its world and its plot.

    A held-out story takes its plot from those kept back; no story has the plot named by
    `other_than`. Raises ValueError where no plot can bring the wished-for subjects together.
    """
    words = library.training
    among = library.held_out_plots if held_out else library.plots
    plots = [plot for plot in among if allows(wish, plot) and plot.name != other_than]
    if not plots:
        raise ValueError(f"no plot fits {wish}")
    plots = [p for p in plots for _ in range(OFTEN if "often" in p.flags else 1)]
    for _ in range(MOST_ATTEMPTS):
        world = World(wish, library, words, rng)
        plot = rng.choice(plots)
        if not world.fits(plot):
            continue
        variants = [world.thing.group, *(["large"] if world.thing.is_large else [])]
        if rng.random() < (BOTH_AT_FIRST if wish.hero else 1.0):
            variants += ["with-object"] if wish.thing else ["with-friend"] if wish.friend else []
        story = world.fill_all(expand(library.sections, plot.name, variants, rng)).strip()
        if wish.clause:
            ends = library.training.clauses | library.held_out.clauses
            story = before_the_last_sentence(story, world.fill_all(ends[wish.clause]))
        if wish.theme and rng.random() < 0.7:
            story += "\n" + rng.choice(THEME_ENDS).format(rng.choice(words.themes[wish.theme]))
        if suits(wish, world, story, longest):
            return story, world, plot
    raise ValueError(f"no plot fits {wish}")
