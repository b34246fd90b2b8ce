"""Text to token ids, by the `tokenizers` library, from a Hugging Face folder's `tokenizer.json`.

The way back is one token at a time and lives in `streamtok.text.detokenizer`.

Read next: `streamtok.text.encoding`.
"""

import json
import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from streamtok.errors import ModelError
from streamtok.model.generation_config import read_generation_config, read_optional
from streamtok.text.encoding import SHORT, LongTexts, encode

log = logging.getLogger(__name__)


class Tokenizer:
    """A tokenizer and the special tokens its model was trained with.

    It is what `tokenizer.json` says, for this is the file that the model's makers had when they
    trained it, and that servers read. transformers from version 5 on builds Llama's anew from the
    vocabulary instead: in folders from before, what follows a special token, or begins with a
    space, gets other ids there than in training. From `tokenizer_config.json` come, as there, the
    added tokens that `tokenizer.json` lacks, but not whether a text is given a beginning and an
    end: `add_bos_token` and `add_eos_token` do nothing beside a `tokenizer.json`.

    `stop_ids` end a text: those of `streamtok.model.generation_config` and the tokenizer's own
    end, which chat models have whose other files know only the end of the base model's texts.
    A model has `vocab` embeddings; a special token beyond them, which some add to fill up batches,
    is no token here. Raises ModelError if a file of `folder` is missing or wrong.
    """

    def __init__(self, folder: Path, vocab: int | None = None) -> None:
        self.folder = folder
        path = folder / "tokenizer.json"
        # Older folders have the names of special tokens in a file of their own
        older = read_optional(folder / "special_tokens_map.json")
        self.settings = older | read_optional(folder / "tokenizer_config.json")
        self.backend = _read(path)
        self._add_tokens()
        if vocab is not None:
            self.backend = _within(path, self.backend, vocab)
        self.backend.no_truncation()  # settings of training, which the file may hold
        self.backend.no_padding()
        self.vocab = self.backend.get_vocab_size(with_added_tokens=True)
        self.long: LongTexts | None = None  # plugged in
        self.special_ids = frozenset(
            token
            for token, added in self.backend.get_added_tokens_decoder().items()
            if added.special
        )
        end = self.backend.token_to_id(self.special_text("eos_token"))
        ids = read_generation_config(folder).end_ids | (frozenset() if end is None else {end})
        self.stop_ids = frozenset(token for token in ids if vocab is None or token < vocab)

    def encode(self, text: str, *, special: bool) -> tuple[int, ...]:
        """Return the ids of `text`, with what the tokenizer adds to a text's ends if `special`.

        Special tokens written in `text` become themselves, as chat templates need it; a text that
        begins with the beginning of texts is not given another.
        """
        begin = self.special_text("bos_token")
        special = special and not (begin and text.startswith(begin))
        if self.long and len(text) > SHORT:
            return tuple(self.long.ids(text, special=special))
        return tuple(encode(self.backend, text, special=special).ids)

    def most_characters(self, tokens: int) -> int | None:
        """Return the length above which all texts have more than so many `tokens`, if any."""
        return tokens * self.long.most if self.long and self.long.most is not None else None

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """Return the text of `ids`, with the names of special tokens only if `special`."""
        # As in `encode`, a batch lets other threads run
        [text] = self.backend.decode_batch([list(ids)], skip_special_tokens=not special)
        return str(text)

    @property
    def beginning(self) -> tuple[int, ...]:
        """What begins a text that has no tokens: the beginning token, or an end token; or nothing.

        OpenAI's models begin a new document after the end of another one in the same way.
        """
        for name in ("bos_token", "eos_token"):
            token = self.backend.token_to_id(self.special_text(name))
            if token is not None:
                return (token,)
        return tuple(sorted(self.stop_ids)[:1])

    def special_text(self, name: str) -> str:
        """Return the text of the special token `name` (such as "bos_token"), or nothing."""
        value = self.settings.get(name)
        return str(value.get("content", "")) if isinstance(value, dict) else str(value or "")

    def _add_tokens(self) -> None:
        """Add the tokens of `added_tokens_decoder` that are not there yet, each with its own id."""
        added = self.settings.get("added_tokens_decoder") or {}
        problem = f"{self.folder / 'tokenizer_config.json'}: added_tokens_decoder"
        try:
            known = {int(token): AddedToken(**one) for token, one in added.items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise ModelError(f"{problem}: expected tokens by their ids: {error}") from error
        for token_id, token in sorted(known.items()):
            if self.backend.token_to_id(token.content) is None:
                add = self.backend.add_special_tokens if token.special else self.backend.add_tokens
                add([token])
                if (given := self.backend.token_to_id(token.content)) != token_id:
                    raise ModelError(
                        f"{problem}: {token.content!r} has the id {token_id}, and would get {given}"
                    )


def _read(path: Path) -> Backend:
    try:
        return Backend.from_str(path.read_text("utf-8"))
    except OSError as error:
        others = ("tokenizer.model", "vocab.json", "vocab.txt", "tekken.json", "tiktoken.model")
        there = next((name for name in others if (path.parent / name).exists()), None)
        hint = f"; transformers' AutoTokenizer can make it of {there}" if there else ""
        raise ModelError(f"{path}: cannot be read: {error.strerror}{hint}") from error
    except Exception as error:  # the library raises bare Exception
        raise ModelError(f"{path}: not a tokenizer: {error}") from error


def _within(path: Path, backend: Backend, vocab: int) -> Backend:
    """Return a tokenizer without the added tokens that have no embedding among `vocab`.

    Raises:
        ModelError: another token has none.
    """
    added = backend.get_added_tokens_decoder()
    surplus = {token: one.content for token, one in added.items() if token >= vocab}
    if surplus:
        log.warning(
            "%s: the model has no embedding for %s: they are text, not tokens",
            path,
            ", ".join(f"{text!r} ({token})" for token, text in surplus.items()),
        )
        settings = json.loads(backend.to_str())
        settings["added_tokens"] = [one for one in settings["added_tokens"] if one["id"] < vocab]
        backend = Backend.from_str(json.dumps(settings))
    tokens = max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
    if tokens > vocab:
        raise ModelError(f"{path}: {tokens} tokens; the model's vocab_size is {vocab}")
    if any(token >= vocab for token in backend.encode("").ids):
        raise ModelError(f"{path}: it begins texts with a token that the model has no embedding of")
    return backend


@cache
def byte_alphabet() -> dict[str, int]:
    """Return the character that stands for each byte in a byte-level vocabulary, as a table.

    Printable bytes stand for themselves, the rest for the characters from U+0100 on, in order:
    GPT-2's alphabet, which the `tokenizers` library calls ByteLevel.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(0x100 + index): byte for index, byte in enumerate(others)}
