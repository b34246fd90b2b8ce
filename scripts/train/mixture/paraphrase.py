"""Asks one question in many ways.

What it does: fills the phrasings of `phrasings.toml`, contracts and rewords whole questions, leaves
the small words out, and makes the slips of a quick typist. What it does not do: know what is asked
(see `protocol.py`). One in eight of the new phrasings is kept for evaluation, by its hash.
"""

import random
import re
from functools import cache
from typing import Any

from .subjects import words_of
from .vocabulary import is_drawn, read_toml

PHRASINGS_HELD_OUT = 8  # one in so many of the new phrasings
TYPO_SHARE = 0.06
KEYWORDS_SHARE = 0.05
REWRITE_SHARE = 0.35
SMALL_WORDS = words_of(
    """
    a an the is are was do does did i you me my your it its of to for in on at and or if that there
    be can could would should will have has with please tell explain so what how
    """
)


@cache
def tables() -> dict[str, Any]:
    """The tables of `phrasings.toml`."""
    return read_toml("phrasings.toml")


@cache
def templates(kind: str, held_out: bool) -> tuple[str, ...]:
    """The phrasings of a kind ("subject", "status" or "question") to train on, or those kept."""
    table = tables()[kind]
    new = table["new"].strip().splitlines()
    if held_out:
        return tuple(line for line in new if is_drawn(line, PHRASINGS_HELD_OUT))
    kept = [line for line in new if not is_drawn(line, PHRASINGS_HELD_OUT)]
    return tuple(dict.fromkeys((*table["old"].strip().splitlines(), *kept)))


def about(subject: str, plural: bool, template: str) -> str:
    """A template of the kind "subject" or "status", filled."""
    if plural:
        for singular in ("is {s}", "does {s} mean", "{s} is", "What's {s}", "what's {s}"):
            many = singular.replace("is", "are").replace("does", "do").replace("'s", " are")
            template = template.replace(singular, many)
    return template.format(s=subject, S=subject[0].upper() + subject[1:], n=subject.split()[0])


def wrapped(question: str, template: str) -> str:
    """A whole question in a template of the kind "question"."""
    bare = question.rstrip("?.")
    first = bare.split()[0]
    keeps_capital = first.isupper() or "-" in first
    lower = bare if keeps_capital else bare[0].lower() + bare[1:]
    mark = question[len(bare) :] or "?"
    return template.format(q=question, l=lower + mark, b=lower)


def rewritten(question: str, rng: random.Random) -> str:
    """The question with one of the rewrites that fit it, or as it is."""
    pairs = [rule.split("=") for rule in tables()["rewrites"].values()]
    fitting = [(old, new) for old, new in pairs if old in question]
    if not fitting:
        return question
    old, new = rng.choice(fitting)
    return question.replace(old, new, 1)


def keywords(question: str) -> str:
    """What is left of a question without its small words; the question where that is too little."""
    words = [w for w in question.rstrip("?.!").split() if w.lower().strip(",:") not in SMALL_WORDS]
    return " ".join(words) if len(words) >= 2 else question


def mistyped(question: str, rng: random.Random) -> str:
    """The question with two letters swapped, one doubled or one lost, never in a short word."""
    words = question.split(" ")
    long = [i for i, word in enumerate(words) if re.fullmatch(r"[a-z]{5,}[?.,]?", word)]
    if not long:
        return question
    i = rng.choice(long)
    word = words[i]
    at = rng.randrange(1, len(word) - 2)
    words[i] = rng.choice((
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + word[at] + word[at:],
        word[:at] + word[at + 1 :],
    ))  # fmt: skip
    return " ".join(words)


def roughened(question: str, rng: random.Random) -> str:
    """Now and then a typing slip or only the key words."""
    roll = rng.random()
    if roll < TYPO_SHARE:
        return mistyped(question, rng)
    if roll < TYPO_SHARE + KEYWORDS_SHARE:
        return keywords(question)
    return question


def ask_about(subject: str, plural: bool, is_status: bool, rng: random.Random) -> str:
    """A question about a subject, in a phrasing that is trained on."""
    kind = "status" if is_status else "subject"
    return roughened(about(subject, plural, rng.choice(templates(kind, False))), rng)


def ask(question: str, rng: random.Random) -> str:
    """A hand-written question in another form that is trained on."""
    if rng.random() < REWRITE_SHARE:
        question = rewritten(question, rng)
    plain = rng.random() < 0.3
    template = "{q}" if plain else rng.choice(templates("question", False))
    return roughened(wrapped(question, template), rng)
