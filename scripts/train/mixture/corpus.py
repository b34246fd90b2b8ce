"""Reads the corpus of stories and splits it into training and held-out text.

What it does: cleans the passages, drops exact repeats, holds out whole sources, picks the simplest
passages of the old books, and makes chats of those passages that are whole stories. What it does
not do: invent text (see `world.py`), or find what a story is about (read `subjects.py` next).

TinyStories is a single source, so its held-out part is a slice of that source (every twentieth
story), not a source of its own. The books and the author named in `HELD_OUT_SOURCES` are held out
whole.
"""

import json
import lzma
import random
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from .documents import Document
from .prompts import story_chat, word_list_request
from .subjects import NounFinder, named_character, phrase_in

TINY_STORIES = "TinyStories"
HELD_OUT_SOURCES = ("The Lilac Fairy Book", "Old Mother West Wind", "Ursula Nafula")
HELD_OUT_EVERY = 20
BOOK_SHARE = 0.15
COMMON = 4  # how often a common word occurs at least
LONGEST_ANSWER = 1400  # characters, about 350 tokens
SHORTEST_ANSWER = 350  # characters
WHOLE_END = re.compile(r"[.!?][\"']?$")


@dataclass(frozen=True)
class Passage:
    """One line of the corpus file."""

    source: str
    licence: str
    title: str
    text: str
    held_out: bool

    @property
    def kind(self) -> str:
        """`tinystories`, `storybooks` (African Storybook, Pratham Books) or `books`."""
        if self.source.startswith(TINY_STORIES):
            return "tinystories"
        return "storybooks" if self.licence.startswith("CC-BY") else "books"


def clean(text: str) -> str:
    """Plain characters and single spaces; line breaks stay."""
    text = re.sub("[\u200a\u200b\u00a0]", "", text)
    text = re.sub(r"[ \t]+", " ", text)
    return re.sub(r" *\n+ *", "\n", text).strip()


def read_passages(path: Path) -> list[Passage]:
    """All distinct passages of an xz-compressed JSON-lines file, in file order."""
    passages: dict[str, Passage] = {}
    tiny = 0
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            source, text = row["source"], clean(row["text"])
            held_out = any(name in source for name in HELD_OUT_SOURCES)
            if source.startswith(TINY_STORIES):
                tiny += 1
                held_out = tiny % HELD_OUT_EVERY == 0
            if len(text) >= 150:
                passages.setdefault(
                    text, Passage(source, row["licence"], clean(row["title"]), text, held_out)
                )
    return list(passages.values())


def common_words(passages: list[Passage]) -> list[str]:
    """The different words of the training text in small letters, without the rarest."""
    counts = Counter(
        word for p in passages if not p.held_out for word in re.findall(r"\b[a-z]{3,10}\b", p.text)
    )
    return sorted(word for word, count in counts.items() if count >= COMMON)


def is_whole_story(passage: Passage) -> bool:
    """Whether the passage begins and ends as a story does and fits into one answer."""
    text = passage.text
    return (
        passage.kind != "books"
        and SHORTEST_ANSWER <= len(text) <= LONGEST_ANSWER
        and text[0].isascii()
        and (text[0].isupper() or text[0] == '"')
        and WHOLE_END.search(text) is not None
        and text.count('"') % 2 == 0
    )


def simplest_books(passages: list[Passage]) -> list[Passage]:
    """The share of the book passages whose words TinyStories and the storybooks know best."""
    simple = Counter(
        word
        for passage in passages
        if passage.kind != "books" and not passage.held_out
        for word in re.findall(r"[a-z]+", passage.text.lower())
    )
    known = {word for word, count in simple.items() if count >= 8}

    def strangeness(passage: Passage) -> float:
        words = re.findall(r"[a-z]+", passage.text.lower())
        return sum(word not in known for word in words) / len(words)

    books = [p for p in passages if p.kind == "books" and not p.held_out]
    ranked = sorted(books, key=lambda passage: (strangeness(passage), passage.text))
    return ranked[: round(BOOK_SHARE * len(books))]


def plain_documents(passages: list[Passage]) -> list[Document]:
    """Every passage that is used as plain text."""
    simple = {id(passage) for passage in simplest_books(passages)}
    return [
        Document(f"plain/{p.kind}", p.text, held_out=p.held_out)
        for p in passages
        if p.held_out or p.kind != "books" or id(p) in simple
    ]


def subjects_of(passage: Passage, finder: NounFinder, rng: random.Random) -> list[str]:
    """One or two noun phrases that the passage is about, or none."""
    nouns = finder.nouns(passage.text, limit=3)
    character = named_character(passage.text)
    count = rng.choice((1, 2, 2))
    if character and rng.random() < 0.35:
        kind = character.split(" named ")[0].split()[-1]
        return [character, *(phrase_in(passage.text, n) for n in nouns if n != kind)][:count]
    chosen = nouns[: count + 1] if rng.random() < 0.1 else nouns[:count]
    return [phrase_in(passage.text, noun) for noun in chosen]


def requests_for(passage: Passage, finder: NounFinder, rng: random.Random) -> list[str]:
    """Two different requests that the passage answers; fewer where its subject is unclear."""
    requests = []
    for _ in range(2):
        subjects = subjects_of(passage, finder, rng)
        if subjects:
            requests.append(word_list_request(subjects, rng))
    if passage.title and rng.random() < 0.7:
        requests.append(f'Tell me the story "{passage.title}".')
    return list(dict.fromkeys(requests))[:2]


def story_chats(passages: list[Passage], rng: random.Random) -> list[Document]:
    """Chats that ask for a story and get a whole one from the corpus."""
    short = [p.text for p in passages if p.kind != "books" and not p.held_out]
    finder = NounFinder(short)
    return [
        Document(
            f"chat/{passage.kind}",
            messages=story_chat(request, passage.text, rng),
            held_out=passage.held_out,
        )
        for passage in passages
        if is_whole_story(passage)
        for request in requests_for(passage, finder, rng)
    ]
