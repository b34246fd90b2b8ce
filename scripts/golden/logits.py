"""Makes `tests/golden`: tiny random models of every family, and what transformers computes of them.

A folder each: `config.json` and `model.safetensors` as transformers saves them, and
`golden.safetensors` with `ids` [T], `logits32` and `logits64` [T, V] (the scores after each of
them, in both precisions) and `greedy` [64] (the most likely tokens that follow, one at a time).
Needs torch and transformers, which the tests themselves do without:

    python scripts/golden/logits.py tests/golden [FOLDER ...]
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

PROMPT, FOLLOWING = 24, 64  # tokens
MARGIN = 2e-3  # between the two most likely tokens, at every step: no rounding may decide
VARIETY = 12  # different tokens at least: a text that runs in a small circle proves little

SHARED: dict[str, Any] = {
    "vocab_size": 75,
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
# folder -> model type, and the keys that differ
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"num_key_value_heads": 4, "rms_norm_eps": 1e-5}),
    "llama-3": ("llama", {"rope_parameters": LLAMA3, "head_dim": 16, "num_key_value_heads": 1}),
    "llama-linear": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.5}},
    ),
    "smollm": ("llama", {"tie_word_embeddings": True, "vocab_size": 97, "hidden_size": 32}),
    "mistral": ("mistral", {"sliding_window": 7, "head_dim": 10}),
    "mistral-full": ("mistral", {"sliding_window": None, "num_attention_heads": 6}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True, "num_attention_heads": 6}),
    "qwen2-untied": ("qwen2", {"num_key_value_heads": 1, "vocab_size": 64}),
    "qwen3": ("qwen3", {"head_dim": 14, "tie_word_embeddings": True}),
    "qwen3-untied": (
        "qwen3",
        {"head_dim": 8, "num_attention_heads": 6, "vocab_size": 33, "rms_norm_eps": 0.05},
    ),
    "gemma": ("gemma", {"head_dim": 10, "num_key_value_heads": 1, "tie_word_embeddings": True}),
    "gpt2": ("gpt2", {"tie_word_embeddings": True}),
    "gpt2-odd": ("gpt2", {"hidden_size": 35, "num_attention_heads": 5, "n_inner": 50}),
    "pythia": ("gpt_neox", {"hidden_size": 32, "layer_norm_eps": 1e-3}),
    "neox-tied": (
        "gpt_neox",
        {
            "hidden_size": 60,
            "num_attention_heads": 3,
            "rotary_pct": 0.5,
            "rotary_emb_base": 700,
            "use_parallel_residual": False,
            "tie_word_embeddings": True,
            "vocab_size": 33,
        },
    ),
    "llama-yarn": (
        "llama",
        {
            "attention_bias": True,
            "mlp_bias": True,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 24,
            },
        },
    ),
    "phi3": (
        "phi3",
        {
            "sliding_window": 9,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.75,
            },
        },
    ),
    "smollm3": ("smollm3", {"num_hidden_layers": 4, "tie_word_embeddings": True}),
    "smollm3-odd": ("smollm3", {"num_hidden_layers": 3, "no_rope_layers": [0, 1, 0]}),
}


@contextmanager
def double_precision() -> Iterator[None]:
    """Let transformers compute in float64 what it computes in float32 at any precision.

    Those are its norms and the angles of rotary embeddings.
    """
    wide = {"float": torch.float64, "float32": torch.float64}
    with (
        patch.multiple(torch, **wide),
        patch.object(torch.Tensor, "float", torch.Tensor.double),
    ):
        yield


def randomise(model: PreTrainedModel, seed: int) -> None:
    """Give every parameter, the norms and biases among them, a value that matters."""
    random = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=random)
        if parameter.ndim == 1:
            parameter.data.add_(noise, alpha=0.3)
        else:
            parameter.data.copy_(noise * 1.5 / parameter.shape[1] ** 0.5)


def greedy_tokens(model: PreTrainedModel, ids: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Return the tokens that follow `ids` [1, T], and the least margin by which one was chosen."""
    margin = float("inf")
    for _ in range(FOLLOWING):
        logits = model(ids, use_cache=False).logits[0, -1]  # [V]
        first, second = logits.topk(2).values.tolist()
        margin = min(margin, first - second)
        ids = torch.cat([ids, logits.argmax().reshape(1, 1)], dim=1)  # [1, T + 1]
    return ids[0, -FOLLOWING:], margin


def make(family: str, keys: dict[str, Any], folder: Path) -> None:
    """Write one case, with the first seed whose greedy tokens are beyond doubt and vary."""
    config = AutoConfig.for_model(family, **SHARED | keys)
    for seed in range(100):
        model = AutoModelForCausalLM.from_config(config).eval()
        randomise(model, seed)
        random = torch.Generator().manual_seed(seed)
        ids = torch.randint(config.vocab_size, (1, PROMPT), generator=random)  # [1, T]
        greedy, margin = greedy_tokens(model, ids)
        if margin > MARGIN and len(greedy.unique()) >= VARIETY:
            break
    else:
        raise SystemExit(f"{folder.name}: no seed gives such tokens")
    with double_precision():
        wide = AutoModelForCausalLM.from_config(config, dtype=torch.float64).eval()
        wide.load_state_dict(model.state_dict())
        logits64 = wide(ids, use_cache=False).logits[0]  # [T, V]
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    golden = {
        "ids": ids[0].clone(),
        "greedy": greedy.clone(),
        "logits32": model(ids, use_cache=False).logits[0],
        "logits64": logits64,
    }
    save_file(golden, folder / "golden.safetensors")
    print(f"{folder.name}: seed {seed}, margin {margin:.4f}, {len(greedy.unique())} tokens")


def main() -> None:
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    root, wanted = Path(sys.argv[1]), sys.argv[2:] or list(CASES)
    with torch.no_grad():
        for name in wanted:
            shutil.rmtree(root / name, ignore_errors=True)
            make(*CASES[name], root / name)


if __name__ == "__main__":
    main()
