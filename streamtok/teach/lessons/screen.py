"""Shows what lessons are made of, in 80 columns. Colour adds nothing that the text does not say."""

import sys
import textwrap
from collections.abc import Iterator
from io import TextIOWrapper

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from streamtok.observe.annotate import Line, annotate, escape, wrap
from streamtok.teach.lessons.lesson import Question, Table, Wire

COLUMNS = 80
NOTE_COLUMN = 46
MARGIN = 4  # before bytes, for their direction
GAP = 3  # between columns, and between bytes and their note
STYLES = {"head": "cyan", "framing": "yellow", "data": ""}


class Screen:
    """Where lessons appear: a terminal, or plain text."""

    def __init__(self, plain: bool) -> None:
        if isinstance(sys.stdout, TextIOWrapper):  # a terminal may not know all characters
            sys.stdout.reconfigure(errors="backslashreplace")
        self._console = Console(
            color_system=None if plain else "auto", highlight=False, soft_wrap=True
        )
        narrow = self._console.is_terminal and self._console.width < COLUMNS
        self._width = self._console.width if narrow else COLUMNS

    def heading(self, text: str, module: str) -> None:
        """Show where a lesson begins."""
        self.paragraph(f"{text} ".ljust(self._width, "-"), "bold")
        self.note(f"The code: {module}")

    def note(self, text: str) -> None:
        """Show something beside the matter."""
        self._console.print(Text(self._filled(text), "dim"))

    def paragraph(self, text: str, style: str = "") -> None:
        """Show a paragraph, with an empty line before it."""
        shown = Text(self._filled(text), style)
        shown.highlight_regex(r"`[^`]+`", "cyan")
        self._console.print()
        self._console.print(shown)

    def wire(self, wire: Wire) -> None:
        """Show bytes, each line with its direction and, beside it, what it is."""
        self._console.print()
        for line in selected(wire):
            for row in self._rows(line, wire):
                self._console.print(row)

    def table(self, table: Table) -> None:
        """Show a table."""
        self._console.print()
        columns = list(zip(table.columns, *table.rows, strict=True))
        widths = [max(map(cell_len, column)) for column in columns]
        for number, row in enumerate((table.columns, *table.rows)):
            cells = [
                cell + " " * (width - cell_len(cell))
                for cell, width in zip(row, widths, strict=True)
            ]
            text = (" " * GAP).join(cells).rstrip()
            self._console.print(Text(f"  {text}", "" if number else "bold"))

    def question(self, question: Question) -> None:
        """Show a question with its options."""
        self.paragraph(f"Question: {question.text}", "bold")
        for letter, option in zip("abcdef", question.options, strict=False):
            self._console.print(Text(self._filled(f"{letter}) {option}", "  ")))

    def verdict(self, word: str, text: str, colour: str) -> None:
        """Show what is to be said of an answer."""
        shown = Text(self._filled(f"{word} {text}"))
        shown.stylize(f"bold {colour}", 0, len(word))
        self._console.print()
        self._console.print(shown)

    def ask(self, prompt: str) -> str:
        """Return the line that the learner types; raise EOFError where there are no more."""
        self._console.print()
        self._console.file.flush()
        line = input(f"{prompt} ").strip()
        if not sys.stdin.isatty():
            self._console.print()  # a terminal shows the line end that was typed
        return line

    def _filled(self, text: str, indent: str = "") -> str:
        """Return `text` in lines that fit."""
        lines = textwrap.wrap(
            text,
            self._width,
            initial_indent=indent,
            subsequent_indent=indent and indent + "   ",
            break_on_hyphens=False,
        )
        return "\n".join(lines)

    def _rows(self, line: Line, wire: Wire) -> Iterator[Text]:
        """Yield the rows of one line of bytes; its note stands behind the last, or below it."""
        mark = "  > " if wire.sent else "  < "
        rows = wrap(escape(line.data), self._width - MARGIN, wire.rows)
        shown = [Text(" " * MARGIN).append(row, STYLES[line.kind]) for row in rows]
        shown[0] = Text(mark).append(rows[0], STYLES[line.kind])
        if line.note and wire.notes:
            column = max(0, min(NOTE_COLUMN, self._width - cell_len(line.note)))
            room = self._width - cell_len(line.note) - GAP
            if len(shown[-1]) > room:
                shown.append(Text())
            shown[-1].append(" " * max(GAP, column - len(shown[-1])))
            shown[-1].append(line.note, "dim")
        yield from shown


def selected(wire: Wire) -> Iterator[Line]:
    """Yield the lines of `wire` that are shown, and one for those in the middle that are not."""
    lines = [line for line in annotate(wire.data) if _is_wanted(line, wire)]
    last = wire.most // 3
    hidden = lines[wire.most - last : -last]
    if len(hidden) < 3:
        yield from lines
        return
    yield from lines[: wire.most - last]
    count = sum(len(line.data) for line in hidden)
    yield Line(b"...", f"{len(hidden)} more lines, {count} bytes", "data")
    yield from lines[-last:]


def _is_wanted(line: Line, wire: Wire) -> bool:
    """Whether a line is shown: not those fields of a head that are not asked for."""
    name, colon, _ = line.data.partition(b":")
    if wire.fields is None or line.kind != "head" or not colon or b" " in name:
        return True
    return name.decode("latin-1").lower() in wire.fields
