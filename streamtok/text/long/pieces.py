"""Long texts in pieces: the ids of the whole, without keeping other threads waiting.

A batch releases the GIL while it is encoded, but not while its ids are read and its memory is given
back: of four megabytes, an eighth of a second in which no stream gets its token. So a long text is
cut, and each piece is a batch. The ids must be those of the whole: a text is cut only between a
word and a character before which this tokenizer is seen to split. For that, three things must hold:

- no token of the vocabulary has a letter or digit and then that character, so that whatever the
  model does on both sides of the cut, it does there alone;
- the pre-tokenizer, if there is one, is of a kind that reads from left to right, looks at nothing
  before the place where it is, and ahead no further than one character;
- samples around that character, of letters and digits of several scripts, have the same ids when
  they are cut.

A text that has no such place for longer than MOST characters is refused.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import product
from string import ascii_lowercase, digits
from typing import Any

from tokenizers import Encoding, Tokenizer

from streamtok.errors import InvalidRequest
from streamtok.text.encoding import encode
from streamtok.text.long.bounds import knows_all, most_characters

PIECE = 2**15  # characters, about a millisecond of the GIL
MOST = 2**19  # characters that are encoded at once where there is no place to cut
BEFORE = ' \n,;:.()[]{}<>"=/|-+*&!?\u3001\u3002\uff0c'  # where texts may be cut
LEFT = (
    "x",
    "the word",
    "Ab",
    "\u00e9t\u00e9",
    "\u5b57\u5b57",
    "7",
    "in 12345",
    "\n\nx1",
    "(y",
    "  Z",
)
RIGHT = ("y", "Yes we", "\u00fcb", "\u5b57", "4", "2024,", "x) ", "s\n")
LOCAL = ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "ByteLevel", "BertNormalizer")
STATELESS = (
    *("ByteLevel", "Metaspace", "Whitespace", "WhitespaceSplit", "BertPreTokenizer"),
    *("Digits", "Punctuation", "Split", "CharDelimiterSplit", "UnicodeScripts"),
)
# Of a regular expression: what looks behind, at an end of the text, or further than one character
LOOKS = re.compile(r"\(\?<[=!]|\\[bBAGzZ]|(?<!\[)\^|\$|\(\?=|\(\?!(?!\\S\))")


class LongTexts:
    """Encodes with one tokenizer; see `streamtok.text.encoding.LongTexts`."""

    def __init__(self, backend: Tokenizer) -> None:
        settings = json.loads(backend.to_str())
        self.most = most_characters(backend, settings)
        self._backend = backend
        self._rest = _within_texts(backend, settings)
        self._may_cut = (
            _is_local(settings["normalizer"])
            and _is_stateless(settings["pre_tokenizer"])
            and settings["model"].get("dropout") is None
        )
        self._word = self._letters(settings["pre_tokenizer"], settings["model"])

    def ids(self, text: str, *, special: bool = False) -> list[int]:
        """Return the ids of `text`, with what is added at its ends if `special`.

        Raises:
            InvalidRequest: it is long, and cannot be cut.
        """
        parts = list(self._parts(text))
        if len(parts) == 1:
            return encode(self._backend, text, special=special).ids
        before, after = self._ends if special else ((), ())
        ids = [*before]
        for start, end in parts:
            ids += self._encoded(text, start, end).ids
        return [*ids, *after]

    def encodings(self, text: str) -> Iterator[tuple[int, Encoding]]:
        """Yield from which character on each piece is, and its tokens.

        Raises:
            InvalidRequest: it is long, and cannot be cut.
        """
        for start, end in self._parts(text):
            yield start, self._encoded(text, start, end)

    def _encoded(self, text: str, start: int, end: int) -> Encoding:
        return encode(self._rest if start else self._backend, text[start:end])

    def _parts(self, text: str) -> Iterator[tuple[int, int]]:
        start = 0
        while len(text) - start > PIECE:
            found = self._cuts.search(text, start + PIECE, start + MOST)
            end = found.start() if found else len(text)
            if end - start > MOST:
                raise InvalidRequest(
                    f"this tokenizer cannot take the text in pieces: from character {start} on it "
                    f"has no end of a word to cut it at; at most {MOST} characters are tokenised "
                    "at once",
                    code="text_not_divisible",
                )
            yield start, end
            start = end
        if start < len(text) or not text:
            yield start, len(text)

    @cached_property
    def _ends(self) -> tuple[list[int], list[int]]:
        """What is added before and after a text."""
        encoding = self._backend.encode("a")
        own = [place for place, added in enumerate(encoding.special_tokens_mask) if not added]
        return encoding.ids[: own[0]], encoding.ids[own[-1] + 1 :]

    @cached_property
    def _cuts(self) -> re.Pattern[str]:
        """Finds the next place for a cut, which is before what it finds."""
        joined = self._joined() if self._may_cut else set(BEFORE)
        safe = [mark for mark in BEFORE if mark not in joined and self._splits_at(mark)]
        marks = "".join(map(re.escape, safe))
        return re.compile(f"(?<={self._word})[{marks}](?={self._word})" if safe else "(?!)")

    def _letters(self, splitter: Mapping[str, Any] | None, model: Mapping[str, Any]) -> str:
        """Return which letters and digits may stand at a cut, as a class of characters.

        A model may drop or join characters that it has no token for, so these do not. A word that
        is unknown as a whole does no such thing.
        """
        if knows_all(splitter, model) or model["type"].startswith("Word"):
            return r"[^\W_]"
        known = {token[-1] for token in self._backend.get_vocab() if len(token) == 1}
        return f"[{''.join(sorted(known & set(ascii_lowercase + digits))) or chr(0)}]"

    def _joined(self) -> set[str]:
        """Return the marks that cannot be cut at: some token has them behind a letter or digit.

        Nor can those that have no token of their own, where letters have to.
        """
        vocab = self._backend.get_vocab(with_added_tokens=True)
        written = {mark: {mark, self._written(mark)} - {""} for mark in BEFORE}
        every = re.escape("".join(set().union(*written.values())))
        # A letter outside ASCII may be written as bytes, whose characters are no letters
        pattern = re.compile(rf"(?<=[A-Za-z0-9]|[^\x00-\x7f{every}])[{every}]")
        found = {mark for token in vocab for mark in pattern.findall(token)}
        joined = {mark for mark in BEFORE if written[mark] & found}
        if self._word.startswith("[^"):
            return joined
        return joined | {mark for mark in BEFORE if written[mark].isdisjoint(vocab)}

    def _written(self, mark: str) -> str:
        """Return with which character of the vocabulary `mark` begins behind a letter."""
        tokens = self._backend.encode(f"x{mark}", add_special_tokens=False).tokens
        return "".join(tokens).rpartition("x")[2][:1]

    def _splits_at(self, mark: str) -> bool:
        """Whether samples have the same ids when they are cut before `mark`."""
        return all(
            self._ids(left + mark + right) == self._ids(left) + self._within_ids(mark + right)
            for left, right in product(LEFT, RIGHT)
            if re.match(self._word, left[-1]) and re.match(self._word, right)
        )

    def _ids(self, text: str) -> list[int]:
        return self._backend.encode(text, add_special_tokens=False).ids

    def _within_ids(self, text: str) -> list[int]:
        return self._rest.encode(text, add_special_tokens=False).ids


def _within_texts(backend: Tokenizer, settings: Mapping[str, Any]) -> Tokenizer:
    """Return the tokenizer for what stands within a text, before which it adds no space."""
    names = ("normalizer", "pre_tokenizer")
    within = {**settings, **{name: _within(settings[name]) for name in names}}
    if within == settings:
        return backend
    made = Tokenizer.from_str(json.dumps(within))
    made.encode_special_tokens = backend.encode_special_tokens
    return made


def _within(part: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return a normalizer or pre-tokenizer that adds nothing before a text."""
    if part is None or part["type"] == "Prepend":
        return None
    for name in ("normalizers", "pretokenizers"):
        if name in part:
            return {**part, name: [one for one in map(_within, part[name]) if one]}
    if "prepend_scheme" in part:
        return {**part, "prepend_scheme": "never"}
    return {**part, "add_prefix_space": False} if "add_prefix_space" in part else part


def _is_local(normalizer: Mapping[str, Any] | None) -> bool:
    """Whether the two sides of a cut are normalised each for itself."""
    if normalizer is None:
        return True
    if normalizer["type"] == "Sequence":
        return all(map(_is_local, normalizer["normalizers"]))
    if normalizer["type"] == "Replace":
        return len(normalizer["pattern"].get("String", "")) == 1
    return normalizer["type"] in (*LOCAL, "Prepend")


def _is_stateless(splitter: Mapping[str, Any] | None) -> bool:
    """Whether how a text is split from some place on depends on what follows there alone."""
    if splitter is None:
        return True
    if splitter["type"] == "Sequence":
        return all(map(_is_stateless, splitter["pretokenizers"]))
    pattern = splitter.get("pattern")
    regex = pattern.get("Regex", "") if isinstance(pattern, dict) else ""
    return splitter["type"] in STATELESS and not LOOKS.search(regex)
