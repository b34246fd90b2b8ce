"""The training text of the shipped model: a mixture of stories, chats and notes on streaming.

What it does: gathers the parts into one list of documents, the same list for the same seed. What it
does not do: tokenise, order or batch them. Each part has its own module; read `documents.py` next
for the types, then `world.py`, which invents stories. `python -m mixture` prints what is in it.
"""

import random
from pathlib import Path

from .corpus import plain_documents, read_passages, story_chats
from .documents import Document, Question, StoryPrompt
from .invented import heldout_story_prompts, invented_chats
from .protocol import heldout_questions as heldout_protocol_questions
from .protocol import protocol_chats
from .talk import heldout_talk_questions, talk_chats

__all__ = [
    "Document",
    "Question",
    "StoryPrompt",
    "build",
    "heldout_questions",
    "heldout_story_prompts",
]

INVENTED_STORIES = 17_000
PROTOCOL_PASSES = 3
PROTOCOL_REPEAT = 3
LONG_TALKS = 2_400
TALK_REPEAT = 9
PLAIN_REPEATS = {"tinystories": 1, "storybooks": 1, "books": 1}


def heldout_questions() -> list[Question]:
    """Every phrasing that is never trained on: protocol questions first, then small talk."""
    return [*heldout_protocol_questions(), *heldout_talk_questions()]


def build(stories: Path, seed: int) -> list[Document]:
    """The whole mixture, held-out documents included, in no particular order.

    `stories` is the xz-compressed JSON-lines corpus: source, licence, title, text.
    """
    passages = read_passages(stories)
    return [
        *plain_documents(passages, PLAIN_REPEATS),
        *story_chats(passages, random.Random(f"corpus {seed}")),
        *invented_chats(INVENTED_STORIES, random.Random(f"invented {seed}")),
        *protocol_chats(PROTOCOL_PASSES, PROTOCOL_REPEAT, random.Random(f"protocol {seed}")),
        *talk_chats(LONG_TALKS, TALK_REPEAT, random.Random(f"talk {seed}")),
    ]
