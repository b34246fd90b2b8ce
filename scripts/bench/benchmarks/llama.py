"""llama.cpp with the same weights: written as float32 GGUF, decoded through llama-cpp-python."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.engine import PROMPT
from benchmarks.models import CONTEXT, prompt

from streamtok.model.config import ModelConfig
from streamtok.model.load import read_weights
from streamtok.model.weights import Array

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
AddTokens = Callable[[Any, int], None]  # adds so many tokens to a GGUFWriter
UBATCH = 512  # positions that are computed together: llama.cpp's own default


class Llama:
    """llama.cpp with the weights in `folder`, and so many threads."""

    def __init__(self, folder: Path, threads: int) -> None:
        import llama_cpp

        self._lib = llama_cpp
        self._threads = threads
        file = folder / "model.gguf"
        if not file.exists():
            write_gguf(folder, file)
        logging.getLogger("llama-cpp-python").setLevel(logging.ERROR)
        self._model = llama_cpp.llama_model_load_from_file(
            str(file).encode(), llama_cpp.llama_model_default_params()
        )

    def decode(self, streams: int, tokens: int) -> float:
        """Return the tokens a second of so many greedy texts."""
        run = _Run(self._lib, self._model, self._threads, streams, max(streams * PROMPT, 32))
        last = run.step([prompt(PROMPT, seed) for seed in range(streams)], 0)
        begun_s = time.perf_counter()
        for position in range(PROMPT, PROMPT + tokens):
            last = run.step(last, position)
        seconds = time.perf_counter() - begun_s
        run.close()
        return streams * tokens / seconds

    def prefill(self, length: int) -> float:
        """Return the tokens a second of a prompt, until the first token after it is known."""
        run = _Run(self._lib, self._model, self._threads, 1, length)
        begun_s = time.perf_counter()
        run.step([prompt(length, 0)], 0)
        seconds = time.perf_counter() - begun_s
        run.close()
        return length / seconds


class _Run:
    """One context of llama.cpp: `streams` texts, `rows` positions at most in one step."""

    def __init__(self, lib: Any, model: Any, threads: int, streams: int, rows: int) -> None:
        params = lib.llama_context_default_params()
        params.n_ctx = streams * CONTEXT
        params.n_batch, params.n_ubatch = rows, min(rows, UBATCH)
        params.n_seq_max = streams
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = lib.GGML_TYPE_F32
        self._lib = lib
        self._vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
        self._context = lib.llama_init_from_model(model, params)
        self._batch = lib.llama_batch_init(rows, 0, 1)

    def step(self, ids: list[list[int]], position: int) -> list[list[int]]:
        """Compute `ids` of each stream from `position` on; return the next of each."""
        batch, rows = self._batch, []
        batch.n_tokens = 0
        for stream, its in enumerate(ids):
            for place, token in enumerate(its):
                row = batch.n_tokens
                batch.token[row], batch.pos[row] = token, position + place
                batch.n_seq_id[row], batch.seq_id[row][0] = 1, stream
                batch.logits[row] = place == len(its) - 1
                batch.n_tokens += 1
            rows.append(batch.n_tokens - 1)
        assert self._lib.llama_decode(self._context, batch) == 0
        logits = (self._lib.llama_get_logits_ith(self._context, row) for row in rows)
        return [[int(np.ctypeslib.as_array(row, (self._vocab,)).argmax())] for row in logits]

    def close(self) -> None:
        """Give its memory back."""
        self._lib.llama_batch_free(self._batch)
        self._lib.llama_free(self._context)


def without_texts(writer: Any, _: int) -> None:
    """Add none: ids go in and out."""
    writer.add_tokenizer_model("none")


def made_up_texts(writer: Any, vocab: int) -> None:
    """Add a text for each token, as llama.cpp's server needs them."""
    from gguf import TokenType

    special = ["<unk>", "<s>", "</s>"]
    octets = [f"<0x{octet:02X}>" for octet in range(256)]
    words = [f"\u2581t{number}" for number in range(vocab - len(special + octets))]
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    kinds += [TokenType.BYTE] * len(octets) + [TokenType.NORMAL] * len(words)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(special + octets + words)
    writer.add_token_scores([0.0] * vocab)
    writer.add_token_types(kinds)


def write_gguf(folder: Path, file: Path, add_tokens: AddTokens = without_texts) -> None:
    """Write the model as float32; `add_tokens` adds the texts of its tokens."""
    from gguf import GGUFWriter

    config, weights = read_weights(folder)
    assert isinstance(config, ModelConfig)
    writer = GGUFWriter(file, "llama")
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.dim)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.hidden)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(_rope_base(folder))
    writer.add_vocab_size(config.vocab)
    add_tokens(writer, config.vocab)
    for name, tensor in weights.items():
        if ".q_proj." in name or ".k_proj." in name:
            tensor = _side_by_side(tensor, config.head_dim)
        writer.add_tensor(_rename(name), np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _rope_base(folder: Path) -> float:
    config = json.loads((folder / "config.json").read_text())
    return float((config.get("rope_parameters") or config).get("rope_theta", 10_000))


def _rename(name: str) -> str:
    """Return GGUF's name of a tensor: `blk.3.ffn_up.weight` is layer 3's `mlp.up_proj`."""
    stem, _, kind = name.rpartition(".")
    if stem in NAMES:
        return f"{NAMES[stem]}.{kind}"
    layer, _, part = stem.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{NAMES[part]}.{kind}"


def _side_by_side(weight: Array, head_dim: int) -> Array:
    """Reorder each head's rows to GGUF's order, in which rotary pairs are neighbours."""
    halves = weight.reshape(-1, 2, head_dim // 2, weight.shape[1])
    return halves.swapaxes(1, 2).reshape(weight.shape)
