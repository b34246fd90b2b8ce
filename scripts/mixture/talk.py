"""Small talk, and chats that go on for several turns.

What it does: pairs the questions and answers of `talk.txt`, and strings greetings, protocol
questions, stories and thanks together as people do. What it does not do: know anything about HTTP
(read `protocol.py`) or tell stories (read `world.py`).
"""

import random
from dataclasses import dataclass, replace
from importlib.resources import files

from .documents import Document, Message, Question
from .invented import draw_wish, subject_phrases
from .prompts import ANY_STORY, join_phrases, story_request
from .protocol import SYSTEM, Entry, parse_entries, question_pairs
from .world import LONGEST_STORY, Vocabulary, load_vocabulary, tell

SHORTER = ("Make it shorter.", "Can you make it shorter?", "Shorter, please.", "make it shorter",
           "Too long. A shorter one?", "In one sentence?")  # fmt: skip
ANOTHER = ("Tell me another.", "Another one, please.", "One more!", "Tell me another story.",
           "another", "Do you know another one?")  # fmt: skip
AGAIN = ("Say that again.", "Again, please.", "Can you repeat that?", "Could you say that again?")
SHORT_TALE = (
    "{A} had {o}. One day {f} needed help, and the {n} was just right. They became friends.",
    "Once {a} shared {o} with {f}, and both were happier than before.",
    "{A} was afraid to cross the dark wood with {o}, but {f} came too. Then it was not so dark.",
)


@dataclass(frozen=True)
class Talker:
    """What a longer chat is made from."""

    topics: dict[str, Entry]
    protocol: list[tuple[str, str]]
    words: Vocabulary

    def pair(self, topic: str, rng: random.Random) -> list[Message]:
        """One question of a topic and one of its answers."""
        entry = self.topics[topic]
        return [("user", rng.choice(entry.ask)), ("assistant", rng.choice(entry.answers))]

    def fact(self, rng: random.Random) -> list[Message]:
        """One protocol question and its answer."""
        question, answer = rng.choice(self.protocol)
        return [("user", question), ("assistant", answer)]

    def story(self, rng: random.Random, request: str = "") -> list[Message]:
        """A request for a story, and the story."""
        wish = draw_wish(("hero", "thing"), self.words, rng)
        asked = request or story_request(subject_phrases(wish, self.words, rng), rng)
        return [("user", asked), ("assistant", tell(wish, self.words, rng)[0])]


def load_topics() -> dict[str, Entry]:
    """The topics of `talk.txt` by name."""
    source = (files(__package__) / "talk.txt").read_text(encoding="utf-8")
    return {entry.subject: entry for entry in parse_entries(source)}


def heldout_talk_questions() -> list[Question]:
    """The small-talk phrasings that are kept back."""
    return [
        Question(question, entry.facts, entry.subject)
        for entry in load_topics().values()
        for question in entry.held_out
        if entry.facts
    ]


def short_talk(topics: dict[str, Entry], repeat: int, rng: random.Random) -> list[Document]:
    """Every question with every answer of its topic, one in six under a system message."""
    chats = []
    for entry in topics.values():
        for question in entry.ask:
            for answer in entry.answers:
                messages: tuple[Message, ...] = (("user", question), ("assistant", answer))
                if rng.random() < 1 / 6:
                    messages = (("system", rng.choice(SYSTEM)), *messages)
                chats.append(Document("chat/talk", messages=messages, repeat=repeat))
    return chats


def shorter_story(talker: Talker, rng: random.Random) -> list[Message]:
    """A story, then the wish to have it shorter, and a tale of one or two sentences."""
    wish = draw_wish(("hero", "friend", "thing"), talker.words, rng)
    hero, friend, thing = subject_phrases(wish, talker.words, rng)
    request = story_request([hero, thing], rng)
    tale = rng.choice(SHORT_TALE).format(
        a=hero, A=hero[0].upper() + hero[1:], o=thing, f=friend, n=wish.thing
    )
    without_friend = replace(wish, friend="")
    story, _ = tell(without_friend, talker.words, rng)
    return [("user", request), ("assistant", story), ("user", rng.choice(SHORTER)),
            ("assistant", tale)]  # fmt: skip


def ask_subject(talker: Talker, rng: random.Random) -> list[Message]:
    """A wish for any story, the question what about, and a story about what was then named."""
    wish = draw_wish(("hero", "thing"), talker.words, rng)
    subject = join_phrases(subject_phrases(wish, talker.words, rng))
    question = rng.choice((
        "With pleasure. What shall it be about?", "Gladly! Name an animal and a thing.",
        "What would you like it to be about?",
    ))  # fmt: skip
    answer = rng.choice(("{0}.", "{0}", "About {0}.", "{0}, please.")).format(subject)
    return [("user", rng.choice(("I want a story.", "A story!", "Let's have a story.",
                                 "I would like to hear something."))),
            ("assistant", question), ("user", answer),
            ("assistant", tell(wish, talker.words, rng)[0])]  # fmt: skip


def repeated_fact(talker: Talker, rng: random.Random) -> list[Message]:
    """A protocol question, and its answer once more on request."""
    question, answer = talker.fact(rng)
    return [question, answer, ("user", rng.choice(AGAIN)), answer]


def long_talk(talker: Talker, rng: random.Random) -> list[Message]:
    """One chat of two to four exchanges, short enough for the context."""
    shape = rng.randrange(10)
    if shape == 0:
        return shorter_story(talker, rng)
    if shape == 1:
        return ask_subject(talker, rng)
    if shape == 2:
        return repeated_fact(talker, rng)
    if shape == 3:
        return [*talker.story(rng), *talker.story(rng, rng.choice(ANOTHER))]
    if shape == 4:
        return [*talker.story(rng), *talker.pair(rng.choice(("thanks", "praise", "night")), rng)]
    if shape == 5:
        return [*talker.pair("greeting", rng), *talker.story(rng, rng.choice(ANY_STORY))]
    if shape == 6:
        return [*talker.pair("greeting", rng), *talker.fact(rng), *talker.pair("thanks", rng)]
    if shape == 7:
        return [*talker.pair("who", rng), *talker.pair("can", rng), *talker.pair("bye", rng)]
    topics = rng.sample(list(talker.topics), 2)
    middle = talker.fact(rng) if shape == 8 else []
    return [*talker.pair(topics[0], rng), *middle, *talker.pair(topics[1], rng)]


def talk_chats(long_count: int, repeat: int, rng: random.Random) -> list[Document]:
    """All small talk: every short exchange `repeat` times, and `long_count` longer chats."""
    talker = Talker(load_topics(), question_pairs(rng), load_vocabulary())
    chats = short_talk(talker.topics, repeat, rng)
    for _ in range(long_count):
        messages = tuple(long_talk(talker, rng))
        if rng.random() < 0.15:
            messages = (("system", rng.choice(SYSTEM)), *messages)
        if sum(len(text) for _, text in messages) < 2.4 * LONGEST_STORY:
            chats.append(Document("chat/talk-longer", messages=messages))
    return chats
