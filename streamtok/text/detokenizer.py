"""Token ids back to text, one at a time, each at the same cost however long the text is.

An answer continues a prompt, and its text depends on that: a SentencePiece decoder drops the space
before the first word of a text, but not before the first word of an answer. So the text of an
answer is the text of prompt and answer together, less the text of the prompt.

Whatever pieces come out, put together they are that text, and no piece ends within a character:
bytes that may still become one are held back. Two ways, chosen by the tokenizer's own decoder:

  * byte-level vocabularies: every token is a fixed string of bytes, and bytes that do not complete
    a character wait for the next one;
  * all others (SentencePiece with its spaces and byte fallback, WordPiece): the text of a short
    window of ids with the new token, less the text of the window without it. These decoders look
    no further back than that, except that they treat the first token of all differently.

Read next: `streamtok.text.stops`, which looks at the text that comes out here.
"""

import codecs
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property

from tokenizers.decoders import ByteLevel

from streamtok.text.tokenizer import Tokenizer, byte_alphabet

REPLACEMENT = "\ufffd"
CHARACTER = 4  # bytes at most, and so ids of which one character is made
PENDING = 12  # ids at most that wait for more: whole characters, also where they are U+FFFD itself
CONTEXT = 12  # ids of a prompt that are looked at: those of a few characters


class Detokenizer(ABC):
    """Turns a stream of ids into a stream of text; one per sequence.

    `unfinished` is what the prompt's own text ends with in place of a character that the answer may
    complete: U+FFFD, once or several times, or nothing. It is not part of the answer's text.
    """

    def __init__(self, unfinished: str) -> None:
        self._unfinished = unfinished

    def follow(self, prompt: str) -> None:
        """Let the text be what comes after `prompt`, which may lack the unfinished character."""
        if not prompt.endswith(self._unfinished):
            self._unfinished = ""

    @abstractmethod
    def feed(self, token_id: int) -> str:
        """Return the text that became certain with this token; often one word, at times none.

        An id without a token has no text, nor has a special one unless they are to show.
        """

    @abstractmethod
    def flush(self) -> str:
        """Return what is left at the end: bytes that never became a character, as U+FFFD."""

    def _new(self, text: str) -> str:
        """Return the part of the first text that is not the prompt's."""
        if not self._unfinished or not text:
            return text
        known, self._unfinished = self._unfinished, ""
        while known and text and known[0] == text[0]:
            known, text = known[1:], text[1:]
        return text


class ByteLevelDetokenizer(Detokenizer):
    """For tokens that are bytes, `pieces` by id; `texts` keeps those that are whole characters."""

    def __init__(
        self, pieces: Mapping[int, bytes], texts: dict[int, str], context: Sequence[int] = ()
    ) -> None:
        self._pieces, self._texts = pieces, texts
        octets = b""
        for token_id in reversed(context):
            if len(octets) >= CHARACTER:
                break
            octets = pieces.get(token_id, b"") + octets
        self._held = _unfinished(octets)
        super().__init__(self._held.decode(errors="replace"))

    def feed(self, token_id: int) -> str:
        """See `Detokenizer.feed`."""
        if self._held or (text := self._texts.get(token_id)) is None:
            octets = self._held + self._pieces.get(token_id, b"")
            text, used = codecs.utf_8_decode(octets, "replace", False)
            if not self._held and used == len(octets):
                self._texts[token_id] = text
            self._held = octets[used:]
        return self._new(text) if self._unfinished else text

    def flush(self) -> str:
        """See `Detokenizer.flush`."""
        held, self._held = self._held, b""
        return self._new(held.decode(errors="replace"))


class WindowDetokenizer(Detokenizer):
    """For any tokenizer whose decoder looks no further back than one token.

    Special tokens have their names as text where they are `special`.
    """

    def __init__(
        self, tokenizer: Tokenizer, context: Sequence[int] = (), *, special: bool = False
    ) -> None:
        self._tokenizer = tokenizer
        self._special = special
        self._window: list[int] = []  # ids of the last piece that came out, then the pending ones
        for token_id in reversed(context):
            if len(self._window) == CONTEXT + CHARACTER:
                break
            if self._has_text(token_id):
                self._window.insert(0, token_id)
        self._settled = len(self._window)  # how many ids of the window are not pending
        self._find_characters()
        self._certain = self._decode(self._window[: self._settled])  # their text
        super().__init__(self._decode(self._window[self._settled :]))

    def feed(self, token_id: int) -> str:
        """See `Detokenizer.feed`."""
        if not self._has_text(token_id):
            return ""
        self._window.append(token_id)
        text = self._decode(self._window)
        pending = len(self._window) - self._settled
        return "" if text.endswith(REPLACEMENT) and pending < PENDING else self._settle(text)

    def flush(self) -> str:
        """See `Detokenizer.flush`."""
        pending = len(self._window) > self._settled
        return self._settle(self._decode(self._window)) if pending else ""

    @property
    def has_context(self) -> bool:
        """Whether there is text before what comes, so that it is no beginning."""
        return bool(self._certain)

    def _settle(self, text: str) -> str:
        """Return what is new in the `text` of the window, all of which is certain now."""
        if text.startswith(self._certain):
            piece = text[len(self._certain) :]
        else:  # bytes that are no text, which take the character before them along
            piece = self._decode(self._window[self._settled :])
        rest = self._window[self._settled :]
        certain = self._decode(rest)
        if certain or len(self._window) > CONTEXT:
            self._window = rest
        else:  # a window without text would be a beginning of texts to some decoders
            certain = text
        self._settled = len(self._window)
        self._certain = certain
        return self._new(piece)

    def _has_text(self, token_id: int) -> bool:
        if token_id in self._tokenizer.special_ids:
            return self._special
        return self._tokenizer.backend.id_to_token(token_id) is not None

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids, special=self._special)

    def _find_characters(self) -> None:
        """Let the window begin with a character, and count as settled the ids of whole ones.

        It may begin within one only where there is more of the prompt. A byte fallback makes no
        character at all of bytes among which there is a part of one.
        """
        window = self._window
        starts = range(CHARACTER if len(window) > CONTEXT else 1)
        for end in range(len(window), max(-1, len(window) - CHARACTER), -1):
            for start in starts:
                text = self._decode(window[start:end])
                if not text.startswith(REPLACEMENT) and not text.endswith(REPLACEMENT):
                    self._window, self._settled = window[start:], end - start
                    return


class Detokenizers:
    """Makes a detokeniser for each sequence of one model."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        is_byte_level = isinstance(tokenizer.backend.decoder, ByteLevel)
        self._pieces = byte_pieces(tokenizer) if is_byte_level else None
        names = {token: self.special_name(token).encode() for token in tokenizer.special_ids}
        self._texts: tuple[dict[int, str], dict[int, str]] = ({}, {})  # without names and with them
        self._pieces_and_names = None if self._pieces is None else self._pieces | names

    def make(
        self, context: Sequence[int] = (), *, special: bool = False, within: bool = False
    ) -> Detokenizer:
        """Return a detokeniser for what follows the ids `context`.

        Special tokens show their names if `special`. Where the text is to be as it is `within` one,
        nothing is dropped at its beginning either: then each token is the bytes that a grammar
        took it for.
        """
        pieces = self._pieces_and_names if special else self._pieces
        if pieces is not None:
            return ByteLevelDetokenizer(pieces, self._texts[special], context)
        detokenizer = WindowDetokenizer(self._tokenizer, context, special=special)
        if within and not detokenizer.has_context and self._anchor is not None:
            return WindowDetokenizer(self._tokenizer, [self._anchor], special=special)
        return detokenizer

    def special_name(self, token_id: int) -> str:
        """Return the name of a special token, nothing for any other."""
        is_special = token_id in self._tokenizer.special_ids
        return (is_special and self._tokenizer.backend.id_to_token(token_id)) or ""

    def text(self, ids: Sequence[int], *, special: bool = False) -> str:
        """Return the text of ids, but for the beginning of a character that they end with."""
        return "".join(map(self.make(special=special).feed, ids))

    @cached_property
    def _anchor(self) -> int | None:
        """Return a token that has text even where it stands first."""
        ids = range(self._tokenizer.vocab)
        ordinary = (token for token in ids if token not in self._tokenizer.special_ids)
        texts = ((token, self._tokenizer.decode([token])) for token in ordinary)
        return next((token for token, text in texts if text.isalnum()), None)

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of one token in the middle of a text.

        A special token stands for its name.
        """
        if self._pieces is not None and token_id in self._pieces:
            return self._pieces[token_id]
        name = self._tokenizer.backend.id_to_token(token_id) or ""
        text = self._tokenizer.decode([token_id] * 2)[len(self._tokenizer.decode([token_id])) :]
        if text == REPLACEMENT and name.startswith("<0x"):  # a byte of the byte fallback: "<0xE2>"
            return bytes.fromhex(name[3:5])
        return (text or name).encode()


def _unfinished(octets: bytes) -> bytes:
    """Return the end of `octets` that may be the beginning of a character.

    They are the last of a text, and may begin within a character.
    """
    _, used = codecs.utf_8_decode(octets, "replace", False)
    return octets[used:]


def byte_pieces(tokenizer: Tokenizer) -> dict[int, bytes]:
    """Return the bytes of every token of a byte-level vocabulary but the special ones.

    An added token may hold characters outside the byte alphabet; it then stands for its own text.
    """
    alphabet = byte_alphabet()
    pieces = {}
    for token, index in tokenizer.backend.get_vocab(with_added_tokens=True).items():
        if index in tokenizer.special_ids:
            continue
        known = all(character in alphabet for character in token)
        pieces[index] = bytes(alphabet[c] for c in token) if known else token.encode()
    return pieces
