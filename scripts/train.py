"""Trains the model that streamtok ships with, from a file of stories to a folder of weights.

    python scripts/train.py --stories stories.jsonl.xz --out weights/fireside --minutes 60

It gathers the training text (`mixture/`), learns a tokenizer (`chat_tokenizer.py`), trains a Llama
decoder (`llama_torch.py`, `trainer.py`) and writes it in Hugging Face form (`export.py`). With
`--checkpoint-dir` a run that was stopped goes on where it was. It does not judge the result beyond
the held-out loss: `evaluate.py` does.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import signal
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any

import mixture
import torch
from chat_tokenizer import contents, encode_documents, train_tokenizer
from export import draw_losses, export_model, write_attributions, write_json
from held_out import bits_per_byte, documents_by_source, sample
from llama_torch import LlamaConfig
from mixture import Document
from progress import TrainingProgress, duration
from token_stream import TokenStream
from tokenizers import Tokenizer
from trainer import LONG_BLOCK, Settings, Trainer

MEASURED_STEPS = 5
EVALUATIONS = 8
DOCUMENTS_PER_EVALUATION = 8
CHECKPOINT_INTERVAL_S = 180.0


class Interruption:
    """Turns the first Ctrl-C or SIGTERM into a flag that the training loop looks at."""

    def __init__(self) -> None:
        self.requested = False
        signal.signal(signal.SIGINT, self._request)
        signal.signal(signal.SIGTERM, self._request)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True


class Run:
    """A trainer with its tokenizer, its held-out text, its history and its checkpoint file."""

    def __init__(
        self, trainer: Trainer, tokenizer: Tokenizer, documents: list[Document], digest: str
    ) -> None:
        self.trainer = trainer
        self.tokenizer = tokenizer
        self.digest = digest
        self.history: list[dict[str, Any]] = []
        self.training_s = 0.0
        by_source = documents_by_source(documents)
        self._held_out = {
            source: sample(held_out, DOCUMENTS_PER_EVALUATION, trainer.settings.seed)
            for source, held_out in by_source.items()
        }

    def evaluate(self) -> dict[str, float]:
        """Bits per byte of a fixed sample of each held-out source."""
        model = self.trainer.model
        length = model.config.max_position_embeddings
        return {
            source: round(bits_per_byte(model, self.tokenizer, documents, length), 4)
            for source, documents in self._held_out.items()
        }

    def save(self, path: Path) -> None:
        """Write a checkpoint; a kill in between leaves the one before."""
        part = path.with_suffix(".part")
        state = {
            "settings": asdict(self.trainer.settings),
            "digest": self.digest,
            "trainer": self.trainer.state_dict(),
            "history": self.history,
            "training_s": self.training_s,
        }
        torch.save(state, part)
        part.replace(path)

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Go on from a checkpoint; raise `ValueError` where the batches would be other ones."""
        if checkpoint["digest"] != self.digest:
            raise ValueError("the checkpoint comes from other training text or another seed")
        if checkpoint["settings"]["batch_tokens"] != self.trainer.settings.batch_tokens:
            raise ValueError("the checkpoint comes from a run with another --batch-tokens")
        self.trainer.load_state_dict(checkpoint["trainer"])
        self.history, self.training_s = checkpoint["history"], checkpoint["training_s"]


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stories", type=Path, required=True, help="xz-compressed JSON lines")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--seed", type=int, default=1)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="length of the run (default: 1000)")
    length.add_argument("--minutes", type=float, help="choose the steps by the measured speed")
    parser.add_argument("--batch-tokens", type=int, default=4096, help="a multiple of 1024")
    parser.add_argument("--checkpoint-dir", type=Path, help="save here, and go on from here")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    if arguments.batch_tokens % LONG_BLOCK:
        parser.error(f"--batch-tokens must be a multiple of {LONG_BLOCK}")
    return arguments


def load_checkpoint(folder: Path | None) -> dict[str, Any] | None:
    """The checkpoint in the folder, or None where there is none."""
    if folder is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "checkpoint.pt"
    checkpoint: dict[str, Any] | None = torch.load(path) if path.exists() else None
    return checkpoint


def prepare_run(
    arguments: argparse.Namespace, checkpoint: dict[str, Any] | None, device: torch.device
) -> Run:
    """Gather and tokenise the text and set up the trainer, at the checkpoint if there is one."""
    config = LlamaConfig()
    documents = mixture.build(arguments.stories, arguments.seed)
    training = [document for document in documents if not document.held_out]
    texts = (text for document in training for text in contents(document))
    tokenizer = train_tokenizer(texts, config.vocab_size)
    sequences = encode_documents(tokenizer, training)
    repeats = [document.repeat for document in training]
    stream = TokenStream(sequences, repeats, arguments.seed)
    digest = hashlib.sha256(b"".join(array.tobytes() for array in stream.documents)).hexdigest()
    settings = choose_settings(arguments, checkpoint)
    run = Run(Trainer(config, stream, settings, device), tokenizer, documents, digest)
    if checkpoint:
        run.load(checkpoint)
    print(f"{len(training)} documents, {stream.pass_length} tokens a pass", flush=True)
    return run


def choose_settings(arguments: argparse.Namespace, checkpoint: dict[str, Any] | None) -> Settings:
    """The checkpoint's settings or new ones; `--steps` wins over the checkpoint's."""
    steps = arguments.steps or (checkpoint["settings"]["steps"] if checkpoint else 1000)
    return Settings(arguments.seed, steps, arguments.batch_tokens)


def measure_step_s(trainer: Trainer) -> float:
    """Seconds a step takes on this machine; the trainer is left as it was."""
    state = copy.deepcopy(trainer.state_dict())
    trainer.advance()
    begin_s = time.monotonic()
    for _ in range(MEASURED_STEPS):
        trainer.advance()
    elapsed_s = time.monotonic() - begin_s
    trainer.load_state_dict(state)
    return elapsed_s / MEASURED_STEPS


def plan_length(trainer: Trainer, minutes: float | None) -> None:
    """Say how long the run will take; where `minutes` are given, choose the steps that fit."""
    step_s = measure_step_s(trainer)
    if minutes:
        steps = max(1, round(minutes * 60 / step_s))
        trainer.settings = replace(trainer.settings, steps=steps)
    settings = trainer.settings
    left_s = step_s * (settings.steps - trainer.step)
    print(
        f"steps {trainer.step} to {settings.steps} on {trainer.device}: "
        f"about {duration(left_s)} at {settings.batch_tokens / step_s:.0f} tokens/s",
        flush=True,
    )


def train(run: Run, checkpoint_path: Path | None, interruption: Interruption) -> None:
    """Advance to the last step or to an interruption, saving on the way."""
    trainer, settings = run.trainer, run.trainer.settings
    evaluation_interval = max(1, settings.steps // EVALUATIONS)
    saved_s = tick_s = time.monotonic()
    with TrainingProgress(trainer.step, settings.steps, settings.batch_tokens) as progress:
        while trainer.step < settings.steps and not interruption.requested:
            record: dict[str, Any] = {"loss": round(trainer.advance(), 4), "step": trainer.step}
            run.history.append(record)
            progress.advance(trainer.step, record["loss"])
            if trainer.step % evaluation_interval == 0 or trainer.step == settings.steps:
                record["held_out"] = run.evaluate()
                progress.tell(f"step {trainer.step}: held-out bits per byte {record['held_out']}")
            now_s = time.monotonic()
            run.training_s, tick_s = run.training_s + now_s - tick_s, now_s
            if checkpoint_path and now_s - saved_s > CHECKPOINT_INTERVAL_S:
                run.save(checkpoint_path)
                saved_s = now_s
    if checkpoint_path:
        run.save(checkpoint_path)


def training_figures(run: Run, threads: int) -> dict[str, Any]:
    """What the model card tells about the run."""
    settings = run.trainer.settings
    return {
        **asdict(settings),
        "tokens_seen": settings.steps * settings.batch_tokens,
        "parameters": sum(p.numel() for p in run.trainer.model.parameters()),
        "training_s": round(run.training_s),
        "device": str(run.trainer.device),
        "threads": threads,
        "torch": torch.__version__,
        "digest": run.digest,
        "held_out": [record for record in run.history if "held_out" in record],
    }


def write_results(run: Run, arguments: argparse.Namespace) -> None:
    """Write the model folder."""
    out: Path = arguments.out
    export_model(run.trainer.model, run.tokenizer, out)
    write_attributions(arguments.stories, out / "ATTRIBUTIONS.md")
    write_json(out / "training.json", training_figures(run, arguments.threads))
    draw_losses(run.history, out / "loss.png")


def main() -> int:
    """Train, or go on training, and write the model; 130 where the run was interrupted."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    checkpoint = load_checkpoint(arguments.checkpoint_dir)
    run = prepare_run(arguments, checkpoint, device)
    trainer = run.trainer
    plan_length(trainer, None if checkpoint else arguments.minutes)
    interruption = Interruption()
    checkpoint_dir: Path | None = arguments.checkpoint_dir
    train(run, checkpoint_dir / "checkpoint.pt" if checkpoint_dir else None, interruption)
    if interruption.requested:
        kept = f"; the same command goes on from {checkpoint_dir}" if checkpoint_dir else ""
        print(f"interrupted at step {trainer.step}{kept}")
        return 130
    write_results(run, arguments)
    print(f"wrote {arguments.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
