"""Tokenising long texts: without blocking the event loop, and not at all if they cannot fit.

A tokenizer takes about a second per megabyte. A batch releases the GIL meanwhile, so that event
loop and engine run on; a text that cannot fit the context is recognised by its length.

Read next: `streamtok.api.openai.completions`.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

from tokenizers import Encoding, Tokenizer

# A text cannot be encoded by several threads. With this, a batch of one is encoded in the thread
# of the caller, with its priority, and not in one of the library's own.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SHORT = 1024  # characters that take about half a millisecond, and are not worth another thread's
COMPOSED = 4  # code points that become one, at most, where a text is composed (NFC)
GROWING = ("Prepend", "NFD", "NFKD", "Lowercase", "ByteLevel")
KEEPING = ("ByteLevel", "Metaspace", "Digits")


def encode(tokenizer: Tokenizer, text: str, *, special: bool = False) -> Encoding:
    """Return the tokens of `text`, with what is added at its ends if `special`."""
    if len(text) <= SHORT:
        return tokenizer.encode(text, add_special_tokens=special)
    # Only a batch lets other threads run while it is encoded
    [encoding] = tokenizer.encode_batch([text], add_special_tokens=special)
    return encoding


def most_characters(tokenizer: Tokenizer) -> int | None:
    """Return how many characters of a text a token can stand for; None if there is no bound.

    There is none where something is dropped or joined: white space, or unknown characters.
    """
    settings = json.loads(tokenizer.to_str())
    added = settings["added_tokens"]
    strips = any(token["lstrip"] or token["rstrip"] for token in added)
    factor = _composition(settings["normalizer"])
    if strips or factor is None or not _keeps(settings["pre_tokenizer"], settings["model"]):
        return None
    return factor * max(map(len, tokenizer.get_vocab(with_added_tokens=True)))


def _composition(normalizer: Mapping[str, Any] | None) -> int | None:
    """Return how many characters can become one; None for any number."""
    if normalizer is None:
        return 1
    kind = normalizer["type"]
    if kind == "Sequence":
        factors = [_composition(part) for part in normalizer["normalizers"]]
        return None if None in factors else max(map(int, filter(None, factors)), default=1)
    if kind in ("NFC", "NFKC"):
        return COMPOSED
    if kind == "Replace":
        pattern = normalizer["pattern"].get("String", "")
        return 1 if 0 < len(pattern) <= len(normalizer["content"]) else None
    return 1 if kind in GROWING else None


def _keeps(splitter: Mapping[str, Any] | None, model: Mapping[str, Any]) -> bool:
    """Whether every character is in some token."""
    if model["type"] != "BPE":
        return False
    complete = bool(model.get("byte_fallback")) and "<0x00>" in model["vocab"]
    return _splits(splitter) and (complete or _is_byte_level(splitter))


def _splits(splitter: Mapping[str, Any] | None) -> bool:
    """Whether a text is only cut, and nothing taken out."""
    if splitter is None:
        return True
    if splitter["type"] == "Sequence":
        return all(map(_splits, splitter["pretokenizers"]))
    return splitter["type"] in KEEPING or (
        splitter["type"] in ("Split", "Punctuation") and splitter["behavior"] != "Removed"
    )


def _is_byte_level(splitter: Mapping[str, Any] | None) -> bool:
    if splitter is None:
        return False
    parts = splitter["pretokenizers"] if splitter["type"] == "Sequence" else [splitter]
    return any(part["type"] == "ByteLevel" for part in parts)
