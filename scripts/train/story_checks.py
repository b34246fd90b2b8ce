"""Finds what goes wrong in a story: names, pronouns, subjects, endings, and equal plots.

What it does: judges by rule whether names are introduced and stay with one character, whether
characters appear out of nowhere, whether pronouns change, and whether the subject stays. What it
does not do: tell whether a story is nice. The rules are measured on the training stories, of which
they must pass nearly all (`python -m mixture` says how many). `checks.py` puts them together.
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache

from mixture.subjects import words_of
from mixture.vocabulary import load_library

DISTINCT_SHARE = 0.8  # of a story's runs of four words
EARLY, LATE = 0.4, 0.55  # of a story: where its hero must be by, and must be after
SAME_PLOT_SHARE = 0.3  # of the runs of the shorter story, from which two plots count as one
SENTENCE_END = re.compile(r"[.!?][\"')]?$")
QUOTED = re.compile(r'"[^"]*"')
NOT_NAMES = words_of(
    """
    I Monday Tuesday Wednesday Thursday Friday Saturday Sunday Mondays Tuesdays Sundays Christmas
    Mr Mrs Dr Fireside HTTP Oh Hello Please Yes No
    """
)
OWN = {"he": "he", "his": "he", "himself": "he", "she": "she", "herself": "she"}
GENDERED = {**OWN, "him": "he", "her": "she", "hers": "she"}
OBJECTS = frozenset(("him", "her", "hers"))  # mostly somebody else's
# Who may appear in a plot without being introduced
COMMON_KINDS = words_of(
    """
    king queen child children doctor judge mayor baby crow crows mouse mice cow ferryman fisherman
    fish neighbour neighbours friend friends
    """
)


def without_title(text: str) -> str:
    """The story below the line that names its subjects, if it begins with one."""
    first, _, rest = text.strip().partition("\n")
    return text.strip() if SENTENCE_END.search(first) or not rest else rest


def distinct_share(text: str) -> float:
    """The share of different ones among all runs of four words; 1 where there is no run."""
    runs = list(word_runs(text))
    return len(set(runs)) / len(runs) if runs else 1.0


def word_runs(text: str) -> list[tuple[str, ...]]:
    """All runs of four words, in small letters."""
    words = re.findall(r"[\w']+", text.lower())
    return list(zip(words, words[1:], words[2:], words[3:], strict=False))


def singular_forms(noun: str) -> set[str]:
    """The last word of a noun phrase in the forms in which a story may mention it."""
    word = noun.split()[-1].lower()
    forms = {word, word + "s", word + "es", word.removesuffix("s"), word.removesuffix("es")}
    if word.endswith("ies"):
        forms.add(word[:-3] + "y")
    if word.endswith("ves"):
        forms |= {word[:-3] + "f", word[:-3] + "fe"}
    return {form for form in forms if len(form) > 1}


def mentions(text: str, subject: str) -> bool:
    """Whether the subject's last word occurs, in the singular or the plural."""
    forms = "|".join(map(re.escape, sorted(singular_forms(subject))))
    return re.search(rf"\b({forms})\b", text, re.IGNORECASE) is not None


@cache
def known_names() -> frozenset[str]:
    """All names that stories give, kept-back ones too."""
    library = load_library()
    return frozenset(
        name
        for words in (library.training, library.held_out)
        for names in words.names.values()
        for name in names
    )


@cache
def known_kinds() -> frozenset[str]:
    """The last words of all kinds of characters."""
    library = load_library()
    kinds = (*library.training.kinds, *library.held_out.kinds)
    return frozenset(kind.split()[-1] for kind in kinds) - COMMON_KINDS


def names_in(text: str) -> dict[str, int]:
    """Every name in the text, and where it stands first.

    A name is a word with a capital in the middle of a sentence, or a known one anywhere.
    """
    found: dict[str, int] = {}
    for match in re.finditer(r"(?<![A-Za-z])[A-Z][a-z]+", text):
        word, before = match.group(), text[: match.start()]
        inside = re.search(r"[a-z,;] $", before) is not None
        if word not in NOT_NAMES and (inside or word in known_names()):
            found.setdefault(word, match.start())
    return found


def introductions(text: str) -> dict[str, set[str]]:
    """The kinds with which each name is given: "a shy fox named Fern", "Fern the fox"."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for match in re.finditer(r"(\w+) (?:named|called|whose name was) ([A-Z][a-z]+)", text):
        kinds[match.group(2)].add(match.group(1))
    return kinds


def names_are_kept(text: str, request: str) -> bool:
    """Whether every name is introduced or asked for, and given to one character only."""
    given = introductions(text)
    for name, first in names_in(text).items():
        if name in request or request.lower().find(name.lower()) >= 0:
            continue
        before = text[:first]
        if not re.search(r"(named|called|name was|was|is) $", before):
            return False
    if any(len(kinds) > 1 for kinds in given.values()):
        return False
    repeated = re.findall(r"\w (?:named|called|whose name was) ([A-Z][a-z]+)", text)
    return len(repeated) == len(set(repeated))


def cast_is_kept(text: str, request: str) -> bool:
    """Whether nobody appears as "the hen" before there was "a hen" or a hen was asked for."""
    asked = set(re.findall(r"[a-z]+", request.lower()))
    for match in re.finditer(r"\bthe (?=([a-z]+)(?: ([a-z]+))?)", text.lower()):
        nouns = [word for word in match.groups() if word in known_kinds()]
        if not nouns or nouns[0] in asked:
            continue
        noun = nouns[0]
        before = text[: match.start()].lower()
        if not re.search(rf"\b{noun}\b", before):
            return False
    return True


def references(text: str) -> list[str]:
    """How the story speaks of its characters: by a name, or by "the" and a kind."""
    kinds = {m.group(1) for m in re.finditer(r"\b[Tt]he ([a-z]+)\b", text)} & known_kinds()
    return [*names_in(text), *(f"the {kind}" for kind in sorted(kinds))]


def first_pronouns(text: str, reference: str, others: list[str]) -> set[str]:
    """The genders of the first pronoun after the reference, in sentences that begin with it.

    Speech is left out. A sentence counts up to the first other character in it.
    """
    genders = set()
    for sentence in re.split(r"(?<=[.!?])\s+|\n", QUOTED.sub('""', text)):
        if not sentence.lower().startswith(reference.lower() + " "):
            continue
        rest = sentence[len(reference) :]
        for other in others:
            rest = re.split(rf"\b{re.escape(other)}\b", rest, flags=re.IGNORECASE)[0]
        rest = re.split(r"\ban? |\bsomebody|\beveryone|\bnobody", rest)[0]
        pronouns = [w for w in re.findall(r"[a-z]+", rest) if w in OWN or w in OBJECTS]
        genders.add(OWN.get(pronouns[0], "") if pronouns else "")
    return genders - {""}


def genders_before_others(text: str) -> set[str]:
    """The genders of all pronouns from the first character on until there is a second one."""
    told = QUOTED.sub(" ", text)
    kinds = "|".join(sorted({*known_kinds(), *COMMON_KINDS}))
    names = "|".join(names_in(told)) or "-"
    people = list(re.finditer(rf"\b({kinds}|{names}|mother|father|brother|sister)\b", told))
    if not people:
        return set()
    first = people[0].group()
    given = re.match(r" (?:named|called|whose name was) (\w+)", told[people[0].end() :])
    own = {first, given.group(1)} if given else {first}
    end = next((m.start() for m in people if m.group() not in own), len(told))
    words = re.findall(r"[a-z]+", told[people[0].end() : end].lower())
    return {gender for word in words if (gender := GENDERED.get(word))}


def pronouns_are_kept(text: str) -> bool:
    """Whether no character is "he" in one sentence and "she" in another."""
    if len(genders_before_others(text)) > 1:
        return False
    found = references(text)
    return all(
        len(first_pronouns(text, reference, [o for o in found if o != reference])) < 2
        for reference in found
    )


def stays_on_subject(text: str, subjects: tuple[str, ...]) -> bool:
    """Whether all subjects are mentioned, the first one early, and it is there to the end.

    Being there is being mentioned, by the noun or by the name that it was given.
    """
    if not all(mentions(text, subject) for subject in subjects):
        return False
    if not subjects:
        return True
    hero, forms = subjects[0], singular_forms(subjects[0])
    aliases = [name for name, kinds in introductions(text).items() if kinds & forms] + [hero]
    early, late = text[: round(EARLY * len(text))], text[round(LATE * len(text)) :]
    return mentions(early, hero) and any(mentions(late, alias) for alias in aliases)


def same_plot(first: str, second: str, words_to_ignore: set[str]) -> bool:
    """Whether two stories share so many runs of words that they tell the same."""

    def runs(text: str) -> set[tuple[str, ...]]:
        return {run for run in word_runs(text) if not words_to_ignore.intersection(run)}

    one, other = runs(first), runs(second)
    return len(one & other) >= SAME_PLOT_SHARE * max(1, min(len(one), len(other)))


def count_plots(stories: list[str], subjects: tuple[str, ...]) -> int:
    """How many plots the stories have, those that are alike counted once."""
    ignored = {form for subject in subjects for form in singular_forms(subject)}
    ignored |= {name.lower() for story in stories for name in names_in(story)}
    kinds: list[str] = []
    for story in stories:
        if not any(same_plot(story, other, ignored) for other in kinds):
            kinds.append(story)
    return len(kinds)
