"""Writes a model folder as GGUF with its tokenizer and template, for llama.cpp's llama-server.

usage: write_gguf.py FOLDER FILE         needs the package `gguf`

The tokenizer must be byte-level BPE, as the shipped model's. llama-server was built from the
sources of llama.cpp, and run with `--jinja`.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "bench"))

from benchmarks.llama import write_gguf

CONTROL, NORMAL = 3, 1  # llama.cpp's kinds of tokens


def add_tokenizer(folder: Path, writer: Any, vocab: int) -> None:
    """Add the tokens, their merges, the special ones and the template."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    added = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    texts = {token: text for text, token in tokenizer["model"]["vocab"].items()} | added
    ids = {text: token for token, text in texts.items()}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([texts.get(token, f"[PAD{token}]") for token in range(vocab)])
    writer.add_token_types([CONTROL if token in added else NORMAL for token in range(vocab)])
    merges = tokenizer["model"]["merges"]
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
    if begin := settings.get("bos_token"):
        writer.add_bos_token_id(ids[begin])
    writer.add_eos_token_id(ids[settings["eos_token"]])
    template = folder / "chat_template.jinja"
    writer.add_chat_template(
        template.read_text() if template.exists() else settings["chat_template"]
    )


if __name__ == "__main__":
    model = Path(sys.argv[1])
    write_gguf(model, Path(sys.argv[2]), partial(add_tokenizer, model))
