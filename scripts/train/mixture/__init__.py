"""The training text of the shipped model: a mixture of stories, chats and notes on streaming.

What it does: gathers the training text part by part, the same part for the same seed and number.
What it does not do: tokenise, order or batch documents. Each source has its own module; read
`documents.py` next for the types, then `world.py`, which invents stories. `python -m mixture`
prints what is in a part.
"""

import random
from collections.abc import Collection
from pathlib import Path

from .coined import pieces_of, with_coined_words
from .corpus import common_words, plain_documents, read_passages, story_chats
from .documents import Document, Question, StoryPrompt
from .invented import held_out_chats, heldout_story_prompts, invented_chats, repeated_chats
from .protocol import heldout_questions as heldout_protocol_questions
from .protocol import protocol_chats
from .talk import heldout_talk_questions, known_sentences, sentences_of, talk_chats
from .vocabulary import load_library

__all__ = [
    "Document",
    "Mixture",
    "Question",
    "StoryPrompt",
    "heldout_protocol_questions",
    "heldout_story_prompts",
    "heldout_talk_questions",
    "known_sentences",
    "sentences_of",
]

# How much of each source a part has, in documents or in passes over all questions
STORIES, REPEATED = 2_200, 1_300
PROTOCOL_PASSES, PROTOCOL_FOLLOW_UPS = 18, 300
TALK_PASSES, UNKNOWN, LONGER_TALKS = 14, 450, 620
CORPUS = {
    "plain/tinystories": 240,
    "plain/books": 50,
    "plain/storybooks": 50,
    "chat/tinystories": 120,
    "chat/storybooks": 40,
}


class Mixture:
    """The parts of the training text, and the held-out text of the corpus.

    `stories` is the xz-compressed JSON-lines corpus: source, licence, title, text.
    """

    def __init__(self, stories: Path, seed: int) -> None:
        self._seed = seed
        rng = random.Random(f"corpus {seed}")
        passages = read_passages(stories)
        self._library = load_library()
        self._words = common_words(passages)
        self._pieces = pieces_of(self._words)
        documents = [*plain_documents(passages), *story_chats(passages, rng)]
        self.held_out = [
            *(document for document in documents if document.held_out),
            *held_out_chats(self._library),
        ]
        self._corpus = {
            source: [d for d in documents if d.source == source and not d.held_out]
            for source in CORPUS
        }
        for group in self._corpus.values():
            rng.shuffle(group)

    def coin_from(self, tokens: Collection[str]) -> None:
        """Coin subjects from the tokens of a tokenizer; those that begin a word have a space."""
        self._pieces = pieces_of(self._words, tokens)

    def part(self, number: int) -> list[Document]:
        """All documents of part `number`, in no particular order; there is no last part."""
        name = f"{self._seed} {number}"
        words = with_coined_words(self._library, self._pieces, random.Random(f"coined {name}"))
        return [
            *self._corpus_part(number),
            *invented_chats(STORIES, words, self._library, random.Random(f"invented {name}")),
            *repeated_chats(REPEATED, words, random.Random(f"repeated {name}")),
            *protocol_chats(
                PROTOCOL_PASSES, PROTOCOL_FOLLOW_UPS, random.Random(f"protocol {name}")
            ),
            *talk_chats(
                TALK_PASSES,
                UNKNOWN,
                LONGER_TALKS,
                self._library,
                random.Random(f"talk {name}"),
            ),
        ]

    def _corpus_part(self, number: int) -> list[Document]:
        return [
            group[i % len(group)]
            for source, group in self._corpus.items()
            for i in range(number * CORPUS[source], (number + 1) * CORPUS[source])
        ]
