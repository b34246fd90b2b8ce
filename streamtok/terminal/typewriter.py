"""Text on a terminal while it is generated: words are wrapped whole, at any width.

A token is often a part of a word, and shown at once. Where the rest does not fit into the line, the
part is erased there and written again in the next one.
"""

import errno
import os
import sys
from collections.abc import Callable

from rich.cells import cell_len

from streamtok.errors import StreamtokError

TAB = 8
# A model's text can hold any character, and a terminal obeys control characters.
CONTROLS = {code: chr(0x2400 + code) for code in range(0x20)} | {0x7F: "\u2421"}
CONTROLS |= dict.fromkeys(range(0x80, 0xA0), "\ufffd")
VISIBLE: dict[int, str] = {**CONTROLS, 0x0A: "\n", 0x09: "\t", 0x0D: ""}


class OutputError(StreamtokError):
    """Standard output cannot be written, as on a full disk."""


class Wrapper:
    """Breaks a text that comes in parts into lines; `column` is where the first one begins."""

    def __init__(self, column: int = 0) -> None:
        self._column = column  # cells that are taken in this line
        self._word = ""  # what of the last word is in this line

    def feed(self, text: str, width: int) -> str:
        """Return what shows `text` behind what was fed before, in lines of `width` cells.

        The result erases with `ESC [ n D` (cursor back) and `ESC [ K` (erase to the line's end).
        """
        return "".join(self._typed(character, width) for character in text.translate(VISIBLE))

    def _typed(self, character: str, width: int) -> str:
        if character == "\n":
            self._column, self._word = 0, ""
            return "\n"
        if character in " \t":
            return self._space(TAB - self._column % TAB if character == "\t" else 1, width)
        cells = cell_len(character)
        broken = "" if self._column + cells <= width else self._break(cells, width)
        self._column += cells
        self._word += character
        return broken + character

    def _space(self, cells: int, width: int) -> str:
        self._word = ""
        if self._column + cells > width:
            self._column = 0
            return "\n"
        self._column += cells
        return " " * cells

    def _break(self, cells: int, width: int) -> str:
        """Begin a line, with the word that the next character belongs to if a line can hold it."""
        word, size = self._word, cell_len(self._word)
        if not 0 < size < self._column or size + cells > width:
            self._column, self._word = 0, ""
            return "\n"
        self._column = size
        return f"\x1b[{size}D\x1b[K\n{word}"


class Typewriter:
    """Writes to standard output at once: wrapped on a terminal, as it is anywhere else."""

    def __init__(self, column: int = 0, width: Callable[[], int | None] | None = None) -> None:
        self._wrapper = Wrapper(column)
        self._width = width or terminal_width

    def write(self, text: str) -> None:
        """Write `text`.

        Raises:
            BrokenPipeError: nobody reads it any more.
            OutputError: it cannot be written.
        """
        width = self._width()  # anew each time: a window may be resized
        shown = text if width is None else self._wrapper.feed(text, width)
        try:
            sys.stdout.write(shown)
            sys.stdout.flush()
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.EINVAL):  # Windows' word for it is the second
                raise BrokenPipeError from error
            raise OutputError(f"standard output: cannot be written: {error.strerror}") from error


def terminal_width() -> int | None:
    """Return how many cells a line may fill; None where standard output is no terminal.

    The last column stays free: terminals differ in where the cursor is once it is filled.
    """
    if not sys.stdout.isatty():
        return None
    try:
        return max(1, os.get_terminal_size(sys.stdout.fileno()).columns - 1)
    except OSError:
        return 79
