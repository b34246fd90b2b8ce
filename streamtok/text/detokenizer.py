"""Token ids back to text, one at a time, each at the same cost however long the text is.

Whatever pieces come out, put together they are what decoding all ids at once gives, and no piece
ends within a character: bytes that may still become one are held back. Two ways, chosen by the
tokenizer's own decoder:

  * byte-level vocabularies: every token is a fixed string of bytes, and bytes that do not complete
    a character wait for the next one;
  * all others (SentencePiece with its spaces and byte fallback): the text of a short window of ids
    with the new token, less the text of the window without it.

Read next: `streamtok.text.stops`, which looks at the text that comes out here.
"""

import codecs
import json
from typing import Protocol

from streamtok.text.tokenizer import Tokenizer, byte_alphabet

REPLACEMENT = "\ufffd"
PENDING = 12  # ids at most that wait for more: whole characters, also where they are U+FFFD itself


class Detokenizer(Protocol):
    """Turns a stream of ids into a stream of text; one per sequence."""

    def feed(self, token_id: int) -> str:
        """Return the text that became certain with this token; often one word, at times none."""

    def flush(self) -> str:
        """Return what is left at the end: bytes that never became a character, as U+FFFD."""


class ByteLevelDetokenizer:
    """For vocabularies whose tokens are strings of bytes."""

    def __init__(self, pieces: dict[int, bytes]) -> None:
        self._pieces = pieces
        self._held = b""  # the beginning of a character

    def feed(self, token_id: int) -> str:
        """See `Detokenizer.feed`. An id without a token, or a special one, has no text."""
        octets = self._held + self._pieces.get(token_id, b"")
        text, used = codecs.utf_8_decode(octets, "replace", False)
        self._held = octets[used:]
        return text

    def flush(self) -> str:
        """See `Detokenizer.flush`."""
        held, self._held = self._held, b""
        return held.decode(errors="replace")


class WindowDetokenizer:
    """For any tokenizer whose decoder looks no further back than one token."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []  # ids of the last piece that came out, then the pending ones
        self._certain = ""  # the text of the window without the pending ids
        self._settled = 0  # how many ids of the window are not pending

    def feed(self, token_id: int) -> str:
        """See `Detokenizer.feed`. An id without a token, or a special one, has no text."""
        known = self._tokenizer.backend.id_to_token(token_id) is not None
        if not known or token_id in self._tokenizer.special_ids:
            return ""
        self._window.append(token_id)
        text = self._tokenizer.decode(self._window)
        pending = len(self._window) - self._settled
        return "" if text.endswith(REPLACEMENT) and pending < PENDING else self._settle(text)

    def flush(self) -> str:
        """See `Detokenizer.flush`."""
        return self._settle(self._tokenizer.decode(self._window))

    def _settle(self, text: str) -> str:
        piece = text[len(self._certain) :]
        self._window = self._window[self._settled :]
        self._settled = len(self._window)
        self._certain = self._tokenizer.decode(self._window)
        return piece


class Detokenizers:
    """Makes a detokeniser for each sequence of one model."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        decoder = json.loads(tokenizer.backend.to_str()).get("decoder") or {}
        self._pieces = byte_pieces(tokenizer) if decoder.get("type") == "ByteLevel" else None

    def make(self) -> Detokenizer:
        """Return a detokeniser that has seen nothing yet."""
        if self._pieces is not None:
            return ByteLevelDetokenizer(self._pieces)
        return WindowDetokenizer(self._tokenizer)

    def special_name(self, token_id: int) -> str:
        """Return the name of a special token, nothing for any other."""
        if token_id not in self._tokenizer.special_ids:
            return ""
        return self._tokenizer.backend.id_to_token(token_id) or ""

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of one token as it stands in the middle of a text.

        A special token stands for its name.
        """
        if self._pieces is not None and token_id in self._pieces:
            return self._pieces[token_id]
        name = self._tokenizer.backend.id_to_token(token_id) or ""
        text = self._tokenizer.decode([token_id] * 2)[len(self._tokenizer.decode([token_id])) :]
        if text == REPLACEMENT and name.startswith("<0x"):  # a byte of the byte fallback: "<0xE2>"
            return bytes.fromhex(name[3:5])
        return (text or name).encode()


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
