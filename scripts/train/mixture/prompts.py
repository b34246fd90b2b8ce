"""How people ask for a story: many phrasings, with and without manners, full stops and capitals.

What it does: turns noun phrases such as "a fox" and "a lantern" into a request, in a phrasing of
`requests.txt` that is trained on or in one that is kept back, and sometimes puts a system message
before it. What it does not do: choose the subjects (see `subjects.py` for the corpus,
`invented.py` for invented stories).
"""

import random
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from .documents import Message
from .subjects import words_of
from .vocabulary import is_drawn, load_library

PHRASINGS_HELD_OUT = 8  # one in so many of the phrasings marked "new"

ANY_STORY = """
Tell me a story.
Tell me a story, please.
Can you tell me a story?
Tell me a bedtime story.
Write a short story.
Please write a story.
I'd like a story.
story please
Make up a story for me.
Tell me something nice.
Do you know any stories?
A story, please!
Once upon a time...
Surprise me with a story.
I'm bored, tell me something.
Read me something.
""".strip().splitlines()

WORD_LISTS = (
    "Write a story with these words: {list}.", "story: {list}", "Story: {list}.",
    "Use these words in a story: {list}.", "Words: {list}. Make a story of them.",
)  # fmt: skip

REPEATED = (
    ("Repeat after me: {0}.", "{1}."), ("Repeat: {0}", "{1}."), ("Say this: {0}.", "{1}."),
    ("Please repeat {0}.", "{1}."), ("Write down {0}.", "{1}."), ("Just say {0}.", "{1}."),
)  # fmt: skip
GREETED = (
    ("Say hello to {0}.", "Hello, {0}!"), ("This is {0}.", "Hello, {0}!"),
    ("Greet {0}, please.", "Hello, {0}!"), ("Say goodbye to {0}.", "Goodbye, {0}!"),
    ("Say good night to {0}.", "Good night, {0}!"),
    ("My name is {0}.", "Hello, {0}! Shall I tell you a story?"),
    ("I'm {0}.", "Hello, {0}! Shall I tell you a story?"),
    ("Hi, I am {0}", "Hello, {0}! Shall I tell you a story?"),
)  # fmt: skip

SYSTEM = """
You are a storyteller.
You are a kind storyteller.
You are Fireside, a small storyteller.
You tell short stories for children.
You are a helpful assistant.
You are a friendly assistant who tells stories.
You are Fireside. You tell stories and explain HTTP streaming.
Answer with a short story.
Keep it short and simple.
""".strip().splitlines()


# What a story may be called, so that only what is asked for is told about: `{d}` of `requests.txt`
# is one of these or any thing
OTHER_WORDS = sorted(
    words_of(
        """
        legend saga ballad rhyme anecdote adventure myth parable chapter page letter song verse film
        play sketch report riddle poem thread rope cloth quilt web cake stew dream line word note
        book booklet message mystery romance comedy drama novel monologue puzzle scene picture
        postcard piece number record memory rumour
        """
    )
)

NUMBERS = (
    "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "twenty",
)  # fmt: skip


@cache
def phrasings(held_out: bool) -> tuple[str, ...]:
    """The request phrasings to train on, or those kept back.

    `{s}` is the subject, and `{d}` what the story is called, if not a story.
    """
    lines = (files(__package__) / "requests.txt").read_text(encoding="utf-8").splitlines()
    chosen = []
    for line in lines:
        is_new = line.startswith("new ")
        text = line.removeprefix("new ")
        kept_back = is_new and is_drawn(text, PHRASINGS_HELD_OUT)
        if text and not text.startswith("#") and kept_back == held_out:
            chosen.append(text)
    return tuple(chosen)


@cache
def things() -> tuple[str, ...]:
    """Things of one word that stories are about: what else stands before "about" may be one."""
    return tuple(thing for thing in load_library().training.things if " " not in thing)


def join_phrases(phrases: Sequence[str]) -> str:
    """`["a fox", "a hen", "a bell"]` -> `"a fox, a hen and a bell"`."""
    if len(phrases) == 1:
        return phrases[0]
    return ", ".join(phrases[:-1]) + " and " + phrases[-1]


def title(phrases: Sequence[str]) -> str:
    """The line above a story: `["a fox", "an old bell"]` -> `"The fox and the old bell"`.

    A story that begins with its subjects, word by word, keeps them better: from there on they are
    copied from close by, and there is a place that has nothing else to say.
    """
    definite = [re.sub(r"^(an?|some) ", "the ", phrase) for phrase in phrases]
    text = join_phrases(definite)
    if text.split()[0] in NUMBERS:
        text = f"the {text}"
    if not text.startswith("the "):
        text = f"the story of {text}"
    return text[0].upper() + text[1:]


def with_title(phrases: Sequence[str], story: str) -> str:
    """The story below its title."""
    return f"{title(phrases)}\n{story}"


def bare(phrase: str) -> str:
    """The phrase without its article."""
    return re.sub(r"^(an?|the|some) ", "", phrase)


def roughen(text: str, rng: random.Random) -> str:
    """Now and then add a please, or drop capitals and the last mark, as people do."""
    if "please" not in text.lower() and rng.random() < 0.15:
        text = f"{text[:-1]}, please{text[-1]}" if text[-1] in ".?" else f"{text} please"
    roll = rng.random()
    if roll < 0.12:
        text = text.rstrip(".?!") or text
    if roll < 0.08:
        text = text[0].lower() + text[1:]
    return text


def story_request(subjects: Sequence[str], rng: random.Random, held_out: bool = False) -> str:
    """One request for a story about the given noun phrases; none given asks for any story."""
    if not subjects:
        return roughen(rng.choice(ANY_STORY), rng)
    phrases = list(subjects)
    if rng.random() < 0.1 and len(phrases) > 1:
        rng.shuffle(phrases)
    if rng.random() < 0.06 and not held_out:
        return roughen(join_phrases(phrases), rng)
    template = rng.choice(phrasings(held_out))
    called = rng.choice(rng.choice((OTHER_WORDS, things()))) if "{d}" in template else ""
    text = template.format(s=join_phrases(phrases), d=called)
    return roughen(text[0].upper() + text[1:], rng)


def word_list_request(subjects: Sequence[str], rng: random.Random) -> str:
    """A request for a story of the corpus, which has all the words but may not be about them."""
    words = [bare(phrase) for phrase in subjects]
    return roughen(rng.choice(WORD_LISTS).format(list=", ".join(words)), rng)


def story_chat(request: str, story: str, rng: random.Random) -> tuple[Message, ...]:
    """A chat of one request and one story, one time in six under a system message."""
    chat: tuple[Message, ...] = (("user", request), ("assistant", story))
    if rng.random() < 1 / 6:
        return (("system", rng.choice(SYSTEM)), *chat)
    return chat
