"""`streamtok learn build`: gives an exercise's file, and grades what the learner has made of it."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from streamtok.errors import ConfigError
from streamtok.teach.build.exercise import Exercise, Wrong
from streamtok.teach.build.exercises import EXERCISES
from streamtok.teach.config import LearnConfig
from streamtok.teach.progress import Progress

HINTS = "hints"  # in the progress file: how many hints of an exercise were shown


def build(
    config: LearnConfig, words: Sequence[str], *, hint: bool = False, solution: bool = False
) -> int:
    """List the exercises, or begin, hint at, or grade one; return the exit status.

    `words` are the number of an exercise and, if the learner has called it otherwise, its file.

    Raises:
        ConfigError: there is no such exercise, or its file cannot be used.
    """
    console = Console(highlight=False, color_system=None if config.plain else "auto")
    progress = Progress(Path(config.progress))
    if not words:
        _list(progress, console)
        return 0
    number, exercise = _exercise(words[0])
    file = Path(words[1]) if len(words) > 1 else Path(f"build_{number}_{exercise.name}.py")
    if len(words) > 2:
        raise ConfigError(f"learn build: expected a number and a file, found also {words[2]!r}")
    if hint:
        _hint(number, exercise, progress, console)
        return 0
    if solution:
        print(exercise.solution, end="")
        return 0
    if not file.exists():
        _begin(number, exercise, file, console)
        return 0
    return _grade(number, exercise, file, progress, console)


def rows(progress: Progress) -> list[str]:
    """Return a line for each exercise, with what is done."""
    return [
        f"{number:>2}  {'done' if _key(exercise) in progress.done else '':<4}  {exercise.title}"
        for number, exercise in enumerate(EXERCISES, 1)
    ]


def _key(exercise: Exercise) -> str:
    return f"build-{exercise.name}"


def _list(progress: Progress, console: Console) -> None:
    for row in rows(progress):
        console.print(Text(row))
    console.print(
        Text("\n`streamtok learn build 1` begins: it writes a file for you to complete.", "dim")
    )


def _exercise(text: str) -> tuple[int, Exercise]:
    if text.isascii() and text.isdigit() and 1 <= int(text) <= len(EXERCISES):
        return int(text), EXERCISES[int(text) - 1]
    raise ConfigError(f"exercise {text!r}: expected a number from 1 to {len(EXERCISES)}")


def _begin(number: int, exercise: Exercise, file: Path, console: Console) -> None:
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(exercise.skeleton)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror}") from error
    console.print(Text(f"Exercise {number}: {exercise.title}", "bold"))
    console.print(Text(exercise.task))
    console.print(Text(f"\n{file} is yours to complete. Then:", "dim"))
    console.print(Text(f"  streamtok learn build {number}          grades it", "dim"))
    console.print(Text(f"  streamtok learn build {number} --hint   helps a little", "dim"))


def _hint(number: int, exercise: Exercise, progress: Progress, console: Console) -> None:
    """Show the next hint; after the last one, all of them again."""
    key = f"{_key(exercise)}-{HINTS}-"
    seen = sum(name.startswith(key) for name in progress.done)
    if seen < len(exercise.hints):
        console.print(Text(f"Hint {seen + 1} of {len(exercise.hints)}: {exercise.hints[seen]}"))
        progress.add(f"{key}{seen + 1}")
        return
    for place, hint in enumerate(exercise.hints, 1):
        console.print(Text(f"Hint {place}: {hint}"))
    console.print(
        Text(f"There are no more. `streamtok learn build {number} --solution` prints one.")
    )


def _grade(
    number: int, exercise: Exercise, file: Path, progress: Progress, console: Console
) -> int:
    console.print(Text(f"Exercise {number}: {exercise.title} ({file})", "bold"))
    try:
        if file.read_text("utf-8", "replace") == exercise.skeleton:
            raise Wrong("the file is as it was given: complete it where it says YOUR CODE")
        for passed in exercise.grade(file):
            console.print(Text("ok     ", "green").append(passed, "default"))
    except Wrong as wrong:
        console.print(Text("wrong  ", "bold red").append(str(wrong), "default"))
        console.print(Text(f"\n`streamtok learn build {number} --hint` helps a little.", "dim"))
        return 1
    progress.add(_key(exercise))
    console.print(Text("\nDone. ", "bold green").append(exercise.real, "default"))
    if number < len(EXERCISES):
        console.print(Text(f"\n`streamtok learn build {number + 1}` goes on.", "dim"))
    return 0
