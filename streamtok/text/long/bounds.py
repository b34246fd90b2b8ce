"""How long a text can be and still fit: texts beyond are refused without being tokenised."""

from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer

COMPOSED = 4  # code points that become one, at most, where a text is composed (NFC)
GROWING = ("Prepend", "NFD", "NFKD", "Lowercase", "ByteLevel")
KEEPING = ("ByteLevel", "Metaspace", "Digits")


def most_characters(tokenizer: Tokenizer, settings: Mapping[str, Any]) -> int | None:
    """Return how many characters of a text a token can stand for; None if there is no bound.

    `settings` are what the tokenizer's file says. There is no bound where something is dropped or
    joined: white space, or unknown characters.
    """
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
    return model["type"] == "BPE" and _splits(splitter) and knows_all(splitter, model)


def knows_all(splitter: Mapping[str, Any] | None, model: Mapping[str, Any]) -> bool:
    """Whether a tokenizer can write every character, if need be as bytes."""
    return _is_byte_level(splitter) or bool(
        model.get("byte_fallback") and "<0x00>" in model["vocab"]
    )


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
