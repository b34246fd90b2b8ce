"""Trains the model that streamtok ships with, from a file of stories to a folder of weights.

    python scripts/train/train.py --stories stories.jsonl.xz --run run --start-from weights/fireside

It gathers the training text part by part (`mixture/`), trains a Llama decoder (`llama_torch.py`,
`trainer.py`) and writes it in Hugging Face form to `run/model` (`export.py`), anew at every
evaluation, so that there is a model to try at any time. A run that was stopped goes on by the same
command. It does not judge the result beyond the held-out loss: `evaluate.py` does.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from chat_tokenizer import contents, encode_documents, tokens_of, train_tokenizer
from export import draw_losses, export_model, write_attributions, write_json
from held_out import bits_per_byte, documents_by_source, sample
from llama_torch import LlamaConfig
from mixture import Document, Mixture
from progress import TrainingProgress
from safetensors.torch import load_file
from token_stream import TokenStream
from tokenizers import Tokenizer
from trainer import Settings, Trainer

DOCUMENTS_PER_EVALUATION = 8
TOKENIZER_PARTS = 4  # of the mixture, to learn a new tokenizer from
PASS_TOKENS = {"cpu": 2048, "cuda": 32768}  # that are in memory at once
PAUSE_S = 2.0


class Interruption:
    """Turns the first Ctrl-C or SIGTERM into a flag that the training loop looks at."""

    def __init__(self) -> None:
        self.requested = False
        signal.signal(signal.SIGINT, self._request)
        signal.signal(signal.SIGTERM, self._request)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True


class Run:
    """A trainer with its tokenizer, its held-out text, its history and its folder."""

    def __init__(
        self, trainer: Trainer, tokenizer: Tokenizer, documents: list[Document], folder: Path
    ) -> None:
        self.trainer = trainer
        self.tokenizer = tokenizer
        self.folder = folder
        self.history: list[dict[str, Any]] = []
        self.training_s = 0.0
        by_source = documents_by_source(documents)
        self._held_out = {
            source: sample(held_out, DOCUMENTS_PER_EVALUATION, trainer.settings.seed)
            for source, held_out in by_source.items()
        }

    def evaluate(self) -> dict[str, float]:
        """Bits per byte that the averaged weights need for a fixed sample of each source."""
        model = self.trainer.averaged
        length = model.config.max_position_embeddings
        return {
            source: round(bits_per_byte(model, self.tokenizer, documents, length), 4)
            for source, documents in self._held_out.items()
        }

    def save(self) -> None:
        """Write a checkpoint; a kill in between leaves the one before."""
        path = checkpoint_path(self.folder)
        part = path.with_suffix(".part")
        state = {
            "settings": asdict(self.trainer.settings),
            "trainer": self.trainer.state_dict(),
            "tokenizer": self.tokenizer.to_str(),
            "history": self.history,
            "training_s": self.training_s,
        }
        torch.save(state, part)
        part.replace(path)

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.trainer.load_state_dict(checkpoint["trainer"])
        self.history, self.training_s = checkpoint["history"], checkpoint["training_s"]

    def go_on_from(self, folder: Path) -> None:
        """Take the weights of a model, and count on from where its run stopped.

        Its optimisers begin anew, and so does the part of the text that it was reading.
        """
        weights = load_file(folder / "model.safetensors")
        self.trainer.start_from({name: weight.float() for name, weight in weights.items()})
        path = folder / "training.json"
        if not path.exists():
            return
        figures = json.loads(path.read_text(encoding="utf-8"))
        stream = figures["stream"]
        self.trainer.step, self.trainer.tokens_seen = figures["step"], figures["tokens_seen"]
        self.trainer.stream.load_state_dict(stream | {"part": stream["part"] + 1, "batch": 0})
        self.history, self.training_s = figures["held_out"], figures["training_s"]


def checkpoint_path(folder: Path) -> Path:
    """Where a run's checkpoint is."""
    return folder / "checkpoint.pt"


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stories", type=Path, required=True, help="xz-compressed JSON lines")
    parser.add_argument("--run", type=Path, required=True, help="folder of the run: goes on here")
    parser.add_argument("--start-from", type=Path, help="model folder whose run goes on")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=25_000, help="length of the run")
    parser.add_argument("--cool-down", type=int, default=2_000, help="last steps: the rates fall")
    parser.add_argument("--peak", type=float, default=0.5, help="scales the learning rates")
    parser.add_argument("--batch-tokens", type=int, default=4096, help="of a step, at least")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--checkpoint-minutes", type=float, default=5.0)
    parser.add_argument("--evaluation-minutes", type=float, default=30.0)
    parser.add_argument("--pause-file", type=Path, help="training sleeps while this file exists")
    return parser.parse_args()


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The checkpoint in the run's folder, or None where there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    path = checkpoint_path(folder)
    checkpoint: dict[str, Any] | None = torch.load(path) if path.exists() else None
    return checkpoint


def choose_tokenizer(
    arguments: argparse.Namespace, checkpoint: dict[str, Any] | None, mixture: Mixture
) -> Tokenizer:
    """The checkpoint's tokenizer, that of `--start-from`, or a new one."""
    if checkpoint:
        return Tokenizer.from_str(checkpoint["tokenizer"])
    if arguments.start_from:
        return Tokenizer.from_file(str(arguments.start_from / "tokenizer.json"))
    parts = (mixture.part(number) for number in range(TOKENIZER_PARTS))
    texts = (text for part in parts for document in part for text in contents(document))
    return train_tokenizer(texts, LlamaConfig().vocab_size)


def choose_settings(arguments: argparse.Namespace, checkpoint: dict[str, Any] | None) -> Settings:
    """The settings of a run; its length and its rates may change when it goes on."""
    first_phase = 0 if arguments.start_from else 420
    if checkpoint:
        saved = checkpoint["settings"]
        first_phase = saved["first_phase"]
        if saved["batch_tokens"] != arguments.batch_tokens:
            raise SystemExit("the checkpoint comes from a run with another --batch-tokens")
    return Settings(
        arguments.seed,
        arguments.steps,
        arguments.batch_tokens,
        first_phase,
        arguments.peak,
        arguments.cool_down,
    )


def prepare_run(arguments: argparse.Namespace, device: torch.device) -> Run:
    """Gather the text and set up the trainer, at the checkpoint if there is one."""
    checkpoint = load_checkpoint(arguments.run)
    mixture = Mixture(arguments.stories, arguments.seed)
    tokenizer = choose_tokenizer(arguments, checkpoint, mixture)
    mixture.coin_from(tokens_of(tokenizer))
    settings = choose_settings(arguments, checkpoint)
    stream = TokenStream(
        lambda number: encode_documents(tokenizer, mixture.part(number)),
        settings.batch_tokens,
        PASS_TOKENS[device.type],
        settings.seed,
    )
    trainer = Trainer(LlamaConfig(), stream, settings, device)
    run = Run(trainer, tokenizer, mixture.held_out, arguments.run)
    if checkpoint:
        run.load(checkpoint)
    elif arguments.start_from:
        run.go_on_from(arguments.start_from)
    return run


def wait_while_paused(pause_file: Path | None, interruption: Interruption) -> float:
    """Sleep while the file exists, so that something else can be measured; return the seconds."""
    begin_s = time.monotonic()
    while pause_file and pause_file.exists() and not interruption.requested:
        time.sleep(PAUSE_S)
    return time.monotonic() - begin_s


def train(run: Run, arguments: argparse.Namespace, interruption: Interruption) -> None:
    """Advance to the last step or to an interruption, saving on the way."""
    trainer, settings = run.trainer, run.trainer.settings
    saved_s = evaluated_s = time.monotonic()
    with TrainingProgress(trainer.step, settings.steps, settings.batch_tokens) as progress:
        while trainer.step < settings.steps and not interruption.requested:
            wait_while_paused(arguments.pause_file, interruption)
            begin_s = time.monotonic()
            record: dict[str, Any] = {"loss": round(trainer.advance(), 4), "step": trainer.step}
            run.history.append(record)
            run.training_s += time.monotonic() - begin_s
            progress.advance(trainer.step, record["loss"])
            now_s = time.monotonic()
            is_last = trainer.step == settings.steps
            if is_last or now_s - evaluated_s > 60 * arguments.evaluation_minutes:
                record["held_out"] = run.evaluate()
                progress.tell(f"step {trainer.step}: held-out bits per byte {record['held_out']}")
                write_results(run, arguments)
                evaluated_s = now_s
            if now_s - saved_s > 60 * arguments.checkpoint_minutes:
                run.save()
                saved_s = now_s
    run.save()


def training_figures(run: Run, threads: int) -> dict[str, Any]:
    """What the model card says about the run."""
    settings = run.trainer.settings
    return {
        **asdict(settings),
        "step": run.trainer.step,
        "tokens_seen": run.trainer.tokens_seen,
        "parameters": sum(p.numel() for p in run.trainer.model.parameters()),
        "training_s": round(run.training_s),
        "device": str(run.trainer.device),
        "threads": threads,
        "torch": torch.__version__,
        "stream": run.trainer.stream.state_dict(),
        "held_out": [record for record in run.history if "held_out" in record],
    }


def write_results(run: Run, arguments: argparse.Namespace) -> None:
    """Write the model folder: the averaged weights, which keep to a subject better than the last.

    Also after a cool-down (97 % of stories against 91 with the same sampling).
    """
    out: Path = arguments.run / "model"
    trainer = run.trainer
    export_model(trainer.averaged, run.tokenizer, out)
    write_attributions(arguments.stories, out / "ATTRIBUTIONS.md")
    write_json(out / "training.json", training_figures(run, arguments.threads))
    draw_losses(run.history, out / "loss.png")


def main() -> int:
    """Train, or go on training, and write the model; 130 where the run was interrupted."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run = prepare_run(arguments, device)
    interruption = Interruption()
    train(run, arguments, interruption)
    write_results(run, arguments)
    if interruption.requested:
        print(f"interrupted at step {run.trainer.step}; the same command goes on")
        return 130
    print(f"wrote {arguments.run / 'model'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
