"""Measures a trained model folder; every figure of the model card comes from here.

    python scripts/evaluate.py --model weights/fireside --stories stories.jsonl.xz --json out.json

It prints, and writes as JSON: held-out bits per byte of every source, beside `xz -9`, a 5-gram
model and the same decoder before training; how many stories and how many explanations pass the
checks of `checks.py`, with the folder's own sampling settings. With `--grid` it tries other
settings as well. It changes no file of the model.
"""

from __future__ import annotations

import argparse
import json
import lzma
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import mixture
import torch
from chat_tokenizer import contents, encode_documents
from checks import (
    EXPLANATION_TOKENS,
    STORY_TOKENS,
    Verdict,
    judge_explanation,
    judge_story,
    share_good,
)
from export import write_json
from generation import Assistant
from held_out import byte_count, documents_by_source, total_bits
from llama_torch import LlamaConfig, LlamaForCausalLM
from mixture import Document, Question, StoryPrompt
from ngram import KneserNey
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from tokenizers import Tokenizer

from streamtok.messages import SamplingParams

GRID_ANSWERS = 50
GRID = [
    SamplingParams(temperature=temperature, top_p=top_p, min_p=min_p)
    for temperature in (0.3, 0.5, 0.7)
    for top_p, min_p in ((0.9, 0.0), (1.0, 0.05), (1.0, 0.1))
]


def load_decoder(folder: Path) -> LlamaForCausalLM:
    """The folder's weights in the training module, in float32."""
    values = json.loads((folder / "config.json").read_text("utf-8"))
    config = LlamaConfig(**{field.name: values[field.name] for field in fields(LlamaConfig)})
    decoder = LlamaForCausalLM(config)
    weights = load_file(folder / "model.safetensors")
    decoder.load_state_dict({name: weight.float() for name, weight in weights.items()})
    return decoder


def default_sampling(folder: Path) -> SamplingParams:
    """The sampling settings of the folder's `generation_config.json`."""
    values = json.loads((folder / "generation_config.json").read_text("utf-8"))
    names = ("temperature", "top_p", "top_k", "min_p")
    return SamplingParams(**{name: values[name] for name in names if name in values})


def compressed_bits(documents: list[Document]) -> int:
    """Bits of the documents' texts in one `xz -9` file."""
    text = "\n".join(text for document in documents for text in contents(document))
    return 8 * len(lzma.compress(text.encode(), preset=9))


def measure_bits_per_byte(
    folder: Path, documents: list[Document], seed: int
) -> dict[str, dict[str, float]]:
    """Held-out bits per byte by source, of the decoder and of the baselines."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    decoder = load_decoder(folder)
    torch.manual_seed(seed)
    untrained = LlamaForCausalLM(decoder.config)
    training = [document for document in documents if not document.held_out]
    kneser_ney = KneserNey(encode_documents(tokenizer, training), decoder.config.vocab_size)
    length = decoder.config.max_position_embeddings
    figures = {}
    for source, held_out in documents_by_source(documents).items():
        sequences = encode_documents(tokenizer, held_out)
        bits = {
            "model": total_bits(decoder, sequences, length),
            "xz -9": compressed_bits(held_out),
            "5-gram": kneser_ney.total_bits(sequences),
            "untrained": total_bits(untrained, sequences, length),
        }
        size = byte_count(held_out)
        figures[source] = {"bytes": size} | {n: round(b / size, 4) for n, b in bits.items()}
    return figures


def judge(
    assistant: Assistant,
    sampling: SamplingParams,
    prompts: list[StoryPrompt],
    questions: list[Question],
) -> dict[str, list[Verdict]]:
    """Judge the answers to all prompts and questions, all with the same sampling settings."""
    stories = assistant.answer_all([p.text for p in prompts], sampling, STORY_TOKENS)
    explanations = assistant.answer_all([q.text for q in questions], sampling, EXPLANATION_TOKENS)
    return {
        "stories": list(map(judge_story, prompts, stories)),
        "questions": list(map(judge_explanation, questions, explanations)),
    }


def summarise(verdicts: list[Verdict]) -> dict[str, float]:
    """The share of answers that are good, and that have each finding."""
    summary = {"answers": len(verdicts), "good": round(share_good(verdicts), 3)}
    for name in verdicts[0].findings:
        summary[name] = round(sum(v.findings[name] for v in verdicts) / len(verdicts), 3)
    return summary


def try_grid(
    assistant: Assistant, prompts: list[StoryPrompt], questions: list[Question]
) -> list[dict[str, Any]]:
    """The shares of good answers for every sampling setting of the grid."""
    rows: list[dict[str, Any]] = []
    for sampling in GRID:
        verdicts = judge(assistant, sampling, prompts, questions)
        shares = {name: round(share_good(found), 3) for name, found in verdicts.items()}
        settings = {name: getattr(sampling, name) for name in ("temperature", "top_p", "min_p")}
        rows.append({**settings, **shares})
    return rows


def print_table(console: Console, title: str, rows: list[dict[str, Any]]) -> None:
    """Print rows that all have the same keys."""
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*map(str, row.values()))
    console.print(table)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--stories", type=Path, required=True, help="xz-compressed JSON lines")
    parser.add_argument("--json", type=Path, required=True, help="file for the results")
    parser.add_argument("--seed", type=int, default=1, help="the seed of the training run")
    parser.add_argument("--grid", action="store_true", help="try other sampling settings")
    return parser.parse_args()


def main() -> None:
    """Measure, print and write."""
    arguments = parse_arguments()
    console = Console()
    documents = mixture.build(arguments.stories, arguments.seed)
    losses = measure_bits_per_byte(arguments.model, documents, arguments.seed)
    rows = [{"source": source, **figures} for source, figures in losses.items()]
    print_table(console, "held-out bits per byte", rows)
    assistant = Assistant(arguments.model)
    sampling = default_sampling(arguments.model)
    prompts, questions = mixture.heldout_story_prompts(), mixture.heldout_questions()
    verdicts = judge(assistant, sampling, prompts, questions)
    summaries = {name: summarise(found) for name, found in verdicts.items()}
    for name, summary in summaries.items():
        print_table(console, name, [summary])
    results: dict[str, Any] = {
        "bits_per_byte": losses,
        "sampling": asdict(sampling),
        "summaries": summaries,
        "answers": {name: [v.to_json() for v in found] for name, found in verdicts.items()},
    }
    if arguments.grid:
        step = max(1, len(questions) // GRID_ANSWERS)
        results["grid"] = try_grid(assistant, prompts[:GRID_ANSWERS], questions[::step])
        print_table(console, "share of good answers", results["grid"])
    write_json(arguments.json, results)


if __name__ == "__main__":
    main()
