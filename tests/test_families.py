"""Every family computes what Hugging Face transformers computes, down to its last token.

`tests/golden` holds tiny random models and transformers' answers; `scripts/golden/logits.py` made
them.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from streamtok.errors import ModelError
from streamtok.model import reference
from streamtok.model.attention import KVCache
from streamtok.model.base import Decoder
from streamtok.model.batch import Segment
from streamtok.model.families.folder import FAMILIES
from streamtok.model.families.scaling import Linear, Llama3, Yarn
from streamtok.model.gpt import reference as gpt_reference
from streamtok.model.gpt.families import GptConfig
from streamtok.model.load import load, read_config, read_weights, tensor_shapes
from streamtok.model.rope import Rope
from streamtok.testing import TINY

CASES = sorted(path.parent for path in (Path(__file__).parent / "golden").glob("*/config.json"))
each_case = pytest.mark.parametrize("folder", CASES, ids=lambda path: path.name)


def feed(decoder: Decoder, cache: KVCache, start: int, ids: np.ndarray) -> np.ndarray:
    """Compute `ids` from position `start` on and return the logits after the last: [V]."""
    positions = np.arange(start, start + len(ids))[None]  # [1, R]
    return decoder.forward(cache, [Segment(slice(0, 1), ids[None], positions, True)])[0]


def test_every_family_has_a_golden_model() -> None:
    covered = {json.loads((case / "config.json").read_text())["model_type"] for case in CASES}
    assert covered == set(FAMILIES)


@each_case
def test_float32_logits_are_those_of_transformers(folder: Path) -> None:
    decoder, golden = load(folder), load_file(folder / "golden.safetensors")
    ids, expected = golden["ids"], golden["logits32"]  # [T], [T, V]
    cache = KVCache(decoder.config, 1)
    one_by_one = [feed(decoder, cache, i, ids[i : i + 1]) for i in range(len(ids))]
    assert np.abs(np.array(one_by_one) - expected).max() < 1e-4
    at_once = feed(decoder, KVCache(decoder.config, 1), 0, ids)  # [V]
    assert np.array_equal(at_once, one_by_one[-1])


@each_case
def test_final_states_are_those_of_the_reference(folder: Path) -> None:
    """Whose product with the head, which transformers gives, is right."""
    decoder, golden = load(folder), load_file(folder / "golden.safetensors")
    ids, (config, tensors) = golden["ids"], read_weights(folder)
    weights = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    if isinstance(config, GptConfig):
        expected = gpt_reference.states(config, weights, ids.tolist())  # [T, D]
    else:
        expected = reference.states(config, weights, ids.tolist())  # [T, D]
    positions = np.arange(len(ids))[None]  # [1, T]
    segment = Segment(slice(0, 1), ids[None], positions, sampled=0, pooled=True)
    logits, found = decoder.compute(KVCache(decoder.config, 1), [segment])
    assert logits.shape == (0, config.vocab)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


@each_case
def test_float64_logits_of_the_reference_are_those_of_transformers(folder: Path) -> None:
    golden = load_file(folder / "golden.safetensors")
    config, tensors = read_weights(folder)
    weights = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    ids = golden["ids"].tolist()
    if isinstance(config, GptConfig):
        found = gpt_reference.logits(config, weights, ids)  # [T, V]
    else:
        found = reference.logits(config, weights, ids)  # [T, V]
    assert found.dtype == np.float64
    assert np.abs(found - golden["logits64"]).max() < 1e-10


@each_case
def test_64_greedy_tokens_are_those_of_transformers(folder: Path) -> None:
    decoder, golden = load(folder), load_file(folder / "golden.safetensors")
    cache, ids = KVCache(decoder.config, 1), list(golden["ids"])
    logits = feed(decoder, cache, 0, golden["ids"])  # [V]
    for _ in range(64):
        ids.append(np.argmax(logits))
        logits = feed(decoder, cache, len(ids) - 1, np.array(ids[-1:]))  # [V]
    assert ids[-64:] == list(golden["greedy"])


@each_case
def test_parameters_are_those_of_the_tensors(folder: Path) -> None:
    config = read_config(folder)
    shapes = tensor_shapes(config).values()
    assert config.parameters == sum(int(np.prod(shape)) for shape in shapes)


# Keys of config.json


def config_of(folder: Path, **keys: Any) -> Any:
    """Return what is read from TINY's `config.json` with some keys replaced, or (...) left out."""
    kept = {key: value for key, value in (TINY | keys).items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(kept))
    return read_config(folder)


GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize(
    ("scaling", "rope"),
    [
        (None, Rope(5e5)),
        ({"rope_type": "default"}, Rope(5e5)),
        ({"type": "linear", "factor": 2.0}, Rope(5e5, Linear(2.0))),
        ({"type": "dynamic", "factor": 2.0}, Rope(5e5)),
        (LLAMA3, Rope(5e5, Llama3(8.0, 8192, 1.0, 4.0))),
        ({"type": "yarn", "factor": 1.0}, Rope(5e5, Yarn(1.0, 128))),
    ],
)
def test_older_and_newer_keys_say_the_same(
    tmp_path: Path, scaling: dict[str, Any] | None, rope: Rope
) -> None:
    older = config_of(tmp_path, rope_theta=5e5, rope_scaling=scaling)
    newer = config_of(
        tmp_path, rope_theta=..., rope_parameters={"rope_theta": 5e5} | (scaling or {})
    )
    assert older == newer
    assert older.rope == rope


def test_a_missing_key_means_what_it_means_to_its_family(tmp_path: Path) -> None:
    missing = {"head_dim": ..., "rope_theta": ..., "tie_word_embeddings": ...}
    mistral = config_of(tmp_path, model_type="mistral", **missing)
    assert (mistral.window, mistral.head_dim, mistral.tied) == (4096, 8, False)
    assert config_of(tmp_path, model_type="mistral", sliding_window=None).window is None
    assert config_of(tmp_path, model_type="qwen3", **missing).head_dim == 128
    smollm3 = config_of(tmp_path, model_type="smollm3", num_hidden_layers=9, **missing)
    assert smollm3.no_rope_layers == {3, 7}
    assert (smollm3.rope, smollm3.tied) == (Rope(2e6), True)


def test_a_gpt_without_its_keys_is_as_its_family_has_it(tmp_path: Path) -> None:
    gpt2 = config_of(tmp_path, **GPT2, tie_word_embeddings=...)
    assert (gpt2.hidden, gpt2.context, gpt2.tied) == (128, 1024, True)
    assert (gpt2.activation, gpt2.rotary_dim) == ("gelu_tanh", 0)
    neox = config_of(tmp_path, model_type="gpt_neox", tie_word_embeddings=...)
    assert (neox.activation, neox.rotary_dim, neox.tied, neox.parallel) == ("gelu", 2, False, True)
    older = config_of(tmp_path, model_type="gpt_neox", rotary_pct=0.5, rotary_emb_base=700)
    rope = {"partial_rotary_factor": 0.5, "rope_theta": 700.0, "rope_type": "default"}
    newer = config_of(tmp_path, model_type="gpt_neox", rope_parameters=rope)
    assert older == newer
    assert older.rope == Rope(700.0)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"model_type": "smollm3", "no_rope_layers": [1]}, "a 0 or 1 for each of 2 layers"),
        ({"model_type": "smollm3", "no_rope_layers": 1}, "no_rope_layers: expected an array"),
        ({"model_type": "mistral", "sliding_window": 0}, "sliding_window: expected a positive"),
        ({"model_type": "qwen3", "attention_bias": 1}, "attention_bias: expected true or false"),
        ({"model_type": "gemma", "hidden_act": "tanh"}, "hidden_act: expected one of silu"),
        ({"model_type": "gemma", "hidden_act": "tanh"}, 'found "tanh"'),
        ({**GPT2, "n_head": 5}, "n_embd: expected a multiple of the 5 heads, found 32"),
        ({**GPT2, "activation_function": "tanh"}, "activation_function: expected one of silu"),
        ({**GPT2, "scale_attn_weights": None, "add_cross_attention": True}, "expected false"),
        ({"model_type": "gpt_neox", "rotary_pct": 0.15}, "rotary_pct: expected an even number"),
        ({"model_type": "gpt_neox", "rotary_pct": 1.5}, "rotary_pct: expected at most 1"),
        ({"model_type": "phi3", "partial_rotary_factor": 2}, "factor: expected at most 1, found 2"),
        ({"model_type": "phi3", "lm_head_bias": True}, "lm_head_bias: expected false"),
        ({"layer_types": ["sliding_attention"] * 2}, "layer_types: expected full_attention only"),
        ({"use_sliding_window": True}, "use_sliding_window: expected false"),
        (
            {"model_type": "qwen2", "layer_types": ["sliding_attention"] * 2},
            "layer_types: expected full_attention only, as there is no window in use",
        ),
        ({"model_type": "qwen2", "layer_types": ["full_attention"]}, "for each of the layers"),
        ({"model_type": "qwen3", "max_window_layers": -1}, "an integer from 0 on, found -1"),
        ({"rope_scaling": LLAMA3 | {"high_freq_factor": 1}}, "less than high_freq_factor"),
        ({"rope_scaling": {"type": "ntk"}}, "rope_type: expected default, .*llama3, found 'ntk'"),
        ({"rope_scaling": {"type": "yarn", "factor": "4"}}, "rope_scaling.factor: expected a pos"),
        ({"rope_scaling": {"type": "longrope"}}, r"short_factor: expected 4 numbers, .*nothing"),
        (
            {"rope_scaling": {"type": "longrope", "short_factor": [1, 2, 3, "4"]}},
            "short_factor: expected positive numbers",
        ),
        (
            {"rope_parameters": {"full_attention": {"rope_theta": 1e6}}},
            "rope_parameters.full_attention: expected null",
        ),
        ({"rope_theta": float("nan")}, "rope_theta: expected a positive number, found NaN"),
        ({"quantization_config": {"quant_method": "awq"}}, r"quantised weights \(awq\)"),
        ({"quantization_config": {"load_in_4bit": True}}, r"quantised weights \(bitsandbytes\)"),
        ({"quantization": {"bits": 4}}, r"config.json: quantization: quantised weights \(mlx\)"),
        ({"quantization_config": "awq"}, "quantization_config: expected an object"),
    ],
)
def test_what_is_not_supported_is_named(tmp_path: Path, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        config_of(tmp_path, **keys)


def test_texts_stay_where_the_first_factors_hold(tmp_path: Path) -> None:
    """Beyond the original context every key would be computed anew, by other factors."""
    scaling = {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    within = scaling | {"original_max_position_embeddings": 48}
    assert config_of(tmp_path, rope_scaling=within).context == 48
    assert config_of(tmp_path, rope_scaling=scaling).context == 128


def test_a_window_may_be_in_some_layers_only(tmp_path: Path) -> None:
    keys = {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 9}
    config = config_of(tmp_path, **keys, max_window_layers=1)
    assert [config.window_of(layer) for layer in range(2)] == [None, 9]
    assert config_of(tmp_path, **keys).window is None  # the first 28 layers have none
