"""How people ask for a story: many phrasings, with and without manners, full stops and capitals.

What it does: turns noun phrases such as "a fox" and "a lantern" into a request, and sometimes puts
a system message before it. What it does not do: choose the subjects (see `subjects.py` for the
corpus, `world.py` for invented stories).
"""

import random
import re
from collections.abc import Sequence

from .documents import Message

REQUESTS = """
Tell me a story about {s}.
Tell me a story about {s}.
Tell me a story about {s}.
Tell me a short story about {s}.
Tell me a little story about {s}.
Tell me a tale about {s}.
Tell me a bedtime story about {s}.
Tell me a story with {s} in it.
Can you tell me a story about {s}?
Can you tell a tale of {s}?
Can you tell me a bedtime story about {s}?
Can you make up a story about {s}?
Could you tell us a story about {s}?
Could you write a short story about {s}?
Would you tell me a story with {s} in it?
Will you tell me a story about {s}?
Do you know a story about {s}?
Do you have a story about {s}?
Write a story about {s}.
Write a story about {s}.
Write a short story about {s}.
Write me a story about {s}.
Write a tale about {s}.
Write a children's story about {s}.
Write a simple story with {s} in it.
Make up a story about {s}.
Make up a tale with {s}.
Invent a story about {s}.
I'd like a story about {s}.
I'd like a short bedtime story with {s} in it.
I would like to hear a story about {s}.
I want a story about {s}.
I want to hear a tale about {s}.
My daughter wants a story about {s}.
My little boy asks for a story about {s}.
My kids would love a story about {s}.
It is bedtime. Tell a story about {s}.
We need a story about {s}.
Give me a story about {s}.
Give me a short tale of {s}.
How about a story with {s}?
Let's have a story about {s}.
Story about {s}
Story time! Something about {s}, please.
A story about {s}, please.
A bedtime story about {s}, please.
story: {list}
Story: {list}.
Write a story with these words: {list}.
Tell me a story. It should have {s} in it.
Tell a story that begins with {s}.
Stream me a story about {s}.
Another story, this time about {s}.
Hello! Can you tell me a story about {s}?
Hi, tell me a story about {s}.
""".strip().splitlines()

ANY_STORY = """
Tell me a story.
Tell me a story, please.
Can you tell me a story?
Tell me a bedtime story.
Write a short story.
Please write a story.
I'd like a story.
story please
Make up a story for me.
Tell me something nice.
Do you know any stories?
A story, please!
""".strip().splitlines()

SYSTEM = """
You are a storyteller.
You are a kind storyteller.
You are Fireside, a small storyteller.
You tell short stories for children.
You are a helpful assistant.
You are a friendly assistant who tells stories.
You are Fireside. You tell stories and explain HTTP streaming.
Answer with a short story.
Keep it short and simple.
""".strip().splitlines()


def join_phrases(phrases: Sequence[str]) -> str:
    """`["a fox", "a hen", "a bell"]` -> `"a fox, a hen and a bell"`."""
    if len(phrases) == 1:
        return phrases[0]
    return ", ".join(phrases[:-1]) + " and " + phrases[-1]


def bare(phrase: str) -> str:
    """The phrase without its article."""
    return re.sub(r"^(an?|the|some) ", "", phrase)


def roughen(text: str, rng: random.Random) -> str:
    """Now and then add a please, or drop capitals and the last mark, as people do."""
    if "please" not in text.lower() and rng.random() < 0.15:
        text = f"{text[:-1]}, please{text[-1]}" if text[-1] in ".?" else f"{text} please"
    roll = rng.random()
    if roll < 0.12:
        text = text.rstrip(".?!")
    if roll < 0.08:
        text = text[0].lower() + text[1:]
    return text


def story_request(subjects: Sequence[str], rng: random.Random) -> str:
    """One request for a story about the given noun phrases; none given asks for any story."""
    if not subjects:
        return roughen(rng.choice(ANY_STORY), rng)
    phrases = list(subjects)
    if rng.random() < 0.2:
        rng.shuffle(phrases)
    listed = phrases if rng.random() < 0.5 else [bare(phrase) for phrase in phrases]
    template = rng.choice(REQUESTS)
    return roughen(template.format(s=join_phrases(phrases), list=", ".join(listed)), rng)


def story_chat(request: str, story: str, rng: random.Random) -> tuple[Message, ...]:
    """A chat of one request and one story, one time in six under a system message."""
    chat: tuple[Message, ...] = (("user", request), ("assistant", story))
    if rng.random() < 1 / 6:
        return (("system", rng.choice(SYSTEM)), *chat)
    return chat
