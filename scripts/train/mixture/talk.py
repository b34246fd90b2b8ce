"""Small talk, honest answers to what the model cannot know, and chats that go on.

What it does: pairs the questions and answers of `talk.txt`, fills those of `unknown.toml`, asks why
after an answer (`why.txt`), and strings greetings, protocol questions, stories and thanks together
as people do. What it does not do: know anything about HTTP (read `protocol.py`) or tell stories
(read `world.py`).
"""

import random
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from .documents import Document, Message, Question
from .follow_ups import lines, story_talk, tell_one
from .invented import draw_wish, subject_phrases
from .prompts import ANY_STORY, join_phrases, roughen, with_title
from .protocol import SYSTEM, Entry, answered, load_entries, normalise, parse_entries
from .vocabulary import Library, read_toml, split_list
from .world import LONGEST_STORY, tell

LONGEST_CHAT = 3_300  # characters, about 900 tokens


@dataclass(frozen=True)
class Unknown:
    """Questions that the model cannot answer, with slots, and what it says instead."""

    name: str
    ask: tuple[str, ...]
    held: tuple[str, ...]
    answers: tuple[str, ...]
    facts: tuple[str, ...]


@cache
def load_topics() -> dict[str, Entry]:
    """The topics of `talk.txt` by name."""
    source = (files(__package__) / "talk.txt").read_text(encoding="utf-8")
    return {entry.subject: entry for entry in parse_entries(source)}


@cache
def load_unknown() -> tuple[Unknown, ...]:
    """The topics of `unknown.toml`."""

    def split(text: str) -> tuple[str, ...]:
        return tuple(text.strip().splitlines())

    return tuple(
        Unknown(t["name"], split(t["ask"]), split(t["held"]), split(t["answers"]),
                tuple(t["facts"].split("|")))
        for t in read_toml("unknown.toml")["topic"]
    )  # fmt: skip


@cache
def load_reasons() -> dict[str, str]:
    """Why an answer is as it is, by the subject of its entry."""
    lines = (files(__package__) / "why.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split(" = ") for line in lines if line and not line.startswith("#"))
    return {subject.removesuffix(" are"): reason for subject, reason in pairs}


def filled(template: str, rng: random.Random) -> str:
    """A question of `unknown.toml` with a word in each slot."""
    words = read_fill()
    text = re.sub(r"\{(\w+)\}", lambda match: rng.choice(words[match.group(1)]), template)
    return text[0].upper() + text[1:] if template[0] == "{" else text


@cache
def read_fill() -> dict[str, tuple[str, ...]]:
    """The words for the slots of `unknown.toml`."""
    return {name: split_list(text) for name, text in read_toml("unknown.toml")["fill"].items()}


def heldout_talk_questions() -> list[Question]:
    """The phrasings of small talk and of unknown things that are kept back."""
    rng = random.Random("held-out talk")
    talk = [
        Question(question, entry.facts, entry.subject)
        for entry in load_topics().values()
        for question in entry.held_out
        if entry.facts
    ]
    unknown = [
        Question(filled(template, rng), (topic.facts,), topic.name)
        for topic in load_unknown()
        for template in topic.held
    ]
    return [*talk, *unknown]


@cache
def kept_back() -> frozenset[str]:
    """The held-out questions, normalised."""
    return frozenset(normalise(question.text) for question in heldout_talk_questions())


def sentences_of(text: str) -> list[str]:
    """The sentences of an answer, without capitals and marks."""
    parts = re.split(r"(?<=[.!?])\s+", text.strip())
    return [sentence for sentence in map(normalise, parts) if sentence]


@cache
def known_sentences() -> frozenset[str]:
    """Every sentence that an answer on a subject may have; a model that says others invents."""
    entries = (*load_entries(), *load_topics().values(), *load_unknown())
    texts = [answer for entry in entries for answer in entry.answers]
    texts += load_reasons().values()
    return frozenset(sentence for text in texts for sentence in sentences_of(text))


def small_talk(topic: str, rng: random.Random) -> list[Message]:
    """One question of a topic of `talk.txt` and one of its answers."""
    entry = load_topics()[topic]
    while True:
        question = roughen(rng.choice(entry.ask), rng)
        if normalise(question) not in kept_back():
            return [("user", question), ("assistant", rng.choice(entry.answers))]


def unknown_talk(rng: random.Random) -> list[Message]:
    """A question that the model cannot answer, and its honest answer."""
    topic = rng.choice(load_unknown())
    while True:
        question = roughen(filled(rng.choice(topic.ask), rng), rng)
        if normalise(question) not in kept_back():
            return [("user", question), ("assistant", rng.choice(topic.answers))]


def asked_why(rng: random.Random) -> list[Message]:
    """A protocol question, its answer, and the reason for it."""
    reasons = load_reasons()
    entry = rng.choice([e for e in load_entries() if e.subject in reasons])
    why = ("user", rng.choice(lines("why")[:4]))
    return [*answered(entry, rng), why, ("assistant", reasons[entry.subject])]


def ask_subject(library: Library, rng: random.Random) -> list[Message]:
    """A wish for any story, the question what about, and a story about what was then named."""
    wish = draw_wish(("hero", "thing"), library.training, rng)
    phrases = subject_phrases(wish, library.training, rng)
    subject = join_phrases(phrases)
    question = rng.choice((
        "With pleasure. What shall it be about?", "Gladly! Name an animal and a thing.",
        "What would you like it to be about?",
    ))  # fmt: skip
    answer = rng.choice(("{0}.", "{0}", "About {0}.", "{0}, please.")).format(subject)
    return [("user", rng.choice(("I want a story.", "A story!", "Let's have a story.",
                                 "I would like to hear something."))),
            ("assistant", question), ("user", answer),
            ("assistant", with_title(phrases, tell(wish, library, rng)[0]))]  # fmt: skip


def fact(rng: random.Random) -> list[Message]:
    """A protocol question and its answer."""
    return answered(rng.choice(load_entries()), rng)


def long_talk(library: Library, rng: random.Random) -> list[Message]:
    """One chat of two to five exchanges, short enough for the context."""
    topics = list(load_topics())
    shape = rng.randrange(16)
    if shape < 8:
        return story_talk(library, rng)
    if shape == 8:
        return ask_subject(library, rng)
    if shape == 9:
        return asked_why(rng)
    if shape == 10:
        any_story = tell_one(library, rng, LONGEST_STORY).answer
        return [*small_talk("greeting", rng), ("user", rng.choice(ANY_STORY)),
                ("assistant", any_story)]  # fmt: skip
    if shape == 11:
        return [*small_talk("greeting", rng), *fact(rng), *small_talk("thanks", rng)]
    if shape == 12:
        return [*small_talk("who", rng), *small_talk("can", rng), *small_talk("bye", rng)]
    if shape == 13:
        return [*unknown_talk(rng), *tell_one(library, rng, 900).opening()]
    if shape == 14:
        return [*fact(rng), *unknown_talk(rng), *fact(rng)]
    first, second = rng.sample(topics, 2)
    return [*small_talk(first, rng), *fact(rng), *small_talk(second, rng)]


def talk_chats(
    passes: int, unknown: int, longer: int, library: Library, rng: random.Random
) -> list[Document]:
    """Small talk on every topic `passes` times, `unknown` refusals and `longer` longer chats."""
    talks = [small_talk(topic, rng) for topic in load_topics() for _ in range(passes)]
    talks += [unknown_talk(rng) for _ in range(unknown)]
    chats = [Document("chat/talk", messages=with_system(messages, rng)) for messages in talks]
    for _ in range(longer):
        messages = long_talk(library, rng)
        if sum(len(text) for _, text in messages) < LONGEST_CHAT:
            chats.append(Document("chat/talk-longer", messages=with_system(messages, rng)))
    return chats


def with_system(messages: list[Message], rng: random.Random) -> tuple[Message, ...]:
    """The messages, one time in six under a system message."""
    if rng.random() < 1 / 6:
        return (("system", rng.choice(SYSTEM)), *messages)
    return tuple(messages)
