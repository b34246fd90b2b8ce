"""Writes a model folder as GGUF with its tokenizer and template, for llama.cpp's llama-server.

usage: write_gguf.py FOLDER FILE         needs the package `gguf`

The tokenizer must be byte-level BPE, as the shipped model's. llama-server was built from the
sources of llama.cpp, and run with `--jinja`.
"""

import json
import sys
from pathlib import Path

import numpy as np
from gguf import GGUFWriter

sys.path.insert(0, str(Path(__file__).parent.parent / "bench"))

from benchmarks.llama import _rename, _side_by_side

from streamtok.model.load import read_weights

CONTROL, NORMAL = 3, 1  # llama.cpp's kinds of tokens


def main(folder: Path, file: str) -> None:
    """Write the file."""
    config, weights = read_weights(folder)
    writer = GGUFWriter(file, "llama")
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.dim)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.hidden)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(rope_theta(folder))
    writer.add_vocab_size(config.vocab)
    add_tokenizer(writer, folder, config.vocab)
    for name, tensor in weights.items():
        if ".q_proj." in name or ".k_proj." in name:
            tensor = _side_by_side(tensor, config.head_dim)
        writer.add_tensor(_rename(name), np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def rope_theta(folder: Path) -> float:
    """Return the base of the rotations."""
    config = json.loads((folder / "config.json").read_text())
    return float((config.get("rope_parameters") or config)["rope_theta"])


def add_tokenizer(writer: GGUFWriter, folder: Path, vocab: int) -> None:
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
    main(Path(sys.argv[1]), sys.argv[2])
