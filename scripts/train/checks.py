"""Judges answers by rules: stories by their form, explanations by their key facts.

A story is good if it ends by itself, ends with a sentence, tells of everything that was asked for
and does not go round in circles. Whether it is a nice story no rule here can tell. The prompts and
questions come from `mixture/`; none of them is in the training text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from generation import Answer
from mixture import Question, StoryPrompt

STORY_TOKENS = 400
EXPLANATION_TOKENS = 120
DISTINCT_SHARE = 0.8  # of a story's runs of four words
SENTENCE_END = re.compile(r"[.!?][\"')]?$")


@dataclass(frozen=True)
class Verdict:
    """What was found in one answer."""

    answer: Answer
    findings: dict[str, bool]

    @property
    def good(self) -> bool:
        """Whether every finding is favourable."""
        return all(self.findings.values())

    def to_json(self) -> dict[str, object]:
        """The answer and its findings as one flat object."""
        return {**asdict(self.answer), **self.findings, "good": self.good}


def distinct_share(text: str) -> float:
    """The share of different ones among all runs of four words; 1 where there is no run."""
    words = re.findall(r"[\w']+", text.lower())
    runs = list(zip(words, words[1:], words[2:], words[3:], strict=False))
    return len(set(runs)) / len(runs) if runs else 1.0


def mentions(text: str, subject: str) -> bool:
    """Whether the subject's last word occurs, in the singular or the plural."""
    noun = re.escape(subject.split()[-1])
    return re.search(rf"\b{noun}(s|es)?\b", text, re.IGNORECASE) is not None


def judge_story(prompt: StoryPrompt, answer: Answer) -> Verdict:
    """Check one story."""
    return Verdict(
        answer,
        {
            "ended": answer.ended,
            "sentence_end": SENTENCE_END.search(answer.text.strip()) is not None,
            "subjects": all(mentions(answer.text, subject) for subject in prompt.subjects),
            "no_loop": distinct_share(answer.text) >= DISTINCT_SHARE,
        },
    )


def judge_explanation(question: Question, answer: Answer) -> Verdict:
    """Check one explanation."""
    return Verdict(answer, {"ended": answer.ended, "facts": question.is_answered_by(answer.text)})


def share_good(verdicts: Iterable[Verdict]) -> float:
    """The share of answers in which nothing was found wrong."""
    judged = [verdict.good for verdict in verdicts]
    return sum(judged) / len(judged)
