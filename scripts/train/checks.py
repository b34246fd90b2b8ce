"""Judges answers by rules: stories by their form and their characters, explanations by key facts.

The requests and questions come from `mixture/`; none of them is in the training text, and no
training story is about their subjects. `story_checks.py` has the rules for stories.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from generation import Answer, Turn
from mixture import Question, StoryPrompt, known_sentences, sentences_of
from story_checks import (
    DISTINCT_SHARE,
    SENTENCE_END,
    cast_is_kept,
    distinct_share,
    mentions,
    names_are_kept,
    pronouns_are_kept,
    same_plot,
    stays_on_subject,
    without_title,
)

STORY_TOKENS = 400
EXPLANATION_TOKENS = 120


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


def judge_story(prompt: StoryPrompt, answer: Answer) -> Verdict:
    """Check one story."""
    text = without_title(answer.text)
    return Verdict(
        answer,
        {
            "ended": answer.ended,
            "sentence_end": SENTENCE_END.search(text) is not None,
            "subjects": stays_on_subject(text, prompt.subjects),
            "names": names_are_kept(text, prompt.text) and cast_is_kept(text, prompt.text),
            "pronouns": pronouns_are_kept(text),
            "no_loop": distinct_share(text) >= DISTINCT_SHARE,
        },
    )


def judge_explanation(question: Question, answer: Answer) -> Verdict:
    """Check one explanation.

    An answer of which every sentence stands in the notes that were trained on asserts nothing
    false, even where it is the answer to another question; any other sentence may be false.
    """
    known = all(sentence in known_sentences() for sentence in sentences_of(answer.text))
    right = question.is_answered_by(answer.text)
    return Verdict(
        answer,
        {
            "ended": answer.ended,
            "facts": right,
            "nothing_false": not question.is_contradicted_by(answer.text) and (known or right),
        },
    )


@dataclass(frozen=True)
class FollowUp:
    """A chat whose last request is judged by what it asks for: another story, or a short answer."""

    turns: tuple[Turn, ...]
    wants: str  # "another", "shorter", "happened" or "about"
    subject: str


def judge_follow_up(asked: FollowUp, answer: Answer) -> Verdict:
    """Check the answer to a request that goes on from a story."""
    before = [without_title(text) for role, text in asked.turns if role == "assistant"]
    text = without_title(answer.text)
    findings = {"ended": answer.ended, "subject": mentions(text, asked.subject)}
    if asked.wants in ("another", "about"):
        findings["is_story"] = len(text) > 250
        findings["is_new"] = not any(same_plot(text, story, set()) for story in before)
    else:
        findings["is_short"] = len(text) < 0.6 * len(before[-1])
    return Verdict(answer, findings)


def share_good(verdicts: Iterable[Verdict]) -> float:
    """The share of answers in which nothing was found wrong."""
    judged = [verdict.good for verdict in verdicts]
    return sum(judged) / len(judged)
