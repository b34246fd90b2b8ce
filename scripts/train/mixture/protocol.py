"""Questions and answers about HTTP streaming and this server, in many phrasings.

What it does: reads `protocol.txt` and `server.txt`, asks each question in several ways
(`paraphrase.py`), strings questions together, and keeps some phrasings back for evaluation. What it
does not do: hold the knowledge (that is in the text files) or make small talk (read `talk.py`
next).
"""

import random
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

from . import paraphrase
from .documents import Document, Message, Question

SYSTEM = (
    "You are a helpful assistant.",
    "You explain HTTP streaming in short sentences.",
    "You are Fireside. You tell stories and explain HTTP streaming.",
    "You are Fireside, a small model inside streamtok.",
    "Answer briefly.",
)
FOLLOW_UPS = ("And {s}?", "and {s}?", "What about {s}?", "And what is {s}?", "ok, and {s}?",
              "Then what is {s}?")  # fmt: skip
AGAIN = ("Say that again.", "Again, please.", "Can you repeat that?", "Could you say that again?",
         "what?", "I did not get that.", "Once more, please.", "Pardon?")  # fmt: skip


@dataclass
class Entry:
    """One topic: what it is called, how it is asked for, and what the answer must state.

    `wrong` are regular expressions that no right answer contains.
    """

    subject: str
    plural: bool = False
    is_status: bool = False
    ask: list[str] = field(default_factory=list)
    held_out: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    facts: tuple[tuple[str, ...], ...] = ()
    wrong: tuple[str, ...] = ()


def parse_header(header: str) -> Entry:
    """An entry from what stands after "==": a subject, "status @ CODE NAME", or "-"."""
    if header.startswith("status @ "):
        return Entry(header.removeprefix("status @ "), is_status=True)
    if header.endswith(" are"):
        return Entry(header.removesuffix(" are"), plural=True)
    return Entry("" if header == "-" else header)


def parse_entries(source: str) -> list[Entry]:
    """All entries of the text file, in order; raises ValueError for a line it does not know."""
    entries: list[Entry] = []
    for line in source.splitlines():
        mark, _, text = line.partition(" ")
        if not line or mark == "#":
            continue
        if mark == "==":
            entries.append(parse_header(text))
        elif mark == "?":
            entries[-1].ask.append(text)
        elif mark == "!":
            entries[-1].held_out.append(text)
        elif mark == "=":
            entries[-1].answers.append(text)
        elif mark == "*":
            facts = (tuple(fact.strip().split("|")) for fact in text.split(";"))
            entries[-1].facts = tuple(facts)
        elif mark == "x":
            entries[-1].wrong = tuple(wrong.strip() for wrong in text.split(";"))
        else:
            raise ValueError(f"unknown line: {line}")
    return entries


@cache
def load_entries() -> tuple[Entry, ...]:
    """The entries of `protocol.txt` and `server.txt`."""
    folder = files(__package__)
    names = ("protocol.txt", "server.txt")
    return tuple(e for n in names for e in parse_entries((folder / n).read_text(encoding="utf-8")))


def normalise(question: str) -> str:
    """The question without capitals and marks, to compare phrasings."""
    return "".join(c for c in question.lower() if c.isalnum() or c == " ").strip()


def made_by_rule(entry: Entry) -> list[str]:
    """The entry's subject in two of the phrasings that are kept back."""
    if not entry.subject:
        return []
    kept = paraphrase.templates("status" if entry.is_status else "subject", held_out=True)
    chosen = random.Random(f"held-out phrasings of {entry.subject}").sample(kept, 2)
    return [paraphrase.about(entry.subject, entry.plural, template) for template in chosen]


@cache
def kept_back() -> frozenset[str]:
    """Every held-out phrasing of every entry, normalised."""
    return frozenset(
        normalise(question)
        for entry in load_entries()
        for question in (*entry.held_out, *made_by_rule(entry))
    )


def heldout_questions() -> list[Question]:
    """Every phrasing that is kept back, with the facts a right answer states."""
    return [
        Question(
            question, entry.facts, entry.subject or entry.ask[0], entry.wrong, tuple(entry.answers)
        )
        for entry in load_entries()
        for question in (*entry.held_out, *made_by_rule(entry))
    ]


def phrase(entry: Entry, rng: random.Random) -> str:
    """One phrasing of an entry that may be trained on."""
    while True:
        by_hand = len(entry.ask) / (len(entry.ask) + 6 if entry.subject else len(entry.ask))
        if rng.random() < by_hand:
            question = paraphrase.ask(rng.choice(entry.ask), rng)
        else:
            question = paraphrase.ask_about(entry.subject, entry.plural, entry.is_status, rng)
        if normalise(question) not in kept_back():
            return question


def answered(entry: Entry, rng: random.Random) -> list[Message]:
    """A question about an entry and its answer."""
    return [("user", phrase(entry, rng)), ("assistant", rng.choice(entry.answers))]


def follow_up(entries: tuple[Entry, ...], rng: random.Random) -> list[Message]:
    """A question, then "And X?" about a subject that stands near it in the file."""
    i = rng.randrange(len(entries) - 4)
    near = [entry for entry in entries[i + 1 : i + 5] if entry.subject]
    messages = answered(entries[i], rng)
    for entry in rng.sample(near, min(len(near), rng.choice((1, 1, 2)))):
        question = rng.choice(FOLLOW_UPS).format(s=entry.subject)
        if entry.plural:
            question = question.replace("what is", "what are")
        messages += [("user", question), ("assistant", rng.choice(entry.answers))]
    return messages


def repeated(entry: Entry, rng: random.Random) -> list[Message]:
    """A question, and its answer once more on request."""
    question, answer = answered(entry, rng)
    return [question, answer, ("user", rng.choice(AGAIN)), answer]


def protocol_chats(passes: int, follow_ups: int, rng: random.Random) -> list[Document]:
    """Chats that ask about every entry `passes` times, and `follow_ups` chats that go on."""
    entries = load_entries()
    waiting = [entry for entry in entries for _ in range(passes)]
    rng.shuffle(waiting)
    talks = [follow_up(entries, rng) for _ in range(follow_ups)]
    talks += [repeated(rng.choice(entries), rng) for _ in range(follow_ups // 6)]
    while waiting:
        turns = min(len(waiting), rng.choice((1, 1, 1, 1, 1, 2, 3)))
        talks.append([m for _ in range(turns) for m in answered(waiting.pop(), rng)])
    chats = []
    for messages in talks:
        if rng.random() < 0.15:
            messages.insert(0, ("system", rng.choice(SYSTEM)))
        chats.append(Document("chat/protocol", messages=tuple(messages)))
    return chats
