"""Chats that go on after a story.

What it does: asks about the story that was told, wants it shorter, wants another one, or wants to
know how it went on, and answers from the story's own world, so that names and facts agree. What it
does not do: tell the stories (see `world.py`) or make small talk (read `talk.py` next).
"""

import random
from dataclasses import replace
from functools import cache

from .documents import Message
from .grammar import Section, choose_inline
from .invented import SHAPES, draw_shape, draw_wish, subject_phrases
from .prompts import join_phrases, story_request, with_title
from .subjects import with_article
from .vocabulary import Library, read_toml
from .world import Wish, World, tell

SHORT_STORY = 620  # characters


@cache
def lines(name: str) -> tuple[str, ...]:
    """The phrases of a table of `follow_ups.toml`."""
    return tuple(read_toml("follow_ups.toml")[name]["lines"].strip().splitlines())


class Told:
    """A story that was told in a chat: its request and text, and the world it happened in."""

    def __init__(
        self, library: Library, wish: Wish, rng: random.Random, longest: int, other_than: str = ""
    ) -> None:
        self.library, self.rng = library, rng
        self.wish = wish
        self.story, self.world, self.plot = tell(wish, library, rng, longest, other_than=other_than)
        self._phrases = subject_phrases(wish, library.training, rng)

    @property
    def phrase(self) -> str:
        """What the story was asked to be about, or its hero."""
        return join_phrases(self._phrases) if self._phrases else f"the {self.world.hero.kind}"

    @property
    def answer(self) -> str:
        """The story below its title."""
        return with_title(self._phrases or [self.world.hero.definite], self.story)

    def opening(self) -> list[Message]:
        """A request for the story, and the story."""
        return [("user", story_request(self._phrases, self.rng)), ("assistant", self.answer)]

    def fill(self, text: str) -> str:
        """A text about the same characters, as known by now."""
        return self.world.fill_all(choose_inline(text, self.rng))

    def gist(self) -> str:
        """The story in one or two sentences."""
        return short_version(self.plot, self.world)

    def questions(self) -> list[tuple[str, str]]:
        """Questions about the story, with their answers."""
        rng, hero, friend = self.rng, self.world.hero, self.world.friend
        who = rng.choice((hero.reference, f"the {hero.kind}"))
        place = self.world.places[0]
        asked = [
            (rng.choice(lines("what_happened")).format(who), self.gist()),
            (rng.choice(lines("what_about")), f"It was about {hero.introduction(rng, False)}."),
            (
                rng.choice(lines("where")).format(who),
                f"{place.preposition.capitalize()} the {place.noun}.",
            ),
            (rng.choice(lines("why")), self.fill(rng.choice(lines("reasons")))),
            (rng.choice(lines("and_then")), self.fill(rng.choice(lines("later")))),
        ]
        for character in (hero, friend):
            if character.name and character.name in self.story:
                asked.append((
                    rng.choice(lines("name")).format(character.kind),
                    f"The {character.kind} was called {character.name}.",
                ))  # fmt: skip
                asked.append((f"Who was {character.name}?",
                              f"{character.name} was {with_article(character.kind)}."))  # fmt: skip
        if "f" in self.world.introduced and not friend.name:
            asked.append((f"Who helped {hero.reference}?", f"The {friend.kind} did."))
        return asked


def short_version(plot: Section, world: World) -> str:
    """The plot's gist, told of this world; a general one where the plot has none."""
    world.introduced.clear()
    gist = plot.gist or "{Ah} had {a_o}, and thanks to it {he} and {f} became friends."
    text = world.fill_all(gist)
    world.introduced.update("hfgo")
    return text


def shapes_of_a_chat(rng: random.Random) -> tuple[str, ...]:
    """What is asked for at the beginning of a chat: never nothing."""
    return draw_shape({shape: n for shape, n in SHAPES.items() if shape}, rng)


def tell_one(
    library: Library,
    rng: random.Random,
    longest: int,
    wish: Wish | None = None,
    other_than: str = "",
) -> Told:
    """A story for the wish, or for any one, with another plot than `other_than`."""
    while True:
        drawn = wish or draw_wish(shapes_of_a_chat(rng), library.training, rng)
        try:
            return Told(library, drawn, rng, longest, other_than)
        except ValueError:
            if wish:
                raise


def asked_about(library: Library, rng: random.Random) -> list[Message]:
    """A story and one to three questions about it."""
    told = tell_one(library, rng, 1000)
    messages = told.opening()
    questions = told.questions()
    for question, answer in rng.sample(questions, min(len(questions), rng.choice((1, 1, 2, 3)))):
        messages += [("user", question), ("assistant", answer)]
    return messages


def made_shorter(library: Library, rng: random.Random) -> list[Message]:
    """A story, and then its short version."""
    told = tell_one(library, rng, 1100)
    return [*told.opening(), ("user", rng.choice(lines("shorter"))), ("assistant", told.gist())]


def several(library: Library, rng: random.Random) -> list[Message]:
    """Two to five short stories in one chat: another one, another hero, or the same once more."""
    told = tell_one(library, rng, SHORT_STORY)
    messages = told.opening()
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        roll, wish = rng.random(), told.wish
        if roll < 0.35:
            kind, wish = "another", replace(wish, friend="", look="", place="")
        elif roll < 0.55 and not wish.thing and not wish.theme:
            kind = "same_hero"
        else:
            kind, wish = "another_about", draw_wish(shapes_of_a_chat(rng), library.training, rng)
        try:
            told = tell_one(library, rng, SHORT_STORY, wish, told.plot.name)
        except ValueError:
            continue
        request = rng.choice(lines(kind)).format(told.phrase)
        messages += [("user", request), ("assistant", told.answer)]
    return messages


def thanked(library: Library, rng: random.Random) -> list[Message]:
    """A story, and thanks."""
    messages = tell_one(library, rng, 1100).opening()
    return [
        *messages,
        ("user", rng.choice(lines("thanks"))),
        ("assistant", rng.choice(lines("welcome"))),
    ]


def story_talk(library: Library, rng: random.Random) -> list[Message]:
    """One chat that goes on after a story."""
    kind = rng.choices((asked_about, made_shorter, several, thanked), (5, 3, 4, 1))[0]
    return kind(library, rng)
