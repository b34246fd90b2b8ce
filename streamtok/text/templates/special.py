"""Special tokens in prompts: those that a template writes are tokens, those in messages are text.

A chat template writes special tokens such as `<|im_end|>` to say where a turn ends. If a message
could do the same, a user could end their own turn and write one of the system. So the strings of a
request are marked before they are rendered: around each special token in them, and where they
begin or end with a part of one, which could become whole beside other text. A mark is a private
character that is neither in the request nor in the template.

Afterwards the marks are taken out and the prompt is tokenised as any text. Only if a special token
that is found then is a marked one, what stands between the template's own special tokens is
tokenised again, with special tokens as text. So a prompt with none in its messages has exactly the
ids that it has without all this.
"""

import re
import secrets
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from streamtok.errors import InvalidRequest
from streamtok.text.long.pieces import LongTexts

PRIVATE = range(0xE000, 0xF900)  # characters without a meaning (Unicode 16, section 23.5)


class Marks(NamedTuple):
    """The characters put before and after a special token in a request's strings."""

    before: str
    after: str


class Special(NamedTuple):
    """A special token in a text: which of its tokens, and from which character to which."""

    place: int
    start: int
    end: int


class SpecialTokens:
    """Finds a tokenizer's special tokens in the strings of requests, and keeps them text."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._texts = LongTexts(backend)
        added = backend.get_added_tokens_decoder()
        self._ids = frozenset(token for token, entry in added.items() if entry.special)
        texts = sorted((added[token].content for token in self._ids), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, filter(None, texts))) or "(?!)")
        self._begins = {text[:length] for text in texts for length in range(1, len(text))}
        self._ends = {text[length:] for text in texts for length in range(1, len(text))}
        self._longest = max(map(len, texts), default=0)
        # They are looked for in normalised text, where they may have been written otherwise
        self._normalized = any(added[token].normalized for token in self._ids)

    def marks(self, value: Any, source: str) -> Marks | None:
        """Return marks for the strings in `value`, or None if none of them needs one.

        `source` is the template, which has no marks in it either.

        Raises:
            InvalidRequest: every private character is in use.
        """
        texts = list(_strings(value))
        if not any(map(self._needs_marks, texts)):
            return None
        used = "".join((source, *texts))
        free = (chr(code) for code in PRIVATE if chr(code) not in used)
        pair = [mark for mark in free if _escape(mark) not in used.lower()][:2]
        if len(pair) < 2:
            raise InvalidRequest("the messages have all of Unicode's private characters in them")
        return Marks(*pair)

    def marked(self, value: Any, marks: Marks) -> Any:
        """Return `value` with its strings marked."""
        if isinstance(value, str):
            return self._marked(value, marks)
        if isinstance(value, dict):
            return {
                key if key.isidentifier() else self._marked(key, marks): (
                    item if _is_word(key, item) else self.marked(item, marks)
                )
                for key, item in value.items()
            }
        return [self.marked(item, marks) for item in value] if isinstance(value, list) else value

    def encode(self, text: str, marks: Marks) -> tuple[int, ...]:
        """Return the ids of a rendered prompt with `marks` in it.

        Raises:
            InvalidRequest: this tokenizer cannot write a special token as text.
        """
        text, before, after = _without(text, marks)
        all_ids: list[int] = []
        found = self._read(text, all_ids)
        own: list[Special] = []
        cuts: list[list[int]] = [[]]  # where foreign ones begin, before each of our own
        for special in found:
            start, end = _core(text, special)
            if _is_marked(start, end, before, after):
                cuts[-1].append(start)
            else:
                own.append(special)
                cuts.append([])
        ids: list[int] = []
        last = Special(-1, 0, 0)
        end_of_text = Special(len(all_ids), len(text), len(text))
        for special, within in zip((*own, end_of_text), cuts, strict=True):
            if within:
                ids += self._as_text(text, last.end, special.start, within)
            else:
                ids += all_ids[last.place + 1 : special.place]
            ids += all_ids[special.place : special.place + 1]
            last = special
        return tuple(ids)

    def as_text(self, text: str, *, special: bool) -> tuple[int, ...]:
        """Return the ids of `text` with special tokens in it as text, and its ends if `special`."""
        return tuple(self._without_special[0].ids(text, special=special))

    def _needs_marks(self, text: str) -> bool:
        return bool(self._spans(text)) or self._begins_within(text) or self._ends_within(text)

    def _marked(self, text: str, marks: Marks) -> str:
        parts, last = [], 0
        if self._begins_within(text):
            parts.append(marks.before)
        for start, end in self._spans(text):
            parts += [text[last:start], marks.before, text[start:end], marks.after]
            last = end
        parts.append(text[last:])
        if self._ends_within(text):
            parts.append(marks.after)
        return "".join(parts)

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Return where special tokens are in a string of a request."""
        if self._normalized:
            return [_core(text, special) for special in self._read(text, [])]
        return [match.span() for match in self._pattern.finditer(text)]

    def _begins_within(self, text: str) -> bool:
        lengths = range(1, min(self._longest, len(text) + 1))
        return any(text[:length] in self._ends for length in lengths)

    def _ends_within(self, text: str) -> bool:
        lengths = range(1, min(self._longest, len(text) + 1))
        return any(text[-length:] in self._begins for length in lengths)

    def _read(self, text: str, ids: list[int]) -> list[Special]:
        """Add the ids of `text` to `ids`, and return its special tokens."""
        found = []
        for at, encoding in self._texts.encodings(text):
            for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
                if token in self._ids:
                    found.append(Special(len(ids), at + start, at + end))
                ids.append(token)
        return found

    def _as_text(self, text: str, start: int, end: int, cuts: Sequence[int]) -> list[int]:
        """Return the ids of a part of `text` in which special tokens, at `cuts`, are text."""
        ids = self._plain(text[start:end], start > 0)
        if self._ids.isdisjoint(ids):
            return ids
        # A model may have a special token among its pieces, and find it where it is whole
        ids = []
        for cut in (*(cut + 1 for cut in cuts), end):
            ids += self._plain(text[start:cut], start > 0)
            start = cut
        if not self._ids.isdisjoint(ids):
            raise InvalidRequest("this model's tokenizer cannot write a special token as text")
        return ids

    def _plain(self, text: str, within: bool) -> list[int]:
        """Return the ids of a text without special tokens, at the beginning or `within` another."""
        texts, anchor = self._without_special
        return texts.ids(anchor + text)[1:] if within else texts.ids(text)

    @cached_property
    def _without_special(self) -> tuple[LongTexts, str]:
        """The tokenizer without special tokens, and the text of a token to stand before others.

        Some tokenizers add a space at the beginning of a text, but not after a special token. The
        token that stands for that one here is added, and its name is one that nobody can guess.
        """
        backend = Backend.from_str(self._backend.to_str())
        backend.encode_special_tokens = True
        anchor = f"<{secrets.token_hex(16)}>"
        backend.add_tokens([AddedToken(anchor, normalized=False)])
        return LongTexts(backend), anchor


def _is_word(key: str, value: Any) -> bool:
    """Whether this is a word that templates compare with theirs: a role or a type."""
    return key in ("role", "type") and isinstance(value, str) and value.isidentifier()


def _strings(value: Any) -> Iterator[str]:
    """Yield each string in `value`, and each key, but names that templates read."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            if not key.isidentifier():
                yield key
            if not _is_word(key, item):
                yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _escape(mark: str) -> str:
    r"""Return what JSON in ASCII has for a mark: `\ue000`."""
    return f"\\u{ord(mark):04x}"


def _without(text: str, marks: Marks) -> tuple[str, list[int], list[int]]:
    """Return `text` without marks, and where there were marks of each kind."""
    pattern = "|".join(f"({re.escape(mark)}|{re.escape(_escape(mark))})" for mark in marks)
    parts: list[str] = []
    places: tuple[list[int], list[int]] = ([], [])
    length = last = 0
    for match in re.finditer(pattern, text):
        parts.append(text[last : match.start()])
        length += match.start() - last
        last = match.end()
        places[(match.lastindex or 1) - 1].append(length)
    return "".join((*parts, text[last:])), *places


def _core(text: str, special: Special) -> tuple[int, int]:
    """Return from where to where a special token is, without white space that it takes with it."""
    found = text[special.start : special.end]
    if not found.strip():
        return special.start, special.end
    start = special.start + len(found) - len(found.lstrip())
    return start, start + len(found.strip())


def _is_marked(start: int, end: int, before: Sequence[int], after: Sequence[int]) -> bool:
    """Whether a special token was in a request's string, or is only whole beside others.

    It has both marks around it then, or one within. Marks come in ascending order.
    """
    opened = before[bisect_left(before, start) : bisect_left(before, end)]  # start <= mark < end
    closed = after[bisect_right(after, start) : bisect_right(after, end)]  # start < mark <= end
    if opened and closed:
        return True
    return bool(opened and opened[-1] > start) or bool(closed and closed[0] < end)
