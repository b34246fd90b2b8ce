"""`streamtok learn`: goes through lessons with someone in a terminal, or writes them out.

Knows no lesson: these are in `streamtok.teach.lessons`. How things look is in
`streamtok.teach.lessons.screen`.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from streamtok.errors import ConfigError
from streamtok.teach.build.learn import rows
from streamtok.teach.config import LearnConfig
from streamtok.teach.lessons import LESSONS
from streamtok.teach.lessons.lab import Lab, open_lab
from streamtok.teach.lessons.lesson import Block, Lesson, Mistake, Question, Table, Wire
from streamtok.teach.lessons.screen import Screen
from streamtok.teach.progress import Progress

LADDER = (
    "All of this as code, in steps: `python -m streamtok.first.chunks`, and its source. To build "
    "it yourself: `streamtok learn build`."
)
TRIES = 2  # at a question, before the answer is shown


def learn(config: LearnConfig, numbers: Sequence[str]) -> int:
    """Give the lessons of these numbers, or all that are left; return the exit status.

    Raises:
        ConfigError: there is no lesson of that number, or a setting is wrong.
    """
    progress = Progress(Path(config.progress))
    chosen = [_lesson(number) for number in numbers] or _left(config, progress)
    logging.getLogger().addHandler(logging.NullHandler())  # the server's log would stand in between
    screen = Screen(config.plain)
    with open_lab() as lab:
        host, port = lab.address
        screen.note(
            f"A server was started for you at http://{host}:{port}. All that is shown is its doing."
        )
        if config.plain:
            for lesson in chosen:
                _write_out(lesson, lab, screen)
        else:
            _Tutor(lab, screen, progress).give(chosen)
    screen.note(LADDER)
    return 0


def list_lessons(config: LearnConfig) -> int:
    """Show what lessons there are, and which are done; return the exit status."""
    progress = Progress(Path(config.progress))
    done = progress.done
    for number, lesson in enumerate(LESSONS, 1):
        mark = "done" if lesson.name in done else ""
        print(f"{number:>2}  {mark:<4}  {lesson.title}")
    print("\nlearn build:", *rows(progress), sep="\n")
    return 0


def _lesson(number: str) -> Lesson:
    if number.isascii() and number.isdigit() and 1 <= int(number) <= len(LESSONS):
        return LESSONS[int(number) - 1]
    raise ConfigError(
        f"lesson {number!r}: expected a number from 1 to {len(LESSONS)}; "
        "`streamtok learn --list` names them"
    )


def _left(config: LearnConfig, progress: Progress) -> list[Lesson]:
    """Return all lessons from the first that is not done; all, where none is left."""
    names = [lesson.name for lesson in LESSONS]
    undone = [place for place, name in enumerate(names) if name not in progress.done]
    return list(LESSONS[undone[0] if undone and not config.plain else 0 :])


def _heading(lesson: Lesson) -> str:
    return f"Lesson {LESSONS.index(lesson) + 1} of {len(LESSONS)}: {lesson.title}"


def _show(block: Block, screen: Screen) -> None:
    """Show a part of a lesson."""
    if isinstance(block, str):
        screen.paragraph(block)
    elif isinstance(block, Wire):
        screen.wire(block)
    elif isinstance(block, Table):
        screen.table(block)
    else:
        screen.question(block)


def _write_out(lesson: Lesson, lab: Lab, screen: Screen) -> None:
    """Show a lesson without anyone there: questions with their answers, and the default change."""
    screen.heading(_heading(lesson), lesson.module)
    for block in lesson.show(lab):
        _show(block, screen)
        if isinstance(block, Question):
            screen.verdict(f"Answer: {block.shown}.", block.why, "green")
    screen.paragraph(f"Your turn: {lesson.invitation}")
    screen.paragraph(f"Tried: `{lesson.default}`")
    for block in lesson.change(lab, lesson.default):
        _show(block, screen)


class _Tutor:
    """Goes through lessons with someone who answers."""

    def __init__(self, lab: Lab, screen: Screen, progress: Progress) -> None:
        self._lab = lab
        self._screen = screen
        self._progress = progress

    def give(self, lessons: Sequence[Lesson]) -> None:
        """Give these lessons, until the learner leaves by Ctrl-D or Ctrl-C."""
        _enable_line_editing()
        self._screen.note("Ctrl-D leaves; `streamtok learn` goes on where you were.")
        for place, lesson in enumerate(lessons):
            try:
                if place:
                    self._screen.ask(f"Enter goes on with: {lesson.title}.")
                self._give(lesson)
            except (EOFError, KeyboardInterrupt) as error:
                number = LESSONS.index(lesson) + 1
                self._screen.paragraph(f"`streamtok learn {number}` goes on here.")
                if isinstance(error, KeyboardInterrupt):
                    raise
                return

    def _give(self, lesson: Lesson) -> None:
        self._screen.heading(_heading(lesson), lesson.module)
        for block in lesson.show(self._lab):
            _show(block, self._screen)
            if isinstance(block, Question):
                self._question(block)
        self._change(lesson)
        try:
            self._progress.add(lesson.name)
        except ConfigError as error:  # no reason to stop learning
            self._screen.note(str(error))
        self._screen.paragraph(f"Done. `{lesson.module}` is where this happens.")

    def _question(self, question: Question) -> None:
        """Ask until the answer is right; after some tries, or an empty line, show it."""
        for attempt in range(TRIES):
            given = self._screen.ask("Your answer (Enter shows it):")
            if question.accepts(given):
                self._screen.verdict("Right.", question.why, "green")
                return
            if not given:
                break
            if attempt + 1 < TRIES:
                self._screen.verdict("Not quite.", question.hint, "yellow")
        self._screen.verdict(f"It is: {question.shown}.", question.why, "yellow")

    def _change(self, lesson: Lesson) -> None:
        """Let the learner change something, as often as they like."""
        self._screen.paragraph(f"Your turn: {lesson.invitation}")
        given = self._screen.ask(f"(Enter tries `{lesson.default}`)") or lesson.default
        while given:
            try:
                for block in lesson.change(self._lab, given):
                    _show(block, self._screen)
            except Mistake as mistake:
                self._screen.verdict("That cannot be tried:", str(mistake), "yellow")
            given = self._screen.ask("Another one? (Enter ends the lesson)")


def _enable_line_editing() -> None:
    with suppress(ImportError):
        import readline  # noqa: F401  importing it is what gives input() its history
