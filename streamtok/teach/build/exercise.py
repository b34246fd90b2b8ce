"""What an exercise is made of, and how a grader says that something is wrong.

Read next: `streamtok.teach.build.program`, which runs what the learner wrote.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

FOLDER = Path(__file__).parent
SHOWN = 60  # characters of an excerpt


class Wrong(Exception):
    """What the learner's program does wrong, and why that matters."""


class Exercise(Struct, frozen=True):
    """One exercise. `grade` is given the learner's file; it yields what is right, in order.

    `name` is short and stays the same. `grade` raises Wrong at the first thing that is not right.
    `real` says what real programs did wrong here, with the reports.
    """

    name: str
    title: str
    task: str
    hints: tuple[str, ...]
    real: str
    grade: Callable[[Path], Iterator[str]]

    @property
    def skeleton(self) -> str:
        """The file to begin with."""
        return (FOLDER / "skeletons" / f"{self.name}.py").read_text("utf-8")

    @property
    def solution(self) -> str:
        """A file that passes."""
        return (FOLDER / "solutions" / f"{self.name}.py").read_text("utf-8")


def shown(data: bytes | str) -> str:
    """Return the beginning of `data` as Python writes it."""
    text = repr(data[:SHOWN])
    return f"`{text.removeprefix('b')[1:-1]}{' ...' if len(data) > SHOWN else ''}`"


def check(right: object, problem: str) -> None:
    """Raise Wrong with `problem` unless something is `right`."""
    if not right:
        raise Wrong(problem)
