"""Finds what a story is about, so that a request for it can be written.

What it does: learns from a body of stories which words are nouns (they stand between an article
and a break), then names the two or three nouns by which one story differs from the others. What it
does not do: parse; a story whose nouns stay unclear gets no subject. Read `corpus.py` next.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable


def words_of(text: str) -> frozenset[str]:
    """The words of a table, which are separated by white space."""
    return frozenset(text.split())


WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?|[.,!?;:\"]")
DETERMINERS = words_of(
    """
    a an the his her their its my your our
    """
)
FOLLOWERS = words_of(
    """
    . , ! ? ; : " and or was is were are had has that who which in on at to of with for from
    by he she they it but so as into under near when because could would said wanted did
    """
)
TOO_COMMON = words_of(
    """
    day time thing things way lot one name story moment end side top bottom back front moral
    bit while rest idea fun love morning night afternoon evening place inside outside other
    others mom dad mum mommy daddy mama mother father parents family child children kid kids
    people person friend friends face eyes eye hand hands head feet foot arms mouth nose ear
    ears voice home house room world life lesson problem smile sound noise something anything
    everything all same best first last next right left air ground sky sun question answer
    middle little big small old new good bad happy sad special whole hug kiss tears turn help
    look man woman boy girl girls boys sister brother year years hour minute minutes three two
    work game games trouble surprise adventure gift matter kind part piece store body leg legs
    arm hair
    """
)
NAMED = re.compile(
    r"\b(an?) ((?:[a-z]+,? ){0,2}?)([a-z]+) (?:named|called|whose name was) ([A-Z][a-z]+)"
)


def singular(word: str) -> str:
    """A rough singular; only ever used to add up counts of the same noun."""
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if re.search(r"(s|x|ch|sh)es$", word):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


class NounFinder:
    """Noun statistics of a body of stories.

    A word is a noun if a fair share of its uses stand after a determiner and before a break or
    function word; it is countable if "a" or "an" is among those determiners often enough.
    """

    def __init__(self, stories: Iterable[str]) -> None:
        self.stories = 0
        self.document_count: Counter[str] = Counter()
        self._uses: Counter[str] = Counter()
        self._noun_uses: Counter[str] = Counter()
        self._after_a: Counter[str] = Counter()
        for story in stories:
            self._add(story)

    def _add(self, story: str) -> None:
        words = [word.lower() for word in WORD.findall(story)]
        self.stories += 1
        self.document_count.update({singular(word) for word in words})
        self._uses.update(words)
        for before, word, after in zip(words, words[1:], words[2:], strict=False):
            if before in DETERMINERS and after in FOLLOWERS:
                self._noun_uses[word] += 1
                self._after_a[word] += before in ("a", "an")

    def is_noun(self, word: str) -> bool:
        """Whether the word is mostly seen as a countable noun."""
        noun_uses = self._noun_uses[word]
        return (
            noun_uses >= 4
            and noun_uses >= 0.3 * self._uses[word]
            and self._after_a[word] >= 0.08 * noun_uses
            and word not in TOO_COMMON
        )

    def nouns(self, story: str, limit: int) -> list[str]:
        """The nouns that set this story apart, most telling first; each is used at least twice."""
        words = [word.lower() for word in WORD.findall(story)]
        counts = Counter(singular(word) for word in words)
        opening = {singular(word) for word in words[: len(words) // 3]}
        scores = {
            word: count * math.log(self.stories / self.document_count[word])
            for word, count in counts.items()
            if count >= 2 and word in opening and word in words and self.is_noun(word)
        }
        ranked = sorted(scores, key=lambda word: (-scores[word], word))
        return [word for word in ranked[:limit] if scores[word] >= 0.5 * scores[ranked[0]]]


def with_article(noun: str) -> str:
    """`"owl"` -> `"an owl"`."""
    sounds_closed = noun.startswith(("uni", "use", "uku", "one"))
    sounds_open = noun[0] in "aeiou" and not sounds_closed
    return f"an {noun}" if sounds_open or noun.startswith(("hour", "honest")) else f"a {noun}"


def named_character(story: str) -> str:
    """The first character introduced by kind and name, as "a dog named Spot", or nothing."""
    match = NAMED.search(story[:400])
    if match is None:
        return ""
    article, adjectives, kind, name = match.groups()
    return f"{article} {adjectives}{kind} named {name}"


def phrase_in(story: str, noun: str) -> str:
    """The noun with its article, and with the adjective of its first mention where it has one."""
    match = re.search(
        rf"\b(an? (?:big|little|small|red|blue|green|old|tiny|shiny|magic|brave|kind|"
        rf"clever|lonely|lazy|greedy|white|black|wise|yellow|young) {noun})\b",
        story,
    )
    return match.group(1) if match else with_article(noun)
