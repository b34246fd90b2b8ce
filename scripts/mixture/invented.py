"""Chats that ask for a story about given subjects and get an invented one.

What it does: draws what is asked for, phrases it, has `world.py` tell the story, and adds chats
that go on afterwards ("What was the fox called?"). What it does not do: tell the story itself.
Pairs of subjects for which `world.is_held_out` holds are never asked for here; the evaluation
prompts ask for nothing else. Read `world.py` next.
"""

import random
from itertools import combinations

from .documents import Document, Message, StoryPrompt
from .prompts import join_phrases, story_chat, story_request
from .subjects import with_article
from .world import Vocabulary, Wish, World, is_held_out, load_vocabulary, tell

SHAPES = (
    ("hero", "thing"), ("hero", "thing"), ("hero", "thing"), ("hero", "thing"),
    ("hero", "friend"), ("hero", "friend"), ("hero", "place"), ("thing", "place"),
    ("hero",), ("hero",), ("thing",), ("place",), ("theme",), ("hero", "theme"),
    ("hero", "thing", "place"), (),
)  # fmt: skip
FOLLOW_UPS = 0.14  # share of the invented stories after which the chat goes on


def draw_wish(shape: tuple[str, ...], words: Vocabulary, rng: random.Random) -> Wish:
    """A wish with a subject for every name in `shape`; adjectives are asked for now and then."""
    tables: dict[str, list[str]] = {
        "hero": list(words.kinds),
        "friend": list(words.kinds),
        "thing": list(words.things),
        "place": list(words.places),
        "theme": list(words.themes),
    }
    while True:
        chosen = {part: rng.choice(tables[part]) for part in shape}
        nouns = [noun for part, noun in chosen.items() if part != "theme"]
        if len(set(nouns)) == len(nouns) and not any(
            is_held_out(*pair) for pair in combinations(nouns, 2)
        ):
            break
    if "hero" in chosen and rng.random() < 0.15:
        chosen["trait"] = rng.choice(words.traits)
    if "thing" in chosen and rng.random() < 0.15:
        thing = words.things[chosen["thing"]]
        chosen["look"] = rng.choice([look for look in thing.looks if look not in thing.noun])
    return Wish(**chosen)


def subject_phrases(wish: Wish, words: Vocabulary, rng: random.Random) -> list[str]:
    """What was asked for, as noun phrases for a request."""
    phrases = []
    if wish.hero:
        phrases.append(with_article(f"{wish.trait} {wish.hero}".strip()))
    if wish.friend:
        phrases.append(with_article(wish.friend))
    if wish.thing:
        phrases.append(with_article(f"{wish.look} {wish.thing}".strip()))
    if wish.place:
        definite = wish.place in words.unique_places or rng.random() < 0.3
        phrases.append(f"the {wish.place}" if definite else with_article(wish.place))
    if wish.theme:
        phrases.append(rng.choice(words.themes[wish.theme]))
    return phrases


def questions_about(world: World, rng: random.Random) -> list[tuple[str, str]]:
    """Questions about the story just told, with their answers, taken from its world."""
    hero, friend, thing = world.hero, world.friend, world.thing
    asked = [
        ("What was the story about?",
         f"It was about {with_article(hero.kind)} and {with_article(thing.noun)}."),
        ("Who was in the story?",
         f"There was {with_article(hero.kind)} and there was {with_article(friend.kind)}."),
        (f"Where did the {hero.kind} live?", f"Near the {world.places[0].noun}."),
        ("What thing mattered in the story?", f"The {thing.noun} did."),
    ]  # fmt: skip
    for who in (hero, friend):
        if who.name:
            ask = rng.choice(
                (
                    "What was the {0} called?",
                    "What was the name of the {0}?",
                    "what was the {0}'s name?",
                    "Do you remember the {0}'s name?",
                )
            )
            answer = rng.choice(("The {0} was called {1}.", "The {0}'s name was {1}.", "{1}."))
            asked += [(ask.format(who.kind), answer.format(who.kind, who.name))] * 3
            asked.append((f"Who was {who.name}?", f"{who.name} was the {who.kind} in the story."))
    return asked


def continue_chat(
    chat: tuple[Message, ...], world: World, words: Vocabulary, rng: random.Random
) -> tuple[Message, ...]:
    """The chat with one more turn: a question about the story, or a request for another."""
    if rng.random() < 0.75:
        question, answer = rng.choice(questions_about(world, rng))
        return (*chat, ("user", question), ("assistant", answer))
    wish = draw_wish(rng.choice(SHAPES[:4]), words, rng)
    phrase = join_phrases(subject_phrases(wish, words, rng))
    request = rng.choice((
        "Tell me another, about {0}.", "Another one, please, about {0}.", "Now one about {0}.",
        "That was nice. Can you tell one about {0}?", "Lovely! And now {0}?",
    )).format(phrase)  # fmt: skip
    return (*chat, ("user", request), ("assistant", tell(wish, words, rng)[0]))


def invented_chats(count: int, rng: random.Random) -> list[Document]:
    """`count` chats, each with a different story."""
    words = load_vocabulary()
    chats: dict[str, Document] = {}
    while len(chats) < count:
        wish = draw_wish(rng.choice(SHAPES), words, rng)
        story, world = tell(wish, words, rng)
        request = story_request(subject_phrases(wish, words, rng), rng)
        messages = story_chat(request, story, rng)
        source = "chat/invented"
        if rng.random() < FOLLOW_UPS:
            messages = continue_chat(messages, world, words, rng)
            source = "chat/invented-follow-up"
        chats.setdefault(story, Document(source, messages=messages))
    return list(chats.values())


def heldout_story_prompts(count: int = 100) -> list[StoryPrompt]:
    """Requests for an animal or person and an object that no training story brings together."""
    words, rng = load_vocabulary(), random.Random("held-out story prompts")
    pairs = [
        (kind, noun) for kind in words.kinds for noun in words.things if is_held_out(kind, noun)
    ]
    return [
        StoryPrompt(f"Tell me a story about {with_article(kind)} and {with_article(noun)}.", pair)
        for pair in rng.sample(pairs, count)
        for kind, noun in [pair]
    ]
