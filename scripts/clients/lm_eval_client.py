"""lm-evaluation-harness against a running server: multiple choice and perplexity.

usage: lm_eval_client.py URL MODEL_FOLDER

Needs `lm_eval[api]` and `transformers`, and no network: tasks and texts are made here, and the
tokenizer is the model's own. Every log-likelihood that the harness reports is compared with one
computed directly by the readable numpy model, in double precision; exits with 1 where they differ
by more than 1e-4.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TQDM_DISABLE": "1"}

import numpy as np
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from streamtok.model import reference
from streamtok.model.load import read_weights

TOLERANCE = 1e-4
MAX_LENGTH = 96  # tokens: short, so that the longest text is scored in windows
CHOICES = [
    {
        "question": "Once upon a time there was a little",
        "options": [" fox.", " box of rain.", " girl"],
        "answer": 2,
    },
    {
        "question": "The fox said: “Où est la lanterne?” The hen said:",
        "options": [" “Ici.”", " yes", " €5 🦊"],
        "answer": 0,
    },
    {"question": "HTTP is a ", "options": ["protocol", "bird"], "answer": 0},
]
TEXTS = [
    {"text": "A fox found a lantern in the snow. It was still warm."},
    {"text": "Once upon a time there was a hen. " * 20},
]
TASKS = {
    "choices": """
task: choices
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/choices.json}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{options}}}}"
doc_to_target: answer
target_delimiter: ""
metric_list: [{{metric: acc}}]
""",
    "texts": """
task: texts
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/texts.json}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: word_perplexity}}]
""",
}


class Direct:
    """Log-likelihoods by the readable model, of the ids that the harness's tokenizer gives."""

    def __init__(self, folder: Path, tokenizer: Any, begin: bool) -> None:
        self._config, tensors = read_weights(folder)
        self._weights = {name: tensor.astype(float) for name, tensor in tensors.items()}
        self._tokenizer = tokenizer
        self._begin = begin

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`, with the beginning of texts if the harness adds it."""
        return list(self._tokenizer(text, add_special_tokens=self._begin).input_ids)

    def continuation(self, context: str, continuation: str) -> float:
        """Return the log-likelihood of `continuation`; its spaces are those before it too."""
        spaces = len(context) - len(context.rstrip())
        whole = self.encode(context + continuation)
        start = len(self.encode(context[: len(context) - spaces]))
        return self._sum(whole, start)

    def text(self, text: str) -> float:
        """Return the log-likelihood of a whole text, in windows as the harness makes them."""
        windows = get_rolling_token_windows(
            self.encode(text), self._tokenizer.bos_token_id, MAX_LENGTH - 2, 1
        )
        pairs = map(make_disjoint_window, windows)
        return sum(self._sum([*context, *rest], len(context)) for context, rest in pairs)

    def _sum(self, ids: list[int], start: int) -> float:
        logits = reference.logits(self._config, self._weights, ids)  # [T, V]
        highest = logits.max(axis=-1, keepdims=True)
        sums = np.log(np.exp(logits - highest).sum(axis=-1)) + highest[:, 0]  # [T]
        return float(sum(logits[t - 1, ids[t]] - sums[t - 1] for t in range(start, len(ids))))


def evaluate(
    url: str, folder: Path, tasks: TaskManager, options: dict[str, Any], batch_size: int
) -> Any:
    """Return the samples of both tasks."""
    results = simple_evaluate(
        model="local-completions",
        model_args={
            "model": folder.resolve().name,
            "tokenizer": str(folder),
            "tokenizer_backend": "huggingface",
            "base_url": f"{url}/v1/completions",
            "max_length": MAX_LENGTH,
            **options,
        },
        tasks=list(TASKS),
        task_manager=tasks,
        batch_size=batch_size,
        log_samples=True,
        bootstrap_iters=0,
    )
    assert results is not None
    return results["samples"]


def differences(samples: Any, direct: Direct, whole: bool) -> Iterator[float]:
    """Yield how far each log-likelihood is from the direct one; `whole`: texts in windows too."""
    for sample in samples["choices"]:
        for (context, continuation), [(found, _)] in zip(
            sample["arguments"], sample["resps"], strict=True
        ):
            yield abs(float(found) - direct.continuation(context, continuation))
    for sample in samples["texts"]:
        text = sample["doc"]["text"]
        if whole or len(direct.encode(text)) < MAX_LENGTH - 2:
            yield abs(float(sample["resps"][0][0]) - direct.text(text))


def main() -> int:
    """Compare, with requests as ids and as texts, one at a time and several."""
    from transformers import AutoTokenizer

    url, folder = sys.argv[1].rstrip("/"), Path(sys.argv[2])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    worst = 0.0
    with tempfile.TemporaryDirectory() as place:
        for name, documents in (("choices", CHOICES), ("texts", TEXTS)):
            lines = "\n".join(json.dumps(document) for document in documents)
            (Path(place) / f"{name}.json").write_text(lines, "utf-8")
            (Path(place) / f"{name}.yaml").write_text(TASKS[name].format(folder=place))
        tasks = TaskManager(include_path=place, include_defaults=False)
        for batch_size, options in (
            (1, {"tokenized_requests": True}),
            (4, {"tokenized_requests": True}),
            (1, {"tokenized_requests": True, "add_bos_token": True, "num_concurrent": 3}),
            (1, {"tokenized_requests": False, "add_bos_token": True}),
            (4, {"tokenized_requests": False, "add_bos_token": True}),
        ):
            direct = Direct(folder, tokenizer, bool(options.get("add_bos_token")))
            samples = evaluate(url, folder, tasks, options, batch_size)
            # A window of a longer text, sent as text, would be taken for the beginning of one.
            found = list(differences(samples, direct, bool(options["tokenized_requests"])))
            count, largest = len(found), max(found)
            print(
                f"{options} x {batch_size}: {count} log-likelihoods, off by {largest:.1e} at most"
            )
            worst = max(worst, largest)
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
