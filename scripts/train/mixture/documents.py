"""The types that the parts of the training mixture hand to each other.

What it does: names one training document, one evaluation question and one evaluation request for
a story. What it does not do: make any text, or turn text into tokens. Read `__init__.py` next,
which puts the mixture together.
"""

import re
from dataclasses import dataclass

Message = tuple[str, str]


@dataclass(frozen=True)
class Document:
    """One piece of training text: either `text` (plain) or `messages` (a chat), never both.

    A `held_out` document is for evaluation only.
    """

    source: str
    text: str = ""
    messages: tuple[Message, ...] = ()
    held_out: bool = False

    @property
    def content(self) -> str:
        """All characters of the document, messages joined by newlines."""
        return self.text or "\n".join(content for _, content in self.messages)


def yes_or_no(text: str) -> str:
    """ "yes" or "no" where an answer begins with it, else nothing."""
    match = re.match(r"(yes|no)\b", text, re.IGNORECASE)
    return match.group(1).lower() if match else ""


@dataclass(frozen=True)
class Question:
    """A phrasing that is never trained on, and how to tell a right answer.

    `facts` must all be met; each is a tuple of alternatives, regular expressions searched for
    without regard to case. `wrong` are expressions that no right answer contains; `answers` are
    those that are trained on.
    """

    text: str
    facts: tuple[tuple[str, ...], ...]
    topic: str
    wrong: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()

    def facts_met(self, answer: str) -> int:
        """How many of the facts the answer states."""
        return sum(
            any(re.search(pattern, answer, re.IGNORECASE) for pattern in alternatives)
            for alternatives in self.facts
        )

    def is_answered_by(self, answer: str) -> bool:
        """Whether the answer states every fact and nothing that is known to be wrong."""
        return self.facts_met(answer) == len(self.facts) and not self.is_contradicted_by(answer)

    def is_contradicted_by(self, answer: str) -> bool:
        """Whether the answer states what is known to be wrong, or says yes for no or no for yes."""
        said, right = (yes_or_no(text) for text in (answer, *self.answers[:1], "")[:2])
        opposite = "" not in (said, right) and said != right
        return opposite or any(re.search(p, answer, re.IGNORECASE) for p in self.wrong)


@dataclass(frozen=True)
class StoryPrompt:
    """A request for subjects that no invented training story is about, the hero first."""

    text: str
    subjects: tuple[str, ...]
