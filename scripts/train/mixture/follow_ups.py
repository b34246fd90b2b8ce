"""Chats that go on after a story.

What it does: asks about the story that was told, wants it shorter, wants another one, or wants to
know how it went on, and answers from the story's own world, so that names and facts agree. What it
does not do: tell the stories (see `world.py`) or make small talk (read `talk.py` next).
"""

import random
from dataclasses import replace

from .documents import Message
from .grammar import Section, choose_inline
from .invented import SHAPES, draw_shape, draw_wish, subject_phrases
from .prompts import join_phrases, story_request
from .subjects import with_article
from .vocabulary import Library
from .world import Wish, World, tell

SHORTER = ("Make it shorter.", "Can you make it shorter?", "Shorter, please.", "make it shorter",
           "Too long. A shorter one?", "In one sentence?", "Sum it up.", "Can you sum that up?",
           "What was it in short?", "tldr", "A short version, please.", "Tell it in one sentence.",
           "Give me the short version.", "That was long. In short?")  # fmt: skip
ANOTHER = ("Tell me another.", "Another one, please.", "One more!", "Tell me another story.",
           "another", "Do you know another one?", "Another one!", "One more, please.", "again!",
           "Now a different one.", "And another.", "Tell me one more story.", "more",
           "Can I have another one?", "Next one, please.", "a new one")  # fmt: skip
ANOTHER_ABOUT = ("Tell me another, about {0}.", "Another one, please, about {0}.", "Now {0}.",
                 "That was nice. Can you tell one about {0}?", "Lovely! And now {0}?",
                 "And one about {0}.", "Now one about {0}, please.", "The next one about {0}.",
                 "Can you do one about {0}?", "now {0}")  # fmt: skip
SAME_HERO = ("Another one about {0}.", "Tell me more about {0}.", "One more about {0}, please.",
             "Another story with {0}.", "What else did {0} do?")  # fmt: skip
WHAT_HAPPENED = ("What happened to {0}?", "What happened to {0}", "So what did {0} do?",
                 "What was with {0}?", "What did {0} do?", "Remind me what happened to {0}.",
                 "How did it end for {0}?")  # fmt: skip
AND_THEN = ("And then?", "What happened next?", "Go on.", "And after that?", "continue",
            "Continue.", "How does it go on?", "and then what?", "Tell me more.")  # fmt: skip
WHY = ("Why?", "why?", "Why was that?", "But why?", "Why did that happen?", "How come?")
WHAT_ABOUT = ("What was the story about?", "What was it about?", "Who was it about?",
              "what was that about")  # fmt: skip
NAME = ("What was the {0} called?", "What was the name of the {0}?", "what was the {0}'s name?",
        "Do you remember the {0}'s name?", "Name of the {0}?", "Who was the {0}?")  # fmt: skip
WHERE = ("Where did that happen?", "Where was that?", "Where did {0} live?", "where was it?")
THANKS = ("Thank you!", "Thanks.", "That was nice.", "I liked that.", "Lovely!", "Nice story!")
WELCOME = ("You are welcome! Would you like another one?", "I am glad that you liked it.",
           "Thank you! Shall I tell you another?")  # fmt: skip
LATER = (
    "The next day {h} and {f} met again {at}. They talked about it for a long time, and then they "
    "had [tea|soup|cake]. And so the day ended well.",
    "After that {h} slept for a whole day. When {he} woke up, {f} was there with [breakfast|a cup of"
    " cocoa|fresh bread], and they laughed about it all.",
    "Nothing more happened that day. But a week later {f} came by and asked, \"Do you remember?\" "
    "And {h} remembered every bit of it.",
    "Then winter came, and it grew quiet {at}. {H} and {f} sat by the fire and told each other the "
    "story again, from the beginning to the end.",
)  # fmt: skip
REASONS = (
    "Because {h} had a good heart, and so had {f}.", "Because {h} was not alone: {f} was there.",
    "Because {h} did not give up.", "Because that is how it goes when friends help each other.",
)  # fmt: skip
SHORT_STORY = 620  # characters


class Told:
    """A story that was told in a chat: its request and text, and the world it happened in."""

    def __init__(
        self, library: Library, wish: Wish, rng: random.Random, longest: int, other_than: str = ""
    ) -> None:
        self.library, self.rng = library, rng
        self.wish = wish
        self.story, self.world, self.plot = tell(
            wish, library, rng, longest, other_than=other_than
        )

    @property
    def phrase(self) -> str:
        """What the story was asked to be about, or its hero."""
        phrases = subject_phrases(self.wish, self.library.training, self.rng)
        return join_phrases(phrases) if phrases else f"the {self.world.hero.kind}"

    def opening(self) -> list[Message]:
        """A request for the story, and the story."""
        phrases = subject_phrases(self.wish, self.library.training, self.rng)
        return [("user", story_request(phrases, self.rng)), ("assistant", self.story)]

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
            (rng.choice(WHAT_HAPPENED).format(who), self.gist()),
            (rng.choice(WHAT_ABOUT), f"It was about {hero.introduction(rng, False)}."),
            (rng.choice(WHERE).format(who), f"{place.preposition.capitalize()} the {place.noun}."),
            (rng.choice(WHY), self.fill(rng.choice(REASONS))),
            (rng.choice(AND_THEN), self.fill(rng.choice(LATER))),
        ]
        for character in (hero, friend):
            if character.name and character.name in self.story:
                asked.append((
                    rng.choice(NAME).format(character.kind),
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
    return [*told.opening(), ("user", rng.choice(SHORTER)), ("assistant", told.gist())]


def several(library: Library, rng: random.Random) -> list[Message]:
    """Two to five short stories in one chat: another one, another hero, or the same once more."""
    told = tell_one(library, rng, SHORT_STORY)
    messages = told.opening()
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        roll, wish = rng.random(), told.wish
        if roll < 0.35:
            request, wish = rng.choice(ANOTHER), replace(wish, friend="", look="", place="")
        elif roll < 0.55 and not wish.thing and not wish.theme:
            request = rng.choice(SAME_HERO).format(told.phrase)
        else:
            wish = draw_wish(shapes_of_a_chat(rng), library.training, rng)
            phrases = subject_phrases(wish, library.training, rng)
            request = rng.choice(ANOTHER_ABOUT).format(join_phrases(phrases))
        try:
            told = tell_one(library, rng, SHORT_STORY, wish, told.plot.name)
        except ValueError:
            continue
        messages += [("user", request), ("assistant", told.story)]
    return messages


def thanked(library: Library, rng: random.Random) -> list[Message]:
    """A story, and thanks."""
    messages = tell_one(library, rng, 1100).opening()
    return [*messages, ("user", rng.choice(THANKS)), ("assistant", rng.choice(WELCOME))]


def story_talk(library: Library, rng: random.Random) -> list[Message]:
    """One chat that goes on after a story."""
    kind = rng.choices((asked_about, made_shorter, several, thanked), (5, 2, 4, 1))[0]
    return kind(library, rng)
