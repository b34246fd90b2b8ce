"""Others that compute the same weights, if they are installed: one thread, one text."""

import importlib.util
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from benchmarks.engine import PROMPT
from benchmarks.models import prompt

TRANSFORMERS = "Hugging Face transformers"


def load(folder: Path) -> tuple[dict[str, Callable[[int], float]], list[str]]:
    """Return what is installed, as functions from tokens to tokens a second, and what is not."""
    if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"):
        return {TRANSFORMERS: _transformers(folder)}, []
    return {}, [f"{TRANSFORMERS} with torch: not installed, not compared"]


def _transformers(folder: Path) -> Callable[[int], float]:
    import torch
    from transformers import LlamaForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch|transformers")
    torch.set_num_threads(1)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor([prompt(PROMPT, 0)])

    @torch.inference_mode()
    def rate(tokens: int) -> float:
        """Decode greedily with cached keys and values, by hand: nothing but the model counts."""
        seen = model(ids, use_cache=True)
        begun_s = time.perf_counter()
        for _ in range(tokens):
            last = seen.logits[:, -1].argmax(-1, keepdim=True)
            seen = model(last, past_key_values=seen.past_key_values, use_cache=True)
        return tokens / (time.perf_counter() - begun_s)

    return rate
