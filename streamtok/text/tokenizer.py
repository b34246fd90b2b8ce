"""Text to token ids, by the `tokenizers` library, from a Hugging Face folder's `tokenizer.json`.

The way back is one token at a time and lives in `streamtok.text.detokenizer`.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from streamtok.errors import ModelError
from streamtok.model.config import read_json


class Tokenizer:
    """A tokenizer and the special tokens its model was trained with.

    `stop_ids` end an answer. Raises ModelError if a file of `folder` is missing or wrong.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "tokenizer.json"
        try:
            self.backend = Backend.from_str(path.read_text("utf-8"))
        except OSError as error:
            raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
        except Exception as error:  # the library raises bare Exception
            raise ModelError(f"{path}: not a tokenizer: {error}") from error
        self.backend.no_truncation()  # settings of training, which the file may hold
        self.backend.no_padding()
        self.vocab = self.backend.get_vocab_size(with_added_tokens=True)
        self.settings = read_optional(folder / "tokenizer_config.json")
        if (template := folder / "chat_template.jinja").exists():  # newer folders have it apart
            self.settings["chat_template"] = template.read_text("utf-8")
        self.special_ids = frozenset(
            token
            for token, added in self.backend.get_added_tokens_decoder().items()
            if added.special
        )
        self.stop_ids = self._stop_ids(folder / "generation_config.json")

    def encode(self, text: str, *, special: bool) -> tuple[int, ...]:
        """Return the ids of `text`, with what the tokenizer adds to a text's ends if `special`.

        Special tokens written in `text` become themselves, as chat templates need it; a text that
        begins with the beginning of texts is not given another.
        """
        begin = self.special_text("bos_token")
        special = special and not (begin and text.startswith(begin))
        return tuple(self.backend.encode(text, add_special_tokens=special).ids)

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """Return the text of `ids`, with the names of special tokens only if `special`."""
        return str(self.backend.decode(list(ids), skip_special_tokens=not special))

    def special_text(self, name: str) -> str:
        """Return the text of the special token `name` (such as "bos_token"), or nothing."""
        value = self.settings.get(name)
        return str(value.get("content", "")) if isinstance(value, dict) else str(value or "")

    def _stop_ids(self, path: Path) -> frozenset[int]:
        """Return the ids `generation_config.json` names, and that of `eos_token`."""
        named = read_optional(path).get("eos_token_id")
        ids = named if isinstance(named, list) else [] if named is None else [named]
        if not all(isinstance(token, int) for token in ids):
            raise ModelError(f"{path}: eos_token_id: expected an integer or a list of them")
        token = self.backend.token_to_id(self.special_text("eos_token"))
        return frozenset(ids if token is None else {*ids, token})


def read_optional(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`; an empty one if there is no such file.

    Raises:
        ModelError: the file is there but holds something else.
    """
    return read_json(path) if path.exists() else {}


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
