"""What evaluation harnesses ask for, against log-likelihoods computed directly with the model."""

import http.client
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamtok.config import default_model
from streamtok.model import reference
from streamtok.model.load import read_config, read_weights
from streamtok.testing import RunningServer
from streamtok.text.tokenizer import Tokenizer

SCRIPT = Path(__file__).parent.parent / "scripts" / "clients" / "lm_eval_client.py"
FOLDER = Path(default_model())
PYTHON = os.environ.get("CLIENTS_PYTHON", sys.executable)  # where the packages are
PAIRS = [
    ("Once upon a time there was a little", " girl"),
    ("Once upon a time there was a little", " box of rain."),
    ("Tell me:", " “Où est la lanterne?” €5 🦊"),
    ("The fox", " found a lantern in the snow. It was still warm, and it was his." * 4),
]


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    """The shipped model's tensors, in double precision."""
    _, tensors = read_weights(FOLDER)
    return {name: tensor.astype(float) for name, tensor in tensors.items()}


def direct(weights: dict[str, np.ndarray], ids: list[int], start: int) -> tuple[float, bool]:
    """Return the log-likelihood of `ids` from `start` on, and whether each was the likeliest."""
    logits = reference.logits(read_config(FOLDER), weights, ids)[start - 1 : -1]  # [T, V]
    logprobs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))  # [T, V]
    greedy = (logprobs.argmax(axis=-1) == ids[start:]).all()
    return float(sum(row[i] for row, i in zip(logprobs, ids[start:], strict=True))), bool(greedy)


def complete(server: RunningServer, body: dict[str, Any]) -> Any:
    connection = http.client.HTTPConnection(*server.address)
    try:
        connection.request("POST", "/v1/completions", json.dumps(body))
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_log_likelihoods_are_those_of_the_model(
    server: RunningServer, weights: dict[str, np.ndarray], max_tokens: int
) -> None:
    """A batch of prompts as ids, as lm-evaluation-harness sends them, and read as it does."""
    tokenizer = Tokenizer(FOLDER)
    starts = [len(tokenizer.encode(context, special=True)) for context, _ in PAIRS]
    prompts = [list(tokenizer.encode(c + rest, special=True)) for c, rest in PAIRS]
    body = {"model": "fireside", "temperature": 0, "logprobs": 1, "echo": True, "seed": 1234}
    answer = complete(server, body | {"prompt": prompts, "max_tokens": max_tokens})
    assert [choice["index"] for choice in answer["choices"]] == list(range(len(PAIRS)))
    for choice, ids, start in zip(answer["choices"], prompts, starts, strict=True):
        logprobs = choice["logprobs"]
        assert len(logprobs["token_logprobs"]) == len(ids) + max_tokens
        found = logprobs["token_logprobs"][start : len(ids)]
        tops = [max(top.values()) for top in logprobs["top_logprobs"][start : len(ids)]]
        expected, greedy = direct(weights, ids, start)
        assert sum(found) == pytest.approx(expected, rel=2e-6, abs=1e-4)  # of float32 logits
        assert (found == tops) == greedy


def test_a_text_is_scored_as_its_ids_are(server: RunningServer) -> None:
    """With the beginning of texts written in it, or added where it is not."""
    ids = list(Tokenizer(FOLDER).encode("Once upon a time", special=True))
    texts = ["Once upon a time", "<|endoftext|>Once upon a time"]
    body = {"echo": True, "logprobs": 1, "max_tokens": 0}
    (expected,) = complete(server, body | {"prompt": ids})["choices"]
    found = complete(server, body | {"prompt": texts})["choices"]
    for choice, text in zip(found, texts, strict=True):
        for key in ("tokens", "token_logprobs", "top_logprobs"):
            assert choice["logprobs"][key] == expected["logprobs"][key]
        assert choice["text"] == text


@pytest.mark.clients
def test_lm_evaluation_harness(server: RunningServer) -> None:
    if subprocess.run(
        [PYTHON, "-c", "import lm_eval, transformers"], capture_output=True
    ).returncode:
        pytest.skip("lm_eval or transformers is not installed")
    root = str(SCRIPT.parent.parent.parent)
    ran = subprocess.run(
        [PYTHON, str(SCRIPT), server.url, str(FOLDER)],
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
