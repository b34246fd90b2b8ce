"""The training text keeps its promises, and what is kept back for evaluation is kept apart."""

import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts" / "train"
STORIES = 200
PHRASINGS = 40
QUESTIONS_EACH = 3
TRAINING = ("mixture", "story_checks", "stutter", "token_stream", "chat_tokenizer")


@pytest.fixture(scope="module")
def train() -> Iterator[SimpleNamespace]:
    """The modules of `scripts/train` that need no torch."""
    before = set(sys.modules)
    sys.path.insert(0, str(SCRIPTS))
    try:
        import mixture
        import story_checks
        import stutter
        import token_stream
        from mixture import (
            coined,
            follow_ups,
            invented,
            paraphrase,
            prompts,
            protocol,
            talk,
            vocabulary,
        )

        library = vocabulary.load_library()
        yield SimpleNamespace(
            mixture=mixture,
            checks=story_checks,
            stream=token_stream,
            stutter=stutter,
            coined=coined,
            follow_ups=follow_ups,
            invented=invented,
            paraphrase=paraphrase,
            prompts=prompts,
            protocol=protocol,
            talk=talk,
            library=library,
            chats=invented.invented_chats(
                STORIES, library.training, library, random.Random("tests")
            ),
        )
    finally:
        sys.path.remove(str(SCRIPTS))
        for name in set(sys.modules) - before:
            if name.split(".")[0] in TRAINING:
                del sys.modules[name]


def request_and_story(document) -> tuple[str, str]:
    return document.messages[-2][1], document.messages[-1][1]


def test_subjects_that_are_kept_back_are_in_no_training_list(train):
    training, kept = train.library.training, train.library.held_out
    for name in ("kinds", "thing_heroes", "plurals", "clauses", "things", "numbers"):
        assert kept.__getattribute__(name), name
        assert not set(getattr(training, name)) & set(getattr(kept, name)), name
    for gender in ("she", "he"):
        assert not set(training.names[gender]) & set(kept.names[gender])


def test_no_training_story_has_a_subject_or_a_plot_that_is_kept_back(train):
    kept, used = train.library.held_out, " ".join(train.library.training.kinds)
    kinds = [kind for kind in kept.kinds if kind.split()[-1] not in used]
    names = [name for names in kept.names.values() for name in names]
    numbers = "|".join((*train.library.training.numbers, *kept.numbers))
    pattern = re.compile(
        rf"\b({'|'.join((*names, *kept.clauses))})\b|\ban? ([a-z]+ )?({'|'.join(kinds)})\b"
        rf"|\b({numbers}) ([a-z]+ )?({'|'.join(kept.plurals)})\b"
    )
    for document in train.chats:
        assert not pattern.search(document.content), pattern.search(document.content)
    openings = {plot.name for plot in train.library.plots}
    assert not openings & {plot.name for plot in train.library.held_out_plots}
    assert len(train.library.held_out_plots) >= 5


def test_requests_that_are_kept_back_are_not_trained_on(train):
    kept, used = (set(train.prompts.phrasings(held_out=flag)) for flag in (True, False))
    assert len(kept) >= 8
    assert len(used) >= 100
    assert not kept & used
    asked = {train.protocol.normalise(request_and_story(d)[0]) for d in train.chats}
    prompts = {train.protocol.normalise(p.text) for p in train.mixture.heldout_story_prompts()}
    assert len(prompts) >= 180
    assert not asked & prompts


def test_training_stories_do_what_is_wanted_of_the_model(train):
    checks = train.checks
    failed: dict[str, int] = {}
    for document in train.chats:
        request, told = request_and_story(document)
        story = checks.without_title(told)
        found = {
            "title": story != told,
            "names": checks.names_are_kept(story, request),
            "cast": checks.cast_is_kept(story, request),
            "pronouns": checks.pronouns_are_kept(story),
            "sentence end": checks.SENTENCE_END.search(story.strip()) is not None,
            "no slot is left": not re.search(r"[{}<>|\[\]]", story),
            "length": len(story) <= 1400,
        }
        for name, good in found.items():
            failed[name] = failed.get(name, 0) + (not good)
    assert {name: n for name, n in failed.items() if n > STORIES // 100} == {}


@pytest.mark.parametrize("shape", [("hero",), ("hero", "thing"), ("thing hero",), ("plural",)])
def test_a_subject_gives_many_plots(train, shape):
    words, rng = train.library.training, random.Random("plots")
    counts = []
    for _ in range(12):
        wish = train.invented.draw_wish(shape, words, rng)
        stories = [train.invented.tell(wish, train.library, rng)[0] for _ in range(10)]
        counts.append(train.checks.count_plots(stories, (wish.hero,)))
    assert min(counts) >= 5
    assert sum(counts) >= 90  # 7.5 of ten


@pytest.mark.parametrize(
    "shape", [("hero",), ("thing",), ("hero", "thing"), ("name",), ("plural",)]
)
def test_a_story_is_told_of_its_subject_to_the_end(train, shape):
    words, rng = train.library.training, random.Random("to the end")
    for _ in range(40):
        wish = train.invented.draw_wish(shape, words, rng)
        subjects = tuple(noun for noun in (wish.name or wish.hero, wish.thing) if noun)
        story, _, _ = train.invented.tell(wish, train.library, rng)
        assert train.checks.stays_on_subject(story, subjects), story


def test_a_story_is_below_a_title_that_names_what_was_asked_for(train):
    title, checks = train.prompts.title, train.checks
    assert title(["a fox", "an old bell"]) == "The fox and the old bell"
    assert title(["some hungry fairies"]) == "The hungry fairies"
    assert title(["five piglets"]) == "The five piglets"
    assert title(["Nina", "Tom"]) == "The story of Nina and Tom"
    assert title(["the moon"]) == "The moon"
    told = train.prompts.with_title(["a fox"], "Once there was a fox.\nIt slept.")
    assert told.startswith("The fox\n")
    assert checks.without_title(told) == "Once there was a fox.\nIt slept."
    assert checks.without_title("It slept.\nIt woke.") == "It slept.\nIt woke."


@pytest.mark.parametrize(
    ("story", "request_text", "finding"),
    [
        ("There was a fox named Arlo. Then Nina came.", "a fox", "names_are_kept"),
        ("There was a fox named Arlo. He met a hen named Arlo.", "a fox", "names_are_kept"),
        ("There was a fox. The hedgehog said hello.", "a fox", "cast_is_kept"),
    ],
)
def test_the_checks_find_what_they_look_for(train, story, request_text, finding):
    assert not getattr(train.checks, finding)(story, request_text)


def test_the_checks_find_changed_pronouns_lost_subjects_and_equal_plots(train):
    checks = train.checks
    told = "There was a fox named Arlo. Arlo ran to his house. Arlo said that she was tired."
    assert not checks.pronouns_are_kept(told)
    assert checks.pronouns_are_kept(told.replace("she", "he"))
    assert not checks.pronouns_are_kept("There was a fox at her door. So he went to ask a hen.")
    assert checks.pronouns_are_kept(
        "There was a fox at her door. So she went to ask a hen. He ran."
    )
    lost = "There was a fox in a wood. " + "Then it rained and rained. " * 10
    assert not checks.stays_on_subject(lost, ("fox",))
    assert checks.stays_on_subject(lost + "The fox went home.", ("fox",))
    assert not checks.stays_on_subject(lost + "The fox went home.", ("fox", "bell"))
    story = "Once there was a fox who had lost a bell and looked for it under every stone."
    assert checks.count_plots([story, story.replace("fox", "hen"), lost], ("fox",)) == 2


def test_answers_state_their_own_facts(train):
    for entry in (*train.protocol.load_entries(), *train.talk.load_topics().values()):
        for answer in entry.answers:
            question = train.mixture.Question("", entry.facts, entry.subject, entry.wrong)
            assert question.is_answered_by(answer), (entry.subject, answer)
    for topic in train.talk.load_unknown():
        for answer in topic.answers:
            question = train.mixture.Question("", (topic.facts,), topic.name)
            assert question.is_answered_by(answer), (topic.name, answer)
    subjects = {entry.subject for entry in train.protocol.load_entries()}
    reasons = train.talk.load_reasons()
    assert set(reasons) <= subjects
    assert len(train.protocol.load_entries()) >= 150


def test_every_fact_is_asked_for_in_many_ways_and_never_in_one_that_is_kept_back(train):
    rng = random.Random("phrasings")
    kept = train.protocol.kept_back()
    assert len(train.mixture.heldout_protocol_questions()) >= 600
    for entry in train.protocol.load_entries():
        asked = {train.protocol.phrase(entry, rng) for _ in range(8 * PHRASINGS)}
        assert len(asked) >= PHRASINGS, entry.subject or entry.ask
        assert not kept & {train.protocol.normalise(question) for question in asked}


def test_small_talk_keeps_its_phrasings_back(train):
    rng = random.Random("talk")
    kept = train.talk.kept_back()
    asked = [train.talk.unknown_talk(rng)[0][1] for _ in range(500)]
    asked += [train.talk.small_talk(topic, rng)[0][1] for topic in train.talk.load_topics()]
    assert not kept & set(map(train.protocol.normalise, asked))


def test_chats_that_go_on_answer_from_the_story(train):
    rng = random.Random("follow-ups")
    for _ in range(10):
        told = train.follow_ups.tell_one(train.library, rng, 900)
        hero = told.world.hero
        for question, answer in told.questions():
            assert question[-1].isalnum() or question[-1] in ".?!"
            assert not re.search(r"[{}<>|\[\]]", answer)
        assert train.checks.mentions(told.gist(), hero.name or hero.kind)
        assert len(told.gist()) < len(told.story)


def test_a_stream_goes_on_where_it_was(train):
    def sequences_of(part: int) -> list[list[int]]:
        rng = np.random.default_rng(part)
        return [[0, *rng.integers(5, 4000, size=n).tolist()] for n in rng.integers(20, 900, 60)]

    def fresh():
        return train.stream.TokenStream(sequences_of, 2048, 1024, seed=1)

    whole = fresh()
    batches = [whole.read() for _ in range(40)]
    assert all(2048 <= sum(rows.size for rows in b) <= 2048 + 1100 for b in batches)
    for rows in (rows for b in batches for rows in b):
        assert (rows[:, 0] == 0).all()
        assert (rows[:, -1] == 0).all()
        lengths = (rows != 0).sum(axis=1)
        assert len(rows) == 1 or len(rows) * lengths.max() <= 1024
    assert whole.state_dict()["part"] >= 2
    for stop in (0, 7, 21):
        first = fresh()
        for _ in range(stop):
            first.read()
        second = fresh()
        second.load_state_dict(first.state_dict())
        for batch in batches[stop:30]:
            for rows, expected in zip(second.read(), batch, strict=True):
                np.testing.assert_array_equal(rows, expected)


def test_a_part_is_read_whole_but_for_what_does_not_fill_a_batch(train):
    rng = np.random.default_rng(3)
    documents = [[0, *rng.integers(5, 4000, size=n).tolist()] for n in rng.integers(2, 300, 400)]
    read = {
        tuple(row[: np.count_nonzero(row) + 1].tolist())
        for batch in train.stream.batches_of(documents, 2048, 512, rng)
        for rows in batch
        for row in rows
    }
    whole = set(map(tuple, documents))
    assert read <= whole
    assert sum(map(len, whole - read)) < 2048


@pytest.mark.parametrize(
    "tokens", [(), (" thr", "ush", "ling", " He", " me", "ather", "1", " a b")]
)
def test_coined_subjects_are_new_and_are_copied_into_the_story(train, tokens):
    library, rng = train.library, random.Random("coined")
    known = train.coined.known_words(library)
    real = ("wandering", "quickly", "glimmers", "husky", "throughout", "elsewhere")
    pieces = train.coined.pieces_of(real, tokens)
    words = train.coined.with_coined_words(library, pieces, rng)
    coined = set(words.kinds) - set(library.training.kinds)
    assert len(coined) == train.coined.COINED
    assert not coined & known
    assert not set(words.things) & set(library.held_out.things)
    asking = set(re.findall("[a-z]+", " ".join(train.prompts.phrasings(False)).lower()))
    coined = {word for word in coined if " " not in word} - asking
    for document in train.invented.invented_chats(60, words, library, rng):
        request, story = (text.lower() for text in request_and_story(document))
        for word in set(re.findall("[a-z]+", request)) & coined:
            assert word in story
    for document in train.invented.repeated_chats(60, words, rng):
        request, answer = request_and_story(document)
        repeated = answer.split("!")[0].split(", ", 1)[-1].rstrip(".")
        assert repeated[1:] in request


def test_an_answer_that_stutters_says_again_what_it_has_just_said(train):
    rng = np.random.default_rng(1)
    request, answer = [2, 50, 51, 52, 4], [3, *range(60, 120), 4]
    rows = np.array([[0, *request, *answer, 0]] * 400)
    stuttered, extra = train.stutter.stutter(rows, rng)
    spoken = extra.any(axis=1)
    assert 30 < spoken.sum() < 100
    assert np.array_equal(stuttered[~spoken], rows[~spoken])
    for row, before, again in zip(stuttered[spoken], rows[spoken], extra[spoken], strict=True):
        kept = row[~again]
        assert np.array_equal(kept, before[: len(kept)])
        first = int(np.flatnonzero(again)[0])
        said = row[again]
        assert any(
            np.array_equal(said, np.resize(row[first - span : first], len(said)))
            for span in range(1, train.stutter.LONGEST_SPAN + 1)
        )
        assert set(said) <= set(range(60, 120))


def test_an_answer_that_turns_yes_into_no_is_found(train):
    question = train.mixture.Question("May it?", (("may",),), "it", ("never",), ("Yes, it may.",))
    assert question.is_answered_by("Yes. It may do so.")
    assert not question.is_answered_by("No. It may not.")
    assert not question.is_answered_by("It may never.")
    assert train.mixture.sentences_of("Yes, it may. So it is!") == ["yes it may", "so it is"]
    entry = train.protocol.load_entries()[0]
    said = train.mixture.sentences_of(entry.answers[0])
    assert said
    assert set(said) <= train.mixture.known_sentences()
