"""Questions and answers about HTTP streaming, in many phrasings.

What it does: reads `protocol.txt`, writes each question in several ways by rule, and keeps some
phrasings back for evaluation. What it does not do: hold the knowledge (that is the text file) or
make small talk (read `talk.py` next).
"""

import random
from dataclasses import dataclass, field
from importlib.resources import files

from .documents import Document, Message, Question

ABOUT = """
What is {s}?
what is {s}
What's {s}?
what's {s}?
Explain {s}.
explain {s}
Can you explain {s} to me?
Please explain {s}.
{S}?
Tell me about {s}.
tell me about {s}
What do you know about {s}?
Could you explain {s}?
I don't understand {s}.
What is {s} good for?
Hello, what is {s}?
What exactly is {s}?
""".strip().splitlines()
ABOUT_STATUS = """
What does {n} mean?
what does {n} mean
What is a {n}?
What does the status {n} mean?
What does status code {n} mean?
{s}?
Explain status {n}.
When does a server send {n}?
Tell me about {s}.
What is HTTP {n}?
I got a {n}. What does that mean?
Why do I get a {n}?
status {n}?
error {n}
""".strip().splitlines()
HELD_OUT_ABOUT = ("Can you tell me what {s} is?", "Could you tell me about {s}?")
HELD_OUT_STATUS = ("What does the code {n} mean?", "Why did I get a {n}?")
ASIDES = (
    "{q}", "{q}", "{l}", "{b}", "Please tell me: {q}", "A question: {q}", "Can you tell me: {l}",
)  # fmt: skip
SYSTEM = (
    "You are a helpful assistant.",
    "You explain HTTP streaming in short sentences.",
    "You are Fireside. You tell stories and explain HTTP streaming.",
    "You are Fireside, a small model inside streamtok.",
    "Answer briefly.",
)


@dataclass
class Entry:
    """One topic: what it is called, how it is asked for, and what the answer must state."""

    subject: str
    plural: bool = False
    is_status: bool = False
    ask: list[str] = field(default_factory=list)
    held_out: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    facts: tuple[tuple[str, ...], ...] = ()


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
        else:
            raise ValueError(f"unknown line: {line}")
    return entries


def load_entries() -> list[Entry]:
    """The entries of `protocol.txt`."""
    return parse_entries((files(__package__) / "protocol.txt").read_text(encoding="utf-8"))


def phrase(template: str, entry: Entry) -> str:
    """Fill a template with the subject: {s} as it is, {S} capitalised, {n} the bare number."""
    subject = entry.subject
    if entry.plural:
        template = template.replace("is {s}", "are {s}").replace("What's {s}", "What are {s}")
        template = template.replace("what's {s}", "what are {s}").replace("{s} is", "{s} are")
    return template.format(s=subject, S=subject[0].upper() + subject[1:], n=subject.split()[0])


def training_questions(entry: Entry, rng: random.Random) -> list[str]:
    """All phrasings of an entry that may be trained on."""
    templates = ABOUT_STATUS if entry.is_status else ABOUT
    asked = [phrase(template, entry) for template in templates] if entry.subject else []
    for question in entry.ask:
        bare = question.rstrip("?")
        lower = bare[0].lower() + bare[1:] if not bare.split()[0].isupper() else bare
        asides = ASIDES if len(entry.ask) < 3 else rng.sample(ASIDES, 5)
        asked += [aside.format(q=question, l=lower + "?", b=lower) for aside in (*asides, "{q}")]
    held_out = {normalise(question) for question in held_out_phrasings(entry)}
    return [q for q in dict.fromkeys(asked) if normalise(q) not in held_out]


def normalise(question: str) -> str:
    """The question without capitals and marks, to compare phrasings."""
    return "".join(c for c in question.lower() if c.isalnum() or c == " ").strip()


def held_out_phrasings(entry: Entry) -> list[str]:
    """The hand-written phrasings for evaluation, and one made by rule."""
    templates = HELD_OUT_STATUS if entry.is_status else HELD_OUT_ABOUT
    if not entry.subject:
        return entry.held_out
    return [*entry.held_out, phrase(templates[len(entry.subject) % 2], entry)]


def all_held_out(entries: list[Entry]) -> set[str]:
    """Every held-out phrasing of every entry, normalised."""
    return {normalise(question) for entry in entries for question in held_out_phrasings(entry)}


def heldout_questions() -> list[Question]:
    """Every phrasing that is kept back, with the facts a right answer states."""
    return [
        Question(question, entry.facts, entry.subject or entry.ask[0])
        for entry in load_entries()
        for question in held_out_phrasings(entry)
    ]


def question_pairs(rng: random.Random) -> list[tuple[str, str]]:
    """Every trained phrasing with one of its answers."""
    entries = load_entries()
    kept_back = all_held_out(entries)
    return [
        (question, rng.choice(entry.answers))
        for entry in entries
        for question in training_questions(entry, rng)
        if normalise(question) not in kept_back
    ]


def protocol_chats(passes: int, repeat: int, rng: random.Random) -> list[Document]:
    """Chats that ask every question `passes` times: mostly alone, else two or three in a row."""
    chats = []
    for _ in range(passes):
        pairs = question_pairs(rng)
        rng.shuffle(pairs)
        while pairs:
            turns = min(len(pairs), rng.choice((1, 1, 1, 1, 2, 3)))
            messages: list[Message] = []
            if rng.random() < 0.15:
                messages.append(("system", rng.choice(SYSTEM)))
            for question, answer in (pairs.pop() for _ in range(turns)):
                messages += [("user", question), ("assistant", answer)]
            chats.append(Document("chat/protocol", messages=tuple(messages), repeat=repeat))
    return chats
