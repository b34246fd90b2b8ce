"""Others that compute the same weights, if they are installed, with equally many threads."""

import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from benchmarks.engine import PROMPT
from benchmarks.llama import Llama
from benchmarks.models import prompt


class Peer(Protocol):
    """Another engine with a model."""

    def decode(self, streams: int, tokens: int) -> float:
        """Return the tokens a second of `streams` greedy texts, of so many `tokens` each."""

    def prefill(self, length: int) -> float:
        """Return the tokens a second of a prompt, until the first token after it is known."""


def load(folder: Path, threads: int) -> tuple[dict[str, Peer], list[str]]:
    """Return what is installed, and a line about each that is not."""
    known = {
        "Hugging Face transformers": (Transformers, ("torch", "transformers")),
        "llama.cpp, float32": (Llama, ("llama_cpp", "gguf")),
    }
    found: dict[str, Peer] = {}
    missing = []
    for name, (make, modules) in known.items():
        if all(map(find_spec, modules)):
            found[name] = make(folder, threads)
        else:
            missing.append(f"{name}: needs {' and '.join(modules)}, not compared")
    return found, missing


class Transformers:
    """Hugging Face transformers on PyTorch: nothing but the model counts, the loops are ours."""

    def __init__(self, folder: Path, threads: int) -> None:
        import torch
        from transformers import LlamaForCausalLM
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch|transformers")
        torch.set_num_threads(threads)
        self._torch = torch
        self._model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def decode(self, streams: int, tokens: int) -> float:
        """Return the tokens a second of greedy texts, with cached keys and values."""
        model = self._model
        with self._torch.inference_mode():
            ids = self._torch.tensor([prompt(PROMPT, seed) for seed in range(streams)])
            seen = model(ids, use_cache=True)
            begun_s = time.perf_counter()
            for _ in range(tokens):
                last = seen.logits[:, -1].argmax(-1, keepdim=True)
                seen = model(last, past_key_values=seen.past_key_values, use_cache=True)
            return streams * tokens / (time.perf_counter() - begun_s)

    def prefill(self, length: int) -> float:
        """Return the tokens a second of a prompt, until the first token after it is known."""
        with self._torch.inference_mode():
            ids = self._torch.tensor([prompt(length, 0)])
            begun_s = time.perf_counter()
            seen = self._model(ids, use_cache=True, logits_to_keep=1)
            seen.logits[:, -1].argmax(-1)
            return length / (time.perf_counter() - begun_s)
