"""Tokenising a text without blocking the event loop.

A tokenizer takes about a second per megabyte. A batch releases the GIL meanwhile, so that event
loop and engine run on.

Read next: `streamtok.api.openai.completions`.
"""

import os
from collections.abc import Sequence
from typing import Protocol

from tokenizers import Encoding, Tokenizer

# A text cannot be encoded by several threads. With this, a batch of one is encoded in the thread
# of the caller, with its priority, and not in one of the library's own.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SHORT = 1024  # characters that take about half a millisecond, and are not worth another thread's


class LongTexts(Protocol):
    """What a room knows of long texts; `most` characters are one token, if there is a bound."""

    most: int | None

    def ids(self, text: str, *, special: bool = False) -> Sequence[int]:
        """Return the ids that `encode` gives, without holding the GIL for long."""


def encode(tokenizer: Tokenizer, text: str, *, special: bool = False) -> Encoding:
    """Return the tokens of `text`, with what is added at its ends if `special`."""
    if len(text) <= SHORT:
        return tokenizer.encode(text, add_special_tokens=special)
    # Only a batch lets other threads run while it is encoded
    [encoding] = tokenizer.encode_batch([text], add_special_tokens=special)
    return encoding
