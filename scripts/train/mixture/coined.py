"""Words that no other text has, as subjects.

What it does: coins nouns and names from syllables and from pieces of real words, so that a subject
cannot be known and has to be copied from the request. A model that knows all its subjects by heart
forgets one that it has never met ("quail" becomes "query"), and it copies only those tokens that it
has seen copied, which syllables alone have few of. What it does not do: ask for them (read
`invented.py` next).
"""

import random
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from .subjects import with_article, words_of
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
COINED = 600  # words of every list; more than there are others
ACCENTS = {
    "a": "áàâäãå", "c": "ç", "e": "éèêë", "i": "íîï", "n": "ñ", "o": "óôöõø", "s": "š", "u": "úùûü",
    "y": "ý", "z": "ž",
}  # fmt: skip
ACCENTED = 0.08  # of the coined names
DOUBLED = 0.1  # of the coined names: "Etta" has a token twice, as little else has
# First and last characters of other scripts: Latin-1, Greek, Cyrillic, Hebrew, kana, Han, emoji
SCRIPTS = ("ßÿ", "αω", "Ая", "את", "あん", "一鿿", "🌀🏿", "😀🙏")
BEGINS = (2, 3, 4)  # letters of a beginning
LONGEST_BLEND = 11  # letters
POSSESSIVE = 0.15  # of the subjects of two words: "a painter's horse"
# How often a subject has two words, by which of them are coined: "sea otter" is not "sea serpent"
COMPOUNDS = {(True,): 0.55, (False, False): 0.25, (True, False): 0.1, (False, True): 0.1}

# What may follow "who" besides the clauses of subjects.toml, with how such a story ends
CLAUSES = {
    "could not <noun>": "And from that day on {h} could <noun> as well as anybody.",
    "wanted to <noun>": "In the evening {h} did <noun> at last, and {f} cheered.",
    "never learned to <noun>": "The next day {f} showed {him} how to <noun>.",
    "liked <plural>": "{F} gave {him} some <plural>, and {h} liked them very much.",
    "was afraid of <plural>": "Since then {h} has not been afraid of <plural> any more.",
    "sold <plural>": "That day {h} sold all {his} <plural>.",
    "talked to <plural>": "That night {h} told it all to the <plural>.",
    "had lost {his} <noun>": "On the way home {h} found {his} <noun> again, under a bush.",
    "forgot {his} <noun>": "This time {h} had not forgotten {his} <noun>.",
    "hated the <noun>": "And the <noun>? {H} did not hate it any more.",
    "looked after <plural>": "In the evening {h} counted the <plural>: they were all there.",
    "dreamed of <a_noun>": "That night {h} dreamed of <a_noun> again, and of {f}.",
    "lived with <a_noun>": "And {f} came to see {him} and the <noun> every week.",
    "had never seen <a_noun>": "A week later {f} showed {him} <a_noun> at last.",
}


def syllables(count: int, rng: random.Random) -> str:
    """`count` syllables, the last of which may be open."""
    return "".join(
        rng.choice(ONSETS) + rng.choice(VOWELS) + (rng.choice(CODAS) if rng.random() < 0.4 else "")
        for _ in range(count)
    )


@dataclass(frozen=True)
class Pieces:
    """What words are coined from: real words, beginnings of nouns and of names, and ends."""

    words: Sequence[str]
    begins: Sequence[str]
    name_begins: Sequence[str]
    ends: Sequence[str]

    def blend(self, begins: Sequence[str], rng: random.Random) -> str:
        """A beginning and an end or two, as "thr" and "oblin"."""
        while True:
            word = rng.choice(begins) + "".join(rng.choices(self.ends, k=rng.choice((1, 1, 2))))
            if len(word) <= LONGEST_BLEND:
                return word


def pieces_of(words: Sequence[str], tokens: Collection[str] = ()) -> Pieces:
    """Pieces of `words`; of a tokenizer's `tokens` where there are some.

    Those that begin a word have a space before. As each is drawn as often as any other, a model
    sees each of its tokens copied; most hardly occur in what is written about.
    """
    if not tokens:
        begins = {" " + word[:n] for word in words for n in BEGINS}
        tokens = {*begins, *(b.title() for b in begins), *(w[n:] for w in words for n in BEGINS)}
    kinds = (" [a-z]+", " [A-Z][a-z]*", "[a-z]+")
    found = [sorted({t.strip() for t in tokens if re.fullmatch(kind, t)}) for kind in kinds]
    return Pieces(words, *found)


def noun(real: Pieces, rng: random.Random) -> str:
    """A noun that nobody knows as one: a blend, some syllables, or a real word of any kind."""
    roll = rng.random()
    if roll < 0.45:
        return real.blend(real.begins, rng)
    if roll < 0.65:
        return rng.choice(real.words)
    if roll < 0.8:
        return syllables(rng.choice((1, 2)), rng)
    return syllables(1, rng) + rng.choice(("", *CODAS)) + rng.choice(NOUN_ENDS)


def name(gender: str, real: Pieces, rng: random.Random) -> str:
    """A coined name, half of the time one that does not tell its gender."""
    if rng.random() < 0.5:
        word = real.blend(real.name_begins, rng)
    else:
        word = (syllables(rng.choice((1, 1, 2)), rng) + rng.choice(NAME_ENDS[gender])).capitalize()
    if rng.random() < DOUBLED and len(word) > 2:
        word = doubled(word, rng)
    return accented(word, rng) if rng.random() < ACCENTED else word


def accented(word: str, rng: random.Random) -> str:
    """The word with an accent on one of its letters that may have one."""
    places = [i for i, letter in enumerate(word) if letter in ACCENTS]
    if not places:
        return word
    i = rng.choice(places)
    return word[:i] + rng.choice(ACCENTS[word[i]]) + word[i + 1 :]


def doubled(word: str, rng: random.Random) -> str:
    """The word with one of its inner letters twice."""
    i = rng.randrange(1, len(word) - 1)
    return word[:i] + word[i] + word[i:]


def foreign(rng: random.Random) -> str:
    """One to six characters of one script that is not ours, which are tokens of single bytes."""
    first, last = map(ord, rng.choice(SCRIPTS))
    return "".join(chr(rng.randint(first, last)) for _ in range(rng.randint(1, 6)))


def plural(word: str) -> str:
    """The plural of a coined noun."""
    return word + ("es" if word.endswith(("s", "x", "sh", "ch", "z")) else "s")


def clauses(library: Library, real: Pieces, rng: random.Random) -> dict[str, str]:
    """As many coined clauses as there are others: what may follow "who", and how it ends."""
    words = library.training
    coined: dict[str, str] = {}
    while len(coined) < len(words.clauses):
        clause, end = rng.choice(list(CLAUSES.items()))
        known = rng.choice((*words.kinds, *words.things)).split()[-1]
        word = known if rng.random() < 0.5 else noun(real, rng)
        slots = {"noun": word, "a_noun": with_article(word), "plural": plural(word)}
        for slot, text in slots.items():
            clause, end = clause.replace(f"<{slot}>", text), end.replace(f"<{slot}>", text)
        if clause not in library.held_out.clauses:
            coined[clause] = end
    return coined


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


def with_coined_words(library: Library, pieces: Pieces, rng: random.Random) -> Vocabulary:
    """What is trained on, with coined subjects in each list.

    `pieces` are what they are coined from; what is kept back is none of them.
    """
    words, known = library.training, known_words(library) | known_subjects(library)
    real = replace(pieces, words=[w for w in pieces.words if w not in known_words(library)])
    first = (*words.kinds, *words.things, *words.places, *words.thing_heroes)

    def nouns(last: tuple[str, ...]) -> tuple[str, ...]:
        def draw() -> str:
            shape = rng.choices(list(COMPOUNDS), list(COMPOUNDS.values()))[0]
            places = zip(shape, (first, last)[-len(shape) :], strict=True)
            drawn = [
                noun(real, rng) if is_coined else rng.choice(among).split()[-1]
                for is_coined, among in places
            ]
            link = "'s " if rng.random() < POSSESSIVE else " "
            return link.join(drawn)

        return coin(draw, known)

    things = {thing: Thing(thing, ANY, LOOKS, is_large=False) for thing in nouns((*words.things,))}
    return replace(
        words,
        kinds=(*words.kinds, *nouns(words.kinds)),
        thing_heroes=(*words.thing_heroes, *nouns(words.thing_heroes)),
        plurals=(*words.plurals, *coin(lambda: plural(noun(real, rng)), known)),
        things={**words.things, **things},
        clauses={**words.clauses, **clauses(library, real, rng)},
        names={
            gender: (*names, *coin(lambda gender=gender: name(gender, real, rng), known))  # type: ignore[misc]
            for gender, names in words.names.items()
        },
    )
