"""Others that compute the same weights, if they are installed, with equally many threads."""

import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from benchmarks import llama
from benchmarks.engine import PROMPT
from benchmarks.models import prompt

Peer = Callable[[int, int], float]  # from streams and tokens of each to tokens a second


def load(folder: Path, threads: int) -> tuple[dict[str, Peer], list[str]]:
    """Return what is installed, and a line about each that is not."""
    known = {
        "Hugging Face transformers": (_transformers, ("torch", "transformers")),
        "llama.cpp, float32": (llama.load, ("llama_cpp", "gguf")),
    }
    found: dict[str, Peer] = {}
    missing = []
    for name, (make, modules) in known.items():
        if all(map(find_spec, modules)):
            found[name] = make(folder, threads)
        else:
            missing.append(f"{name}: needs {' and '.join(modules)}, not compared")
    return found, missing


def _transformers(folder: Path, threads: int) -> Peer:
    import torch
    from transformers import LlamaForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch|transformers")
    torch.set_num_threads(threads)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.inference_mode()
    def rate(streams: int, tokens: int) -> float:
        """Decode greedily with cached keys and values, by hand: nothing but the model counts."""
        ids = torch.tensor([prompt(PROMPT, seed) for seed in range(streams)])
        seen = model(ids, use_cache=True)
        begun_s = time.perf_counter()
        for _ in range(tokens):
            last = seen.logits[:, -1].argmax(-1, keepdim=True)
            seen = model(last, past_key_values=seen.past_key_values, use_cache=True)
        return streams * tokens / (time.perf_counter() - begun_s)

    return rate
