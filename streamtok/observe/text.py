"""The trace for a terminal: a line on the wire in a row, or in several, and beside it what it is.

    connection.request   ms since its first byte   ms since the last write   > < =   bytes   note

`>` was received, `<` was sent, `=` happened in the server. Colour adds nothing that is not said.
"""

import io
from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from streamtok.observe.annotate import escape, wrap
from streamtok.observe.timeline import Happened, Moment, Passed, Timeline
from streamtok.observe.trace import Accepted, Ended, Record

COLUMNS = 120  # where there is no terminal
NOTE_COLUMN = 78
GAP = 3
STYLES = {"head": "cyan", "framing": "yellow", "data": ""}
WORDS = {  # what is said of a step; of one that is not here, nothing: the wire itself shows it
    "parse": "{method} {target}, {body_bytes} bytes of body",
    "admit": "{route}",
    "tokenize": "{tokens} tokens",
    "queue": "{id}: {choices} to generate, at most {max_tokens} tokens",
    "start": "sequence {index} has left the queue",
    "prefill": "the prompt of sequence {index} is computed; {cached} of its tokens were there",
    "token": "{id}",
    "end": "sequence {index}: {reason}",
    "finish": "{status}, {outcome}",
}


class TextTrace:
    """Records to rows of text; in colour for a terminal, unless NO_COLOR is set.

    `width` is the terminal's, None where there is none.
    """

    def __init__(self, width: int | None) -> None:
        self._timeline = Timeline()
        self._console = Console(
            file=io.StringIO(),
            force_terminal=width is not None,
            width=max(width or COLUMNS, 60),
            highlight=False,
            soft_wrap=True,
        )

    def encode(self, record: Record) -> bytes:
        """Return the rows that `record` adds."""
        with self._console.capture() as captured:
            for entry in self._timeline.feed(record):
                for row in self._passed(entry) if isinstance(entry, Passed) else _happened(entry):
                    self._console.print(row)
        return captured.get().encode("utf-8", "backslashreplace")

    def _passed(self, entry: Passed) -> Iterator[Text]:
        margin = _margin(entry.moment, "<" if entry.sent else ">")
        width = self._console.width
        rows = wrap(escape(entry.line.data), width - len(margin))
        shown = [Text(" " * len(margin)).append(row, STYLES[entry.line.kind]) for row in rows]
        shown[0] = margin.append(rows[0], STYLES[entry.line.kind])
        if note := _note(entry):
            room = width - len(note) - GAP
            if len(shown[-1]) > room:
                shown.append(Text())
            column = max(0, min(NOTE_COLUMN, width - len(note)))
            shown[-1].append(" " * max(GAP, column - len(shown[-1])))
            shown[-1].append(note, "dim")
        yield from shown


def _note(entry: Passed) -> str:
    parts = [entry.line.note] if entry.line.note else []
    if entry.tokens:
        noun = "token" if len(entry.tokens) == 1 else "tokens"
        parts.append(f"{noun} {' '.join(map(str, entry.tokens))}")
    if entry.pieces > 1:
        parts.append(f"in {entry.pieces} {'writes' if entry.sent else 'reads'}")
    return ", ".join(parts)


def _happened(entry: Happened) -> Iterator[Text]:
    words = _words(entry)
    if words:
        yield _margin(entry.moment, "=").append(words, "green")


def _words(entry: Happened) -> str:
    record = entry.record
    if isinstance(record, Accepted):
        client = f"{record.client[0]} port {record.client[1]}" if record.client else "a Unix socket"
        return f"{'accept':<11} {client}{', over TLS' * record.encrypted}"
    if isinstance(record, Ended):
        return f"the {record.side} {'resets the connection' if record.reset else 'sends no more'}"
    if record.name not in WORDS or (record.name == "token" and not entry.is_first):
        return ""
    name = "first token" if record.name == "token" else record.name
    return f"{name:<11} {WORDS[record.name].format_map(record.facts)}"


def _margin(moment: Moment, mark: str) -> Text:
    gap = "" if moment.gap_s is None else f"+{1000 * moment.gap_s:.1f}"
    place = f"{moment.connection}.{moment.request}"
    return (
        Text()
        .append(f"{place:<6}{1000 * moment.since_s:9.1f} ", "dim")
        .append(f"{gap:>8} ", "bold")
        .append(f"{mark} ", "dim")
    )
