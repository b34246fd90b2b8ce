"""Words that no other text has, as subjects.

What it does: coins nouns and names from syllables, so that a subject cannot be known and has to be
copied from the request. A model that knows all its subjects by heart forgets one that it has never
met ("quail" becomes "query"). What it does not do: ask for them (read `invented.py` next).
"""

import random
from collections.abc import Callable
from dataclasses import replace

from .subjects import words_of
from .vocabulary import ANY, Library, Thing, Vocabulary

ONSETS = sorted(
    words_of(
        """
        b br bl c ch cl cr d dr f fl fr g gl gr h j k l m n p pl pr qu r s sc sh sk sl sm sn sp st
        str sw t th tr tw v w wh y z
        """
    )
)
VOWELS = sorted(words_of("a e i o u a e i o u ai ea ee ie oa oo ou ay ow"))
CODAS = sorted(words_of("b ck d g l ll m n nd ng nk nt p r rd rk rm rn rt sh sk st t th tch x"))
NOUN_ENDS = sorted(words_of("el er le ow in on et ock ling ard ee ot um ish ant and oon ip"))
NAME_ENDS = {
    "she": sorted(words_of("a ia ina elle y ette is une ora wen")),
    "he": sorted(words_of("o us en on ar ert ik ald in or")),
}
LOOKS = ("old", "new", "little", "shiny", "broken", "red", "blue")
COINED = 400  # words of every list; about as many as there are others
# How often a subject has two words, by which of them are coined: "sea otter" is not "sea serpent"
COMPOUNDS = {(True,): 0.55, (False, False): 0.25, (True, False): 0.1, (False, True): 0.1}


def syllables(count: int, rng: random.Random) -> str:
    """`count` syllables, the last of which may be open."""
    return "".join(
        rng.choice(ONSETS) + rng.choice(VOWELS) + (rng.choice(CODAS) if rng.random() < 0.4 else "")
        for _ in range(count)
    )


def noun(rng: random.Random) -> str:
    """A coined noun of one to three syllables."""
    if rng.random() < 0.4:
        return syllables(rng.choice((1, 2)), rng)
    return syllables(1, rng) + rng.choice(("", *CODAS)) + rng.choice(NOUN_ENDS)


def name(gender: str, rng: random.Random) -> str:
    """A coined name of two or three syllables."""
    return (syllables(rng.choice((1, 1, 2)), rng) + rng.choice(NAME_ENDS[gender])).capitalize()


def plural(word: str) -> str:
    """The plural of a coined noun."""
    return word + ("es" if word.endswith(("s", "x", "sh", "ch", "z")) else "s")


def coin(draw: Callable[[], str], known: frozenset[str]) -> tuple[str, ...]:
    """Different coined words, none of which is known."""
    words: dict[str, None] = {}
    while len(words) < COINED:
        word = draw()
        if len(word) > 2 and word not in known:
            words[word] = None
    return tuple(words)


def known_subjects(library: Library) -> frozenset[str]:
    """All subjects that exist, those that are kept back too."""
    return frozenset(
        subject
        for words in (library.training, library.held_out)
        for group in (words.kinds, words.thing_heroes, words.plurals, tuple(words.things))
        for subject in (*group, *words.names["she"], *words.names["he"])
    )


def known_words(library: Library) -> frozenset[str]:
    """All words of subjects."""
    return frozenset(word for subject in known_subjects(library) for word in subject.split())


def with_coined_words(library: Library, rng: random.Random) -> Vocabulary:
    """What is trained on, with as many coined subjects in each list as there are others."""
    words, known = library.training, known_words(library) | known_subjects(library)
    first = (*words.kinds, *words.things, *words.places, *words.thing_heroes)

    def nouns(last: tuple[str, ...]) -> tuple[str, ...]:
        def draw() -> str:
            shape = rng.choices(list(COMPOUNDS), list(COMPOUNDS.values()))[0]
            places = zip(shape, (first, last)[-len(shape) :], strict=True)
            drawn = [noun(rng) if is_coined else rng.choice(among) for is_coined, among in places]
            return " ".join(word.split()[-1] for word in drawn)

        return coin(draw, known)

    things = {thing: Thing(thing, ANY, LOOKS, is_large=False) for thing in nouns((*words.things,))}
    return replace(
        words,
        kinds=(*words.kinds, *nouns(words.kinds)),
        thing_heroes=(*words.thing_heroes, *nouns(words.thing_heroes)),
        plurals=(*words.plurals, *coin(lambda: plural(noun(rng)), known)),
        things={**words.things, **things},
        names={
            gender: (*names, *coin(lambda gender=gender: name(gender, rng), known))  # type: ignore[misc]
            for gender, names in words.names.items()
        },
    )
