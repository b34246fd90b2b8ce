"""Makes `tests/golden/variants.json`: what transformers computes of `tests/variants.py`.

For each folder some scores after the last token of a prompt, and the most likely tokens that
follow, in float32 and with eager attention; and the ids that end a text. Needs torch and
transformers, which the tests themselves do without:

    python scripts/golden/variants.py tests/golden/variants.json [PART OF A NAME]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from variants import VARIANTS, build

PROMPT = (3, 11, 27, 5, 18, 30, 7, 7, 22, 9, 14, 29)
FOLLOWING = 12
MARGIN = 5e-3  # between the two most likely tokens, at every step: no rounding may decide
SHOWN = range(0, 33, 4)  # the tokens whose scores are kept


def compute(folder: Path) -> tuple[dict[str, Any], float]:
    """Return what is stored of one folder, and the least margin of a token."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    ids, margin = torch.tensor([PROMPT]), float("inf")
    first = None
    for _ in range(FOLLOWING):
        logits = model(ids, use_cache=False).logits[0, -1]  # [V]
        first = logits if first is None else first
        best, second = logits.topk(2).values.tolist()
        margin = min(margin, best - second)
        ids = torch.cat([ids, logits.argmax().reshape(1, 1)], dim=1)  # [1, T + 1]
    ends = model.generation_config.eos_token_id
    ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
    kept = {
        "logits": [round(float(first[token]), 5) for token in SHOWN],
        "greedy": ids[0, len(PROMPT) :].tolist(),
        "ends": sorted(ends),
    }
    return kept, margin


def golden(name: str) -> dict[str, Any]:
    for seed in range(40):
        with TemporaryDirectory() as folder:
            build(name, Path(folder), seed)
            kept, margin = compute(Path(folder))
        if margin > MARGIN:
            return {"seed": seed, **kept}
    raise SystemExit(f"{name}: no seed gives tokens that are beyond doubt")


def main() -> None:
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    path, part = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""
    kept: dict[str, Any] = json.loads(path.read_text()) if part and path.exists() else {}
    with torch.no_grad():
        for name, variant in VARIANTS.items():
            if part not in name or (variant.refused and not part):
                continue
            try:
                kept[name] = golden(name)
            except Exception as error:  # whatever transformers raises is its answer
                kept[name] = {"error": f"{type(error).__name__}: {str(error)[:160]}"}
                print(name, "->", kept[name]["error"])
    lines = [f"{json.dumps(name)}: {json.dumps(kept[name])}" for name in VARIANTS if name in kept]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
