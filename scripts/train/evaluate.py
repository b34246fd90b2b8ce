"""Measures a trained model folder; every figure of the model card comes from here.

    python scripts/train/evaluate.py --model weights/fireside --json out.json [--stories FILE]

It prints, and writes as JSON: how many stories, explanations and follow-ups pass the checks of
`checks.py`, with the folder's own sampling settings; how many plots ten seeds of one request give;
and, with `--stories`, held-out bits per byte of every source, beside `xz -9`, a 5-gram model and
the same decoder before training. With `--grid` it tries other sampling settings instead. It
changes no file of the model.
"""

from __future__ import annotations

import argparse
import json
import lzma
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from chat_tokenizer import contents, encode_documents
from checks import (
    EXPLANATION_TOKENS,
    STORY_TOKENS,
    FollowUp,
    Verdict,
    judge_explanation,
    judge_follow_up,
    judge_story,
    share_good,
)
from export import write_json
from generation import Assistant, ContextFullError, Turn, default_sampling
from held_out import byte_count, documents_by_source, total_bits
from llama_torch import LlamaConfig, LlamaForCausalLM
from mixture import (
    Document,
    Mixture,
    Question,
    StoryPrompt,
    heldout_protocol_questions,
    heldout_story_prompts,
    heldout_talk_questions,
)
from msgspec import to_builtins
from ngram import KneserNey
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from story_checks import count_plots, without_title
from tokenizers import Tokenizer

from streamtok.messages import SamplingParams

BASELINE_PARTS = 4  # of the mixture, which the 5-gram model reads
PLOT_REQUESTS, PLOT_SEEDS = 10, 10
FOLLOW_UPS = 60
LONG_CHATS, LONG_CHAT_STORIES = 10, 5
CONTEXT = 1024
GRID = [
    SamplingParams(temperature=temperature, top_p=1.0, min_p=min_p)
    for temperature in (0.5, 0.7, 0.9, 1.0)
    for min_p in (0.1, 0.2, 0.3, 0.4)
]
ASKED_ON = {
    "another": ("Tell another one now.", "Could you do one more?", "I want another one."),
    "shorter": (
        "Could you shorten it?",
        "Give it to me in one line.",
        "Make that shorter, please.",
    ),
    "happened": ("And what happened to the {0}?", "Tell me again what happened to the {0}."),
}


def load_decoder(folder: Path) -> LlamaForCausalLM:
    """The folder's weights in the training module, in float32."""
    values = json.loads((folder / "config.json").read_text("utf-8"))
    config = LlamaConfig(**{field.name: values[field.name] for field in fields(LlamaConfig)})
    decoder = LlamaForCausalLM(config)
    weights = load_file(folder / "model.safetensors")
    decoder.load_state_dict({name: weight.float() for name, weight in weights.items()})
    return decoder


def compressed_bits(documents: list[Document]) -> int:
    """Bits of the documents' texts in one `xz -9` file."""
    text = "\n".join(text for document in documents for text in contents(document))
    return 8 * len(lzma.compress(text.encode(), preset=9))


def measure_bits_per_byte(
    folder: Path, mixture: Mixture, seed: int, baselines: bool
) -> dict[str, dict[str, float]]:
    """Held-out bits per byte by source, of the decoder and, where wanted, of the baselines."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    decoder = load_decoder(folder)
    length = decoder.config.max_position_embeddings
    if baselines:
        torch.manual_seed(seed)
        untrained = LlamaForCausalLM(decoder.config)
        training = [d for part in range(BASELINE_PARTS) for d in mixture.part(part)]
        kneser_ney = KneserNey(encode_documents(tokenizer, training), decoder.config.vocab_size)
    figures = {}
    for source, held_out in documents_by_source(mixture.held_out).items():
        sequences = encode_documents(tokenizer, held_out)
        bits = {"model": total_bits(decoder, sequences, length)}
        if baselines:
            bits["5-gram"] = kneser_ney.total_bits(sequences)
            bits["xz -9"] = compressed_bits(held_out)
            bits["untrained"] = total_bits(untrained, sequences, length)
        size = byte_count(held_out)
        figures[source] = {"bytes": size} | {n: round(b / size, 4) for n, b in bits.items()}
    return figures


def tell_all(
    assistant: Assistant, sampling: SamplingParams, prompts: list[StoryPrompt]
) -> list[Verdict]:
    """Judge a story for every request; the number of a request is its seed."""
    stories = assistant.answer_all([p.text for p in prompts], sampling, STORY_TOKENS)
    return list(map(judge_story, prompts, stories))


def explain_all(
    assistant: Assistant, sampling: SamplingParams, questions: list[Question]
) -> list[Verdict]:
    """Judge an answer to every question; the number of a question is its seed."""
    answers = assistant.answer_all([q.text for q in questions], sampling, EXPLANATION_TOKENS)
    return list(map(judge_explanation, questions, answers))


def distinct_plots(
    assistant: Assistant, sampling: SamplingParams, prompts: list[StoryPrompt]
) -> list[int]:
    """For each request, how many plots ten seeds give."""
    counts = []
    for prompt in prompts:
        answers = assistant.answer_all([prompt.text] * PLOT_SEEDS, sampling, STORY_TOKENS)
        stories = [without_title(answer.text) for answer in answers]
        counts.append(count_plots(stories, prompt.subjects))
    return counts


def go_on(
    assistant: Assistant, sampling: SamplingParams, verdicts: list[Verdict], subjects: list[str]
) -> list[Verdict]:
    """Judge answers to a second request, after each of the stories that the model has told."""
    asked = []
    for number, (verdict, subject) in enumerate(zip(verdicts, subjects, strict=True)):
        wants = list(ASKED_ON)[number % len(ASKED_ON)]
        forms = ASKED_ON[wants]
        request = forms[number // len(ASKED_ON) % len(forms)].format(subject)
        first: list[Turn] = [("user", verdict.answer.request), ("assistant", verdict.answer.text)]
        asked.append(FollowUp((*first, ("user", request)), wants, subject))
    answers = assistant.answer_all([a.turns for a in asked], sampling, STORY_TOKENS)
    return list(map(judge_follow_up, asked, answers))


def long_chats(
    assistant: Assistant, sampling: SamplingParams, prompts: list[StoryPrompt]
) -> list[int]:
    """How many stories in a row end by themselves in each chat that asks for five."""
    counts = []
    for seed in range(LONG_CHATS):
        chat: list[Turn] = []
        told = 0
        for prompt in prompts[seed * LONG_CHAT_STORIES : (seed + 1) * LONG_CHAT_STORIES]:
            chat.append(("user", prompt.text))
            try:
                answer = assistant.answer_all([chat], sampling, STORY_TOKENS, [seed])[0]
            except ContextFullError:
                break
            if not answer.ended:
                break
            told += 1
            chat.append(("assistant", answer.text))
        counts.append(told)
    return counts


def summarise(verdicts: list[Verdict]) -> dict[str, float]:
    """The share of answers that are good, and that have each finding."""
    summary = {"answers": len(verdicts), "good": round(share_good(verdicts), 3)}
    names = dict.fromkeys(name for verdict in verdicts for name in verdict.findings)
    for name in names:
        judged = [v.findings[name] for v in verdicts if name in v.findings]
        summary[name] = round(sum(judged) / len(judged), 3)
    return summary


def try_grid(
    assistant: Assistant, prompts: list[StoryPrompt], questions: list[Question]
) -> list[dict[str, Any]]:
    """The shares of good answers, and the number of plots, for every setting of the grid."""
    rows: list[dict[str, Any]] = []
    for sampling in GRID:
        plots = distinct_plots(assistant, sampling, prompts[:3])
        rows.append({
            "temperature": sampling.temperature,
            "min_p": sampling.min_p,
            "stories": round(share_good(tell_all(assistant, sampling, prompts)), 3),
            "questions": round(share_good(explain_all(assistant, sampling, questions)), 3),
            "plots": round(sum(plots) / len(plots), 1),
        })  # fmt: skip
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
    parser.add_argument("--json", type=Path, required=True, help="file for the results")
    parser.add_argument("--stories", type=Path, help="corpus: measure bits per byte as well")
    parser.add_argument("--baselines", action="store_true", help="bits per byte of others, too")
    parser.add_argument("--seed", type=int, default=1, help="the seed of the training run")
    parser.add_argument("--share", type=int, default=1, help="judge every so many-th request only")
    parser.add_argument("--grid", action="store_true", help="try other sampling settings")
    return parser.parse_args()


def judge_all(
    assistant: Assistant, sampling: SamplingParams, share: int, console: Console
) -> dict[str, Any]:
    """Judge stories, explanations, small talk and follow-ups, and print what was found."""
    prompts = heldout_story_prompts()[::share]
    stories = tell_all(assistant, sampling, prompts)
    followed = [
        (verdict, prompt.subjects[0])
        for verdict, prompt in zip(stories, prompts, strict=True)
        if verdict.answer.ended and prompt.subjects
    ][: FOLLOW_UPS // share]
    verdicts = {
        "stories": stories,
        "protocol": explain_all(assistant, sampling, heldout_protocol_questions()[::share]),
        "talk": explain_all(assistant, sampling, heldout_talk_questions()[::share]),
        "follow-ups": go_on(
            assistant, sampling, [v for v, _ in followed], [subject for _, subject in followed]
        ),
    }
    summaries = {name: summarise(found) for name, found in verdicts.items()}
    for name, summary in summaries.items():
        print_table(console, name, [summary])
    plots = distinct_plots(assistant, sampling, prompts[: PLOT_REQUESTS // share])
    console.print(f"plots of ten seeds: {plots}")
    chats = long_chats(assistant, sampling, prompts) if share == 1 else []
    console.print(f"stories in a row, of {LONG_CHAT_STORIES}: {chats}")
    return {
        "sampling": to_builtins(sampling),
        "summaries": summaries,
        "plots": plots,
        "long_chats": chats,
        "answers": {name: [v.to_json() for v in found] for name, found in verdicts.items()},
    }


def main() -> None:
    """Measure, print and write."""
    arguments = parse_arguments()
    console = Console(width=140)
    assistant = Assistant(arguments.model)
    results: dict[str, Any] = {}
    if arguments.stories:
        mixture = Mixture(arguments.stories, arguments.seed)
        losses = measure_bits_per_byte(
            arguments.model, mixture, arguments.seed, arguments.baselines
        )
        rows = [{"source": source, **figures} for source, figures in losses.items()]
        print_table(console, "held-out bits per byte", rows)
        results["bits_per_byte"] = losses
    if arguments.grid:
        prompts = heldout_story_prompts()[:: arguments.share]
        questions = heldout_protocol_questions()[:: 4 * arguments.share]
        results["grid"] = try_grid(assistant, prompts, questions)
        print_table(console, "share of good answers", results["grid"])
    else:
        sampling = default_sampling(arguments.model)
        results |= judge_all(assistant, sampling, arguments.share, console)
    write_json(arguments.json, results)


if __name__ == "__main__":
    main()
