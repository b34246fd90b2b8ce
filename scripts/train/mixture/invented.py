"""Chats that ask for a story about given subjects and get an invented one.

What it does: draws what is asked for, phrases it and has `world.py` tell the story; the same for
subjects that are kept back, as requests and as held-out documents. What it does not do: tell the
story itself, or go on with the chat (read `follow_ups.py` next).
"""

import random
from dataclasses import replace

from .cast import PRONOUNS
from .coined import foreign
from .documents import Document, StoryPrompt
from .prompts import GREETED, REPEATED, join_phrases, story_chat, story_request, with_title
from .subjects import with_article
from .vocabulary import Library, Vocabulary, load_library
from .world import Wish, tell

# What is asked for, and how often
SHAPES = {
    ("hero",): 10, ("hero", "thing"): 9, ("hero", "friend"): 6, ("hero", "place"): 3, ("thing",): 7,
    ("place",): 1, ("theme",): 4, ("hero", "theme"): 2, ("plural",): 9, ("plural", "place"): 1,
    ("thing hero",): 9, ("hero", "clause"): 7, ("name",): 8, ("hero", "name"): 4,
    ("name", "friend_name"): 3, ("hero", "thing", "place"): 2, (): 3,
}  # fmt: skip
HELD_OUT_SHAPES = {
    ("hero",): 4, ("hero", "thing"): 4, ("hero", "friend"): 2, ("thing",): 2, ("plural",): 3,
    ("thing hero",): 3, ("hero", "clause"): 3, ("name",): 2, ("hero", "name"): 2,
    ("name", "friend_name"): 1,
}  # fmt: skip
HELD_OUT_STORIES = 120
FOREIGN = 0.08  # of what is repeated: characters of other scripts, and words
LISTED = 0.6  # of what is repeated: several words, most of which nobody knows


def draw_shape(shapes: dict[tuple[str, ...], int], rng: random.Random) -> tuple[str, ...]:
    """One of the shapes, by its weight."""
    return rng.choices(list(shapes), list(shapes.values()))[0]


def draw_wish(shape: tuple[str, ...], words: Vocabulary, rng: random.Random) -> Wish:
    """A wish with a subject for every part of `shape`; adjectives are asked for now and then."""
    wish = Wish()
    if "plural" in shape:
        wish = replace(wish, hero=rng.choice(words.plurals), number=rng.choice(words.numbers))
    if "thing hero" in shape:
        wish = replace(wish, hero=rng.choice(words.thing_heroes), is_thing=True)
    if "hero" in shape:
        kind = rng.choice(words.kinds)
        gender = words.gender_of.get(kind) or rng.choice(("she", "he"))
        wish = replace(wish, hero=kind, gender=gender if shape != ("hero", "friend") else "")
    if "name" in shape:
        wish = named(wish, shape, words, rng)
    if "clause" in shape:
        wish = replace(wish, clause=rng.choice(list(words.clauses)))
    if "friend" in shape:
        others = [kind for kind in words.kinds if set(kind.split()).isdisjoint(wish.hero.split())]
        wish = replace(wish, friend=rng.choice(others))
    if "thing" in shape:
        wish = with_thing(wish, words, rng)
    if "place" in shape:
        wish = replace(wish, place=rng.choice(list(words.places)))
    if "theme" in shape:
        wish = replace(wish, theme=rng.choice(list(words.themes)))
    return with_trait(wish, words, rng)


def named(wish: Wish, shape: tuple[str, ...], words: Vocabulary, rng: random.Random) -> Wish:
    """The wish with a name for the hero, and for the friend where the shape has one."""
    gender = wish.gender or rng.choice(("she", "he"))
    name = rng.choice(words.names[gender])
    kind = wish.hero or rng.choice({"she": ("girl", "woman"), "he": ("boy", "man")}[gender])
    wish = replace(wish, hero=kind, name=name, gender=gender)
    if "friend_name" in shape:
        other = {"she": "he", "he": "she"}[gender]
        friends = [n for n in words.names[other] if n[0] != name[0]]
        friend = {"she": "girl", "he": "boy"}[other]
        wish = replace(wish, friend_name=rng.choice(friends), friend=friend)
    return wish


def with_thing(wish: Wish, words: Vocabulary, rng: random.Random) -> Wish:
    """The wish with an object, now and then with an adjective."""
    things = [n for n in words.things if set(n.split()).isdisjoint(wish.hero.split())]
    thing = words.things[rng.choice(things)]
    looks = [look for look in thing.looks if look not in thing.noun]
    look = rng.choice(looks) if rng.random() < 0.2 else ""
    return replace(wish, thing=thing.noun, look=look)


def with_trait(wish: Wish, words: Vocabulary, rng: random.Random) -> Wish:
    """The wish, now and then with an adjective for its hero."""
    if not wish.hero or wish.clause or rng.random() < 0.75 or wish.hero in words.unique:
        return wish
    traits = words.thing_traits if wish.is_thing else words.traits
    fitting = [trait for trait in traits if trait not in f"{wish.number} {wish.hero}"]
    return replace(wish, trait=rng.choice(fitting))


def hero_phrase(wish: Wish, words: Vocabulary, rng: random.Random) -> str:
    """The hero as a noun phrase for a request."""
    kind = f"{wish.trait} {wish.hero}".strip()
    if wish.number:
        bare = (kind, f"the {kind}", f"some {kind}") if not wish.trait else (f"some {kind}",)
        number = "" if wish.number == "some" else f"{wish.number} {kind}"
        return number if number and rng.random() < 0.5 else rng.choice(bare)
    if wish.hero in words.unique:
        return f"the {wish.hero}"
    if wish.name:
        if wish.hero in ("girl", "woman", "boy", "man") and not wish.trait:
            return wish.name
        full = with_article(kind)
        name = wish.name
        forms = (f"{full} named {name}", f"{full} called {name}", f"{name} the {kind}")
        return rng.choice(forms)
    phrase = f"the {kind}" if rng.random() < 0.05 else with_article(kind)
    if wish.clause:
        pronouns = dict(zip(PRONOUNS["he"], PRONOUNS[wish.gender], strict=True))
        phrase += f" who {wish.clause.format(**pronouns)}"
    return phrase


def subject_phrases(wish: Wish, words: Vocabulary, rng: random.Random) -> list[str]:
    """What was asked for, as noun phrases for a request."""
    phrases = []
    if wish.hero:
        phrases.append(hero_phrase(wish, words, rng))
    if wish.friend_name:
        phrases.append(wish.friend_name)
    elif wish.friend:
        phrases.append(with_article(wish.friend))
    if wish.thing:
        phrases.append(with_article(f"{wish.look} {wish.thing}".strip()))
    if wish.place:
        definite = wish.place in words.unique or rng.random() < 0.3
        phrases.append(f"the {wish.place}" if definite else with_article(wish.place))
    if wish.theme:
        phrases.append(rng.choice(words.themes[wish.theme]))
    return phrases


def invented_chats(
    count: int, words: Vocabulary, library: Library, rng: random.Random
) -> list[Document]:
    """`count` chats of one request and one story.

    What is asked for comes from `words`; whoever else is in a story is one to train on.
    """
    also = replace(library.held_out, things=words.things, clauses=words.clauses)
    asked = replace(library, held_out=also)
    chats = []
    while len(chats) < count:
        wish = draw_wish(draw_shape(SHAPES, rng), words, rng)
        try:
            story, world, _ = tell(wish, asked, rng)
        except ValueError:
            continue
        phrases = subject_phrases(wish, words, rng)
        titled = with_title(phrases or [world.hero.definite], story)
        messages = story_chat(story_request(phrases, rng), titled, rng)
        chats.append(Document("chat/invented", messages=messages))
    return chats


def repeated_chats(count: int, words: Vocabulary, rng: random.Random) -> list[Document]:
    """`count` short chats that repeat a subject, or greet somebody."""
    chats: list[Document] = []
    while len(chats) < count:
        forms = rng.choice((REPEATED, REPEATED, GREETED))
        request, answer = rng.choice(forms)
        shapes = SHAPES if forms is REPEATED else {("name",): 1}
        wish = draw_wish(draw_shape(shapes, rng), words, rng)
        phrases = subject_phrases(wish, words, rng) if forms is REPEATED else [wish.name]
        if forms is REPEATED and rng.random() < LISTED:
            nouns = (*words.kinds, *words.thing_heroes, *words.plurals, *words.things)
            names = (*words.names["she"], *words.names["he"])
            phrases = [*rng.sample(nouns, rng.randint(3, 6)), rng.choice(names)]
        if forms is REPEATED and rng.random() < FOREIGN:
            phrases = [*(foreign(rng) for _ in range(rng.randint(1, 4))), rng.choice(words.kinds)]
            rng.shuffle(phrases)
        if phrases:
            text = join_phrases(phrases)
            begun = text[0].upper() + text[1:]
            messages = (("user", request.format(text)), ("assistant", answer.format(text, begun)))
            chats.append(Document("chat/repeated", messages=messages))
    return chats


def held_out_chats(library: Library) -> list[Document]:
    """Stories on subjects that are kept back, asked for in phrasings that are kept back."""
    rng = random.Random("held-out stories")
    chats: list[Document] = []
    while len(chats) < HELD_OUT_STORIES:
        wish = draw_wish(draw_shape(HELD_OUT_SHAPES, rng), library.held_out, rng)
        phrases = subject_phrases(wish, library.held_out, rng)
        request = story_request(phrases, rng, held_out=True)
        try:
            story, _, _ = tell(wish, library, rng, held_out=not wish.thing)
        except ValueError:
            continue
        messages = (("user", request), ("assistant", with_title(phrases, story)))
        chats.append(Document("chat/invented", messages=messages, held_out=True))
    return chats


def heldout_story_prompts(count: int = 200) -> list[StoryPrompt]:
    """Requests for subjects that no training story is about, in phrasings that are kept back."""
    library, rng = load_library(), random.Random("held-out story prompts")
    words = library.held_out
    prompts = []
    for _ in range(count):
        wish = draw_wish(draw_shape(HELD_OUT_SHAPES, rng), words, rng)
        text = story_request(subject_phrases(wish, words, rng), rng, held_out=True)
        heroes = (wish.name,) if wish.name else (wish.hero,) if wish.hero else ()
        others = tuple(n for n in (wish.friend_name or wish.friend, wish.thing) if n)
        prompts.append(StoryPrompt(text, heroes + others))
    return prompts
