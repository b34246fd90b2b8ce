"""Names in a JSON text, each of which an object is to have once.

A grammar cannot say so where an object may have any names: it does not remember them. So a text is
followed token by token, and tokens that would complete a name which its object has are kept out.
RFC 8259 section 4: with a name twice, what a reader makes of an object is unpredictable.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the server makes grammars too, and does without numpy
    import numpy as np
    import numpy.typing as npt

    from streamtok.engine.sequence import Mask

SPACE, QUOTE, BACKSLASH = b" \t\r\n", ord('"'), ord("\\")
OPEN, CLOSED = b"{[", b"}]"


class QuoteTokens:
    """The tokens of a vocabulary with a quotation mark in them, which may end a name."""

    def __init__(self, bytes_of: Callable[[int], bytes], size: int) -> None:
        self._bytes_of = bytes_of
        self._size = size

    def bytes_of(self, token: int) -> bytes:
        """Return the bytes of a token."""
        return self._bytes_of(token)

    @cached_property
    def _tokens(self) -> dict[int, bytes]:
        every = ((token, self._bytes_of(token)) for token in range(self._size))
        return {token: data for token, data in every if QUOTE in data}

    @cached_property
    def _plain(self) -> dict[bytes, list[int]]:
        """By what stands before its mark, those with one mark and no backslash."""
        found: dict[bytes, list[int]] = {}
        for token, data in self._tokens.items():
            if data.count(QUOTE) == 1 and BACKSLASH not in data:
                found.setdefault(data.partition(b'"')[0], []).append(token)
        return found

    @cached_property
    def _others(self) -> "npt.NDArray[np.intp]":
        import numpy as np

        plain = {token for tokens in self._plain.values() for token in tokens}
        return np.array([token for token in self._tokens if token not in plain], np.intp)

    def ending(self, rest: bytes) -> Sequence[int]:
        """Return the plain tokens that have just `rest` before their mark."""
        return self._plain.get(rest, ())

    def others(self, allowed: "Mask") -> Iterator[tuple[int, bytes]]:
        """Yield those of the other tokens that are `allowed`, with their bytes."""
        for token in self._others[allowed[self._others]].tolist():
            yield token, self._tokens[token]

    def all(self, allowed: "Mask") -> Iterator[tuple[int, bytes]]:
        """Yield all that are `allowed`."""
        return ((token, data) for token, data in self._tokens.items() if allowed[token])


class Names:
    """Follows one text. What is no JSON, such as text before a function call, is passed over."""

    def __init__(self) -> None:
        self._open: list[set[str] | None] = []  # names of each open object; None for an array
        self._text: bytearray | None = None  # of the string that is open
        self._is_name = False  # and whether it is a name
        self._awaits_name = False
        self._escaped = False

    def feed(self, data: bytes) -> bool:
        """Go on; return whether an object now has a name twice."""
        repeated = False
        for byte in data:
            repeated |= self._in_string(byte) if self._text is not None else self._outside(byte)
        return repeated

    def repeating(self, tokens: QuoteTokens, allowed: "Mask") -> list[int]:
        """Return which of the `allowed` tokens would give an object a name that it has."""
        if not any(self._open) or (self._text is not None and not self._is_name):
            return []
        if self._text and BACKSLASH in self._text:
            return [token for token, data in tokens.all(allowed) if self._copy().feed(data)]
        found = [token for token, data in tokens.others(allowed) if self._copy().feed(data)]
        if self._text is not None:
            begun = bytes(self._text)
            for name in self._open[-1] or ():
                if (whole := name.encode("utf-8", "surrogatepass")).startswith(begun):
                    found += tokens.ending(whole[len(begun) :])
        return found

    def _copy(self) -> "Names":
        made = Names()
        made._open = [names if names is None else names.copy() for names in self._open]
        made._text = None if self._text is None else bytearray(self._text)
        made._is_name, made._awaits_name = self._is_name, self._awaits_name
        made._escaped = self._escaped
        return made

    def _in_string(self, byte: int) -> bool:
        assert self._text is not None
        if self._escaped:
            self._escaped = False
        elif byte == BACKSLASH:
            self._escaped = True
        elif byte == QUOTE:
            return self._end_string()
        self._text.append(byte)
        return False

    def _end_string(self) -> bool:
        text, self._text = self._text, None
        names = self._open[-1] if self._is_name and self._open else None
        if names is None or text is None:
            return False
        try:
            name = str(json.loads(b'"' + text + b'"'))
        except ValueError:
            return False
        repeated = name in names
        names.add(name)
        return repeated

    def _outside(self, byte: int) -> bool:
        if byte in OPEN:
            self._open.append(set() if byte == OPEN[0] else None)
            self._awaits_name = byte == OPEN[0]
        elif not self._open or byte in SPACE:
            pass
        elif byte == QUOTE:
            self._text, self._is_name = bytearray(), self._awaits_name
            self._awaits_name = False
        elif byte in CLOSED:
            self._open.pop()
            self._awaits_name = False
        elif byte == ord(","):
            self._awaits_name = self._open[-1] is not None
        elif self._awaits_name:  # no JSON
            self._open.clear()
            self._awaits_name = False
        return False
