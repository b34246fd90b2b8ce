"""The shipped model, through its own engine, on subjects and phrasings it was not trained on.

The same checks as `scripts/train/evaluate.py` on a few of its requests. The least shares are what
the shipped weights reach on these requests, with room for a machine that rounds otherwise.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "scripts" / "train"
MODULES = ("checks", "generation", "mixture", "story_checks")
STORY_EVERY, QUESTION_EVERY, TALK_EVERY = 16, 40, 6


@pytest.fixture(scope="module")
def fireside() -> Iterator[SimpleNamespace]:
    """The shipped model's answers to every so many-th held-out request, judged."""
    before = set(sys.modules)
    sys.path.insert(0, str(SCRIPTS))
    try:
        import checks
        import generation
        import mixture

        folder = ROOT / "weights" / "fireside"
        assistant = generation.Assistant(folder)
        sampling = generation.default_sampling(folder)

        def explain(questions):
            texts = [question.text for question in questions]
            answers = assistant.answer_all(texts, sampling, checks.EXPLANATION_TOKENS)
            return list(map(checks.judge_explanation, questions, answers))

        prompts = mixture.heldout_story_prompts()[::STORY_EVERY]
        stories = assistant.answer_all([p.text for p in prompts], sampling, checks.STORY_TOKENS)
        yield SimpleNamespace(
            stories=list(map(checks.judge_story, prompts, stories)),
            protocol=explain(mixture.heldout_protocol_questions()[::QUESTION_EVERY]),
            talk=explain(mixture.heldout_talk_questions()[::TALK_EVERY]),
        )
    finally:
        sys.path.remove(str(SCRIPTS))
        for name in set(sys.modules) - before:
            if name.split(".")[0] in MODULES:
                del sys.modules[name]


def share(verdicts, finding: str) -> float:
    return sum(verdict.findings[finding] for verdict in verdicts) / len(verdicts)


@pytest.mark.parametrize(
    ("finding", "least"), [("ended", 0.9), ("names", 0.8), ("no_loop", 0.9), ("subjects", 0.6)]
)
def test_stories(fireside, finding, least):
    assert share(fireside.stories, finding) >= least


@pytest.mark.parametrize(("finding", "least"), [("ended", 0.9), ("facts", 0.75)])
def test_explanations(fireside, finding, least):
    assert share(fireside.protocol, finding) >= least


def test_small_talk(fireside):
    assert share(fireside.talk, "ended") >= 0.9
