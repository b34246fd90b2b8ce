"""Writes a trained model as a folder in Hugging Face form.

`config.json`, `generation_config.json`, `tokenizer.json`, `tokenizer_config.json` and
`model.safetensors` (bfloat16), with `ATTRIBUTIONS.md` for the text it was trained on,
`training.json` for the run's figures and `loss.png` for its course. The model card, `README.md`, is
written by hand. The server's weight loader reads the folder.
"""

from __future__ import annotations

import json
import lzma
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from chat_tokenizer import CHAT_TEMPLATE, END_OF_TEXT, END_OF_TURN, SPECIAL_TOKENS, token_id
from llama_torch import LlamaConfig, LlamaForCausalLM
from matplotlib.figure import Figure
from safetensors.torch import save_file
from tokenizers import Tokenizer

# Chosen at step 17,305, near the settings of `evaluate.py --grid`: see the model card.
SAMPLING = {"do_sample": True, "temperature": 0.9, "top_p": 1.0, "top_k": 0, "min_p": 0.15}


def export_model(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write weights, tokenizer and their configuration to `folder`, which is made if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: weight.to("cpu", torch.bfloat16).contiguous()
        for name, weight in model.state_dict().items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    begin, end = (token_id(tokenizer, token) for token in (END_OF_TEXT, END_OF_TURN))
    ids = {"bos_token_id": begin, "eos_token_id": [end, begin]}
    write_json(folder / "config.json", model_configuration(model.config) | ids)
    write_json(folder / "generation_config.json", ids | SAMPLING)
    write_json(folder / "tokenizer_config.json", tokenizer_configuration(model.config))


def model_configuration(config: LlamaConfig) -> dict[str, Any]:
    """The `config.json` of the model, token ids left out."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **asdict(config),
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "rope_scaling": None,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
    }


def tokenizer_configuration(config: LlamaConfig) -> dict[str, Any]:
    """The `tokenizer_config.json`, chat template included."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TURN,
        "additional_special_tokens": SPECIAL_TOKENS[1:-1],
        "model_max_length": config.max_position_embeddings,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with a final newline."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_attributions(stories: Path, path: Path) -> None:
    """List the sources of the story corpus by licence, in Markdown."""
    sources: dict[str, set[str]] = defaultdict(set)
    with lzma.open(stories, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            sources[row["licence"]].add(" ".join(row["source"].split()))
    sections = ["# Sources of the training text"]
    for licence in sorted(sources):
        listed = "\n".join(f"- {source}" for source in sorted(sources[licence]))
        sections.append(f"## {licence}\n\n{listed}")
    path.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def draw_losses(history: list[dict[str, Any]], path: Path) -> None:
    """Draw the training loss and the held-out bits per byte of every source over the steps.

    A record of `history` has `step` and `loss` (nats a token), and where the model was evaluated
    also `held_out`, bits per byte by source.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([r["step"] for r in history], [r["loss"] for r in history], linewidth=0.8)
    left.set(title="training loss", xlabel="step", ylabel="nats a token")
    evaluated = [r for r in history if "held_out" in r]
    for source in evaluated[-1]["held_out"] if evaluated else []:
        measured = [r for r in evaluated if source in r["held_out"]]  # data may come in later
        values = [r["held_out"][source] for r in measured]
        right.plot([r["step"] for r in measured], values, marker=".", label=source)
    right.set(title="held-out loss", xlabel="step", ylabel="bits per byte")
    right.legend(fontsize="small")
    figure.savefig(path, dpi=100)
