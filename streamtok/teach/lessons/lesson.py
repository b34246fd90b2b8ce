"""What a lesson is made of: text, bytes, tables and questions, in the order they are shown. No IO.

Read next: `streamtok.teach.lessons`, the lessons themselves; `streamtok.teach.lessons.screen` shows
them.
"""

from collections.abc import Callable, Generator

from msgspec import Struct

from streamtok.teach.lessons.lab import Lab


class Wire(Struct, frozen=True):
    """Bytes as they crossed the socket; `sent` says which way.

    Of a head only `fields` are shown (all, where None), of many lines the first and the last ones,
    `most` in all, and of one that is longer than so many `rows` both ends. Without `notes` nothing
    is explained: there is a question about it.
    """

    data: bytes
    sent: bool = False
    fields: frozenset[str] | None = None
    most: int = 36
    rows: int = 3
    notes: bool = True


class Table(Struct, frozen=True):
    """What was measured: a row a line, all cells as text."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Question(Struct, frozen=True):
    """Something to think about. With `options`, `answer` is one of them; without, a short text."""

    text: str
    answer: str
    why: str
    hint: str
    options: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The answer as it is shown, with its letter where there are options."""
        return f"{self._letter}) {self.answer}" if self.options else self.answer

    def accepts(self, given: str) -> bool:
        """Whether `given` is right: the option's letter, the text, or the number in any base."""
        text = given.strip().rstrip(".)").lower()
        if self.options:
            return text in (self._letter, self.answer.lower())
        return text == self.answer.lower() or _number(text) == _number(self.answer) is not None

    @property
    def _letter(self) -> str:
        return "abcdef"[self.options.index(self.answer)]


Block = str | Wire | Table | Question  # a str is a paragraph; `such` words are code
Blocks = Generator[Block, None, None]


class Mistake(Exception):
    """What the learner typed cannot be tried; says what can."""


class Lesson(Struct, frozen=True):
    """One lesson: what it shows, and what the learner may change in it.

    `name` is short and stays the same; `module` is the file to read afterwards. `change` is given
    what the learner typed in answer to `invitation`, or `default`, and raises Mistake where that
    makes no sense.
    """

    name: str
    title: str
    module: str
    show: Callable[[Lab], Blocks]
    invitation: str
    default: str
    change: Callable[[Lab, str], Blocks]


def whole_number(text: str, least: int, most: int) -> int:
    """Return the number that the learner typed.

    Raises:
        Mistake: it is none, or out of range.
    """
    value = _number(text)
    if value is None or not least <= value <= most:
        raise Mistake(f"expected a number from {least} to {most}, found {text!r}")
    return value


def _number(text: str) -> int | None:
    """Return the number at the beginning of `text`: "229", "0xe5", "229 bytes", "6,144"."""
    words = text.replace(",", "").split()
    try:
        return int(words[0], 0) if words else None
    except ValueError:
        return None
