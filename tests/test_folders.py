"""Folders that other tools wrote are computed as transformers computes them, or refused by name.

`variants.py` makes them; `tests/golden/variants.json` has transformers' answers, which
`scripts/golden/variants.py` wrote.
"""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from variants import VARIANTS, VOCAB, build

from streamtok.errors import ModelError
from streamtok.model.attention import KVCache
from streamtok.model.batch import Segment
from streamtok.model.load import load
from streamtok.startup import load_files
from streamtok.text.tokenizer import Tokenizer

GOLDEN = json.loads((Path(__file__).parent / "golden" / "variants.json").read_text())
PROMPT = (3, 11, 27, 5, 18, 30, 7, 7, 22, 9, 14, 29)
SHOWN = slice(0, 33, 4)  # the tokens whose scores are kept
COMPUTED = [name for name, variant in VARIANTS.items() if not variant.refused]
REFUSED = [name for name, variant in VARIANTS.items() if variant.refused]
# Where generation_config.json names no end transformers has none, whatever config.json says
ENDS = {
    "llama: ends in config.json, none in generation_config.json": [5, 9],
    "llama: null ends in generation_config.json": [5, 9],
}
SAID: dict[str, str] = {  # in the log, by what it is about; {} is the folder
    "tied, another head": "tie_word_embeddings is true, yet",
    "a value head": "{}: no part of the model: v_head.summary.bias, v_head.summary.weight",
    "a score": "{}: no part of the model: score.weight",
    "layers beyond the last": "model.layers.2.mlp.gate_proj.weight and 6 more",
    "a pad token beyond": "{}/tokenizer.json: the model has no embedding for '<33>' (33)",
    "a stale index": "{}: model.safetensors is there, so model.safetensors.index.json is not used",
    "float64": "{}: float64 weights are rounded to float32",
    "phi3: longrope": "{}: longrope: texts of up to 32 tokens are served",
}


def compute(folder: Path, count: int) -> tuple[np.ndarray, list[int]]:
    """Return the scores after the prompt [V], and the likeliest tokens that follow."""
    decoder = load(folder, threads=1)
    cache, ids, start = KVCache(decoder.config, 1), list(PROMPT), 0
    scores = []
    for _ in range(count):
        positions = np.arange(start, len(ids))[None]  # [1, R]
        segment = Segment(slice(0, 1), np.array([ids[start:]]), positions, sampled=1)
        scores.append(decoder.forward(cache, [segment])[0])  # [V]
        start = len(ids)
        ids.append(int(scores[-1].argmax()))
    return scores[0], ids[len(PROMPT) :]


@pytest.mark.parametrize("name", COMPUTED)
def test_a_folder_is_computed_as_transformers_does(name: str, tmp_path: Path) -> None:
    expected: dict[str, Any] = GOLDEN[name]
    build(name, tmp_path, expected["seed"])
    logits, greedy = compute(tmp_path, len(expected["greedy"]))
    assert np.abs(logits[SHOWN] - expected["logits"]).max() < 1e-4
    assert greedy == expected["greedy"]
    assert Tokenizer(tmp_path).stop_ids == set(ENDS.get(name, expected["ends"]))


@pytest.mark.parametrize("name", REFUSED)
def test_a_folder_that_cannot_be_computed_is_refused_by_name(name: str, tmp_path: Path) -> None:
    variant = build(name, tmp_path)
    with pytest.raises(ModelError) as caught:
        load(tmp_path, threads=1)
    assert variant.refused in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("part", SAID)
def test_what_is_passed_over_is_said(
    part: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = next(name for name in COMPUTED if part in name)
    build(name, tmp_path)
    load_files(tmp_path)
    lines = [line for line in caplog.messages if not line.startswith("no structured output")]
    assert len(lines) == 1
    assert SAID[part].format(tmp_path) in lines[0]


@pytest.mark.parametrize("name", ["llama", "llama: tied, the same head", "llama: tables of angles"])
def test_nothing_is_said_where_nothing_is_passed_over(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build(name, tmp_path)
    with caplog.at_level(logging.WARNING, "streamtok.model"):
        load(tmp_path, threads=1)
    assert not [
        record for record in caplog.records if record.name == "streamtok.model.families.folder"
    ]


def test_a_token_without_an_embedding_is_text(tmp_path: Path) -> None:
    build("llama: a pad token beyond the embedding", tmp_path)
    assert Tokenizer(tmp_path).encode("w3 <33>", special=False) == (3, VOCAB)
    tokenizer = Tokenizer(tmp_path, VOCAB)
    assert tokenizer.encode("w3 <33>", special=False) == (3, 0)
    assert tokenizer.vocab == VOCAB


def test_other_tokens_need_an_embedding(tmp_path: Path) -> None:
    build("llama", tmp_path)
    with pytest.raises(ModelError, match="33 tokens; the model's vocab_size is 32"):
        Tokenizer(tmp_path, VOCAB - 1)


@pytest.mark.parametrize("other", ["pytorch_model.bin", "model.gguf", "consolidated.safetensors"])
def test_weights_of_another_kind_are_named(tmp_path: Path, other: str) -> None:
    build("llama", tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / other)
    with pytest.raises(ModelError, match=f"no such file; .*; {other}, which stands there, is not"):
        load(tmp_path)


def test_weights_lie_in_the_folder(tmp_path: Path) -> None:
    build("llama: weights under another name", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["transformers_weights"] = "../other.safetensors"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="must be in the folder itself, not at"):
        load(tmp_path)


def test_a_tensor_is_not_there_twice(tmp_path: Path) -> None:
    build("llama: both spellings", tmp_path)
    with pytest.raises(ModelError, match=r"tensor model\.norm\.weight is there twice"):
        load(tmp_path)


# generation_config.json


def defaults(folder: Path, **keys: Any) -> dict[str, float]:
    build("llama", folder)
    (folder / "generation_config.json").write_text(json.dumps(keys))
    return dict(load_files(folder, weights=False).defaults)


NEUTRAL = {"temperature": 1, "top_p": 1, "top_k": 0, "min_p": 0, "repetition_penalty": 1}


def test_nulls_are_not_set(tmp_path: Path) -> None:
    assert defaults(tmp_path, **dict.fromkeys(NEUTRAL), eos_token_id=None) == NEUTRAL


def test_what_is_proposed_is_taken(tmp_path: Path) -> None:
    given = {"temperature": 0, "top_p": 0.9, "top_k": -1, "max_new_tokens": "many"}
    assert defaults(tmp_path, **given) == NEUTRAL | {"temperature": 0, "top_p": 0.9}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"temperature": "0.7"}, "temperature: expected a number from 0, found '0.7'"),
        ({"temperature": True}, "temperature: expected a number from 0, found True"),
        ({"temperature": float("inf")}, "temperature: expected a number from 0, found inf"),
        ({"temperature": -1}, "temperature: expected a number from 0, found -1"),
        ({"top_p": 1.5}, "top_p: expected a number from 0 to 1, found 1.5"),
        ({"top_p": [0.9]}, r"top_p: expected a number from 0 to 1, found \[0.9\]"),
        ({"top_k": 50.5}, "top_k: expected an integer from -1, found 50.5"),
        ({"top_k": 50.0}, "top_k: expected an integer from -1, found 50.0"),
        ({"top_k": -2}, "top_k: expected an integer from -1, found -2"),
        ({"min_p": {}}, "min_p: expected a number from 0 to 1, found {}"),
        ({"repetition_penalty": 0}, "repetition_penalty: expected a number from 0.01, found 0"),
        ({"eos_token_id": True}, "eos_token_id: expected an integer or a list"),
        ({"eos_token_id": [2, None]}, "eos_token_id: expected an integer or a list"),
    ],
)
def test_a_number_of_the_wrong_kind_is_refused_at_the_start(
    tmp_path: Path, keys: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelError, match=rf"generation_config\.json: {said}"):
        defaults(tmp_path, **keys)


def test_ends_of_the_model_are_checked_too(tmp_path: Path) -> None:
    build("llama", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"eos_token_id": "</s>"}))
    with pytest.raises(ModelError, match=r"[^_]config\.json: eos_token_id: expected an integer"):
        Tokenizer(tmp_path)


def test_older_folders_name_the_end_apart(tmp_path: Path) -> None:
    build("llama", tmp_path)
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": {"content": "w1"}}')
    assert Tokenizer(tmp_path).stop_ids == {1, 2}
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "w5"}')
    assert Tokenizer(tmp_path).stop_ids == {5, 2}


def test_an_end_without_an_embedding_is_none(tmp_path: Path) -> None:
    build("llama", tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 33, -1]}')
    assert Tokenizer(tmp_path, VOCAB).stop_ids == {2}
