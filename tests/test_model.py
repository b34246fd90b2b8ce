"""The decoder equals the readable reference, whatever the layout, batch or chunking."""

import json
import math
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from streamtok.errors import ModelError
from streamtok.model import reference
from streamtok.model.activation import erf
from streamtok.model.attention import KVCache
from streamtok.model.base import Decoder
from streamtok.model.batch import Segment
from streamtok.model.gpt import reference as gpt_reference
from streamtok.model.gpt.families import GptConfig
from streamtok.model.load import load
from streamtok.model.rope import Rope
from streamtok.model.weights import Checkpoint, read_tensors, widen
from streamtok.testing import TINY, random_weights, write_model

GPT2 = {
    "model_type": "gpt2",
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_inner": 48,
    "n_positions": 128,
}
SHAPES: list[dict[str, Any]] = [
    {},
    {"tie_word_embeddings": False},
    {"num_key_value_heads": 4},
    {"num_key_value_heads": 1, "head_dim": 6},
    {"head_dim": 16, "hidden_size": 40, "intermediate_size": 52, "vocab_size": 301},
    {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10, "rope_theta": 500.0},
    {"rope_scaling": {"type": "linear", "factor": 4.0}},
    {"model_type": "mistral", "sliding_window": 5},
    {"model_type": "mistral", "sliding_window": 64, "num_key_value_heads": 1},
    {"model_type": "qwen2", "head_dim": 6},
    {"model_type": "qwen3", "head_dim": 18, "vocab_size": 301},
    {"model_type": "gemma", "hidden_act": "gelu"},
    {"attention_bias": True, "mlp_bias": True, "hidden_act": "gelu"},
    {"model_type": "qwen3", "attention_bias": True, "hidden_act": "relu"},
    {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 5,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    {
        "rope_scaling": {
            "type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 32,
        }
    },
    {"model_type": "phi3", "partial_rotary_factor": 0.75, "sliding_window": 40},
    {"model_type": "smollm3", "no_rope_layers": [0, 1], "num_attention_heads": 6},
    GPT2 | {"vocab_size": 301},
    GPT2 | {"n_embd": 35, "n_head": 5, "n_inner": None, "tie_word_embeddings": False},
    {"model_type": "gpt_neox", "rotary_pct": 0.25, "tie_word_embeddings": False},
    {"model_type": "gpt_neox", "attention_bias": False, "hidden_act": "relu"},
    GPT2 | {"scale_attn_by_inverse_layer_idx": True, "scale_attn_weights": False},
    {
        "model_type": "gpt_neox",
        "hidden_size": 54,
        "num_attention_heads": 3,
        "rope_parameters": {"partial_rotary_factor": 0.45, "rope_theta": 500.0},
        "use_parallel_residual": False,
    },
]


def ids_of(count: int, vocab: int = 261, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, vocab, count)  # [count]


def last_logits(decoder: Decoder, ids: np.ndarray, chunks: list[int], slot: int = 0) -> np.ndarray:
    """Feed `ids` in pieces of the given lengths and return the logits after the last one."""
    cache = KVCache(decoder.config, slot + 1)
    start, logits = 0, np.empty((0, 0))
    for length in chunks:
        part = slice(start, start + length)
        positions = np.arange(start, start + length)
        segment = Segment(slice(slot, slot + 1), ids[None, part], positions[None], True)
        logits = decoder.forward(cache, [segment])
        start += length
    return logits[0]  # [V]


@pytest.mark.parametrize("shape", SHAPES)
def test_decoder_equals_reference(tmp_path: Path, shape: dict[str, object]) -> None:
    folder = write_model(tmp_path / "model", **shape)
    decoder = load(folder)
    ids = ids_of(100)
    weights = {name: w.astype(np.float64) for name, w in random_weights(folder).items()}
    if isinstance(decoder.config, GptConfig):
        expected = gpt_reference.logits(decoder.config, weights, list(ids))  # [T, V]
    else:
        expected = reference.logits(decoder.config, weights, list(ids))  # [T, V]
    for chunks in ([100], [1] * 100, [63, 1, 36]):
        assert np.allclose(last_logits(decoder, ids, chunks), expected[-1], atol=1e-4, rtol=1e-4)


def test_reference_by_hand() -> None:
    """RMSNorm, softmax and rotation on numbers small enough to check on paper."""
    assert np.allclose(
        reference.rms_norm(np.array([[3.0, 4.0]]), np.array([1.0, 2.0]), 0.0),
        [[3 / np.sqrt(12.5), 8 / np.sqrt(12.5)]],
    )
    assert np.allclose(reference.softmax(np.log([[1.0, 3.0]])), [[0.25, 0.75]])
    rotated = reference.rotate(np.ones((3, 1, 3)), Rope(1e4), 2)  # one pair, one radian a position
    assert np.allclose(rotated[2, 0], [np.cos(2) - np.sin(2), np.cos(2) + np.sin(2), 1])


def test_erf_is_as_near_as_it_says() -> None:
    x = np.linspace(-7, 7, 30_001, dtype=np.float32)  # [points]
    exact = np.array([math.erf(value) for value in x.tolist()])
    assert np.abs(erf(x) - exact).max() < 5e-7


@cache
def decoders() -> list[Decoder]:
    """Models of different shapes, made once."""
    with TemporaryDirectory() as folder:
        return [load(write_model(Path(folder) / str(i), **shape)) for i, shape in enumerate(SHAPES)]


@given(data=st.data())
@examples(48)
def test_a_sequence_has_the_same_bits_in_any_company(data: st.DataObject) -> None:
    """Random batches, slots and prompt chunks: the logits of a sequence never change a bit."""
    decoder = data.draw(st.sampled_from(decoders()))
    count = data.draw(st.integers(1, 6))
    texts = [ids_of(data.draw(st.integers(1, 90)), seed=seed) for seed in range(count)]
    alone = [last_logits(decoder, text, [len(text)]) for text in texts]
    slots = data.draw(st.permutations(range(8)))[:count]
    cache, done = KVCache(decoder.config, 8), [0] * count
    while any(done[i] < len(text) for i, text in enumerate(texts)):
        segments, finishing = [], []
        for i, text in enumerate(texts):
            left = len(text) - done[i]
            if left and (length := data.draw(st.integers(0, left))):
                part = np.arange(done[i], done[i] + length)[None]
                slot = slice(slots[i], slots[i] + 1)
                done[i] += length
                ends = done[i] == len(text)
                segments.append(Segment(slot, text[part], part, ends))
                finishing += [i] if ends else []
        if segments:
            logits = decoder.forward(cache, segments)
            for row, i in zip(logits, finishing, strict=True):
                assert np.array_equal(row, alone[i])


def test_neighbouring_slots_decode_in_one_segment_alike(tiny_model: Path) -> None:
    decoder = load(tiny_model)
    texts = [ids_of(length, seed=length) for length in (3, 70, 20)]
    alone = [last_logits(decoder, text, [len(text) - 1, 1]) for text in texts]
    cache = KVCache(decoder.config, 3)
    for slot, text in enumerate(texts):
        positions = np.arange(len(text) - 1)[None]
        decoder.forward(cache, [Segment(slice(slot, slot + 1), text[None, :-1], positions, False)])
    ids = np.array([[text[-1]] for text in texts])
    positions = np.array([[len(text) - 1] for text in texts])
    together = decoder.forward(cache, [Segment(slice(0, 3), ids, positions, True)])
    assert np.array_equal(together, alone)


def test_a_slot_leaves_nothing_to_its_next_user(tiny_model: Path) -> None:
    decoder, ids = load(tiny_model), ids_of(30)
    fresh = last_logits(decoder, ids, [30])
    cache = KVCache(decoder.config, 1)
    for text in (ids_of(100, seed=7), ids):
        positions = np.arange(len(text))[None]
        logits = decoder.forward(cache, [Segment(slice(0, 1), text[None], positions, True)])
    assert np.array_equal(logits[0], fresh)


def test_this_machine_computes_rows_alike(tiny_model: Path) -> None:
    assert load(tiny_model).tiling.exact


# Loading


def test_bfloat16_and_float16_widen_without_loss() -> None:
    values = np.array([1.0, -2.5, 0.0, np.inf, 3e38, 2.0**-120], np.float32)
    halves = (values.view(np.uint32) >> 16).astype(np.uint16)
    assert np.array_equal(widen("BF16", halves), (halves.astype(np.uint32) << 16).view(np.float32))
    assert np.array_equal(widen("BF16", halves)[:4], values[:4])
    assert np.array_equal(widen("F16", np.array([1.5, -2], np.float16)), [1.5, -2])


@pytest.mark.parametrize("stored", ["F16", "BF16"])
def test_half_precision_files_load(tmp_path: Path, stored: str) -> None:
    folder = write_model(tmp_path / "model")
    weights = random_weights(folder)
    save_file({k: v.astype(np.float16) for k, v in weights.items()}, folder / "model.safetensors")
    if stored == "BF16":
        halves = {k: (v.view(np.uint32) >> 16).astype(np.uint16) for k, v in weights.items()}
        save_file(halves, folder / "model.safetensors")
        rename_type(folder / "model.safetensors", b'"U16"', b'"BF16"')
    full = last_logits(load(write_model(tmp_path / "full")), ids_of(20), [20])
    half = last_logits(load(folder), ids_of(20), [20])
    assert np.abs(full - half).max() < 0.2
    assert not np.array_equal(full, half)


def rename_type(path: Path, old: bytes, new: bytes) -> None:
    """Give another type to the tensors of a file: numpy cannot write bfloat16 itself."""
    raw = path.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    header = raw[8:end].replace(old, new)
    path.write_bytes(len(header).to_bytes(8, "little") + header + raw[end:])


def test_shards_load_like_one_file(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    whole = last_logits(load(folder), ids_of(20), [20])
    weights = random_weights(folder)
    names = sorted(weights)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, held in shards.items():
        save_file({name: weights[name] for name in held}, folder / file)
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {name: file for file, held in shards.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert np.array_equal(last_logits(load(folder), ids_of(20), [20]), whole)


def rewrite(folder: Path, **changes: np.ndarray | None) -> None:
    """Save the model's tensors with some replaced, added, or (None) left out."""
    weights = {**random_weights(folder), **changes}
    kept = {name: w for name, w in weights.items() if w is not None}
    save_file(kept, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.norm.weight": None}, ["model.norm.weight is missing", "[32]"]),
        (
            {"model.layers.1.mlp.norm.weight": np.zeros(3, np.float32)},
            ["model.layers.1.mlp.norm.weight", "[3]", "is not part", "model.safetensors"],
        ),
        ({"lm_head.bias": np.zeros(261, np.int8)}, ["lm_head.bias", "is not part"]),
        (
            {"model.norm.weight": np.zeros(31, np.float32)},
            ["model.norm.weight", "[31]", "expected [32]", "model.safetensors"],
        ),
        ({"model.norm.weight": np.zeros(32, np.int32)}, ["model.norm.weight", "I32", "BF16"]),
    ],
)
def test_wrong_tensors_are_named(
    tmp_path: Path, changes: dict[str, np.ndarray | None], said: list[str]
) -> None:
    folder = write_model(tmp_path / "model")
    rewrite(folder, **changes)
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert all(words in str(caught.value) for words in said), caught.value


def test_needless_tensors_are_left_aside(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    ids, digest = ids_of(20), load(folder).digest
    plain = last_logits(load(folder), ids, [20])
    copy = random_weights(folder)["model.embed_tokens.weight"]
    table = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32)}
    rewrite(folder, **table, **{"lm_head.weight": copy})
    decoder = load(folder)
    assert decoder.digest == digest
    assert np.array_equal(last_logits(decoder, ids, [20]), plain)


def test_gpt2_files_may_lack_a_prefix_and_hold_masks(tmp_path: Path) -> None:
    folder, ids = write_model(tmp_path / "model", **GPT2), ids_of(20)
    plain = last_logits(load(folder), ids, [20])
    named = {
        name.removeprefix("transformer."): weight for name, weight in random_weights(folder).items()
    }
    masks = {
        "h.0.attn.bias": np.ones((1, 1, 128, 128), np.uint8),
        "h.0.attn.masked_bias": np.array(-1e4, np.float32),
    }
    save_file(named | masks, folder / "model.safetensors")
    assert np.array_equal(last_logits(load(folder), ids, [20]), plain)
    save_file(named | {"wte.weight": np.ones((261, 32), np.uint8)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"wte\.weight: type U8; expected one of F32, F16, BF16"):
        load(folder)


def test_a_truncated_file_is_named_at_every_length(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    for length in (0, 4, 8, 100, len(raw) // 2, len(raw) - 1):
        path.write_bytes(raw[:length])
        with pytest.raises(ModelError, match=r"model\.safetensors: not a complete"):
            load(folder)


def test_a_missing_folder_or_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere.config\.json: cannot be read"):
        load(tmp_path / "nowhere")
    folder = write_model(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors: no such file"):
        load(folder)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model_type", "mamba", "unknown architecture 'mamba'; supported: .*llama"),
        ("model_type", None, "model_type: expected a string, found nothing"),
        ("hidden_size", "32", 'hidden_size: expected a positive integer, found "32"'),
        ("hidden_size", 0, "hidden_size: expected a positive integer, found 0"),
        ("rms_norm_eps", -1, "rms_norm_eps: expected a positive number"),
        ("num_key_value_heads", 3, "expected a divisor of num_attention_heads"),
        ("head_dim", 7, "head_dim: expected an even number"),
        ("hidden_act", "tanh", 'hidden_act: expected one of silu, .*, found "tanh"'),
        ("rope_scaling", {"type": "linear"}, "rope_scaling.factor: expected a positive number"),
        ("rope_parameters", {"rope_type": "axial"}, "rope_type: expected default, linear, dynamic"),
        ("partial_rotary_factor", 0.5, "partial_rotary_factor: expected 1.0"),
        ("use_sliding_window", True, "use_sliding_window: expected false"),
        ("tie_word_embeddings", 1, "tie_word_embeddings: expected true or false"),
    ],
)
def test_wrong_configs_are_named(tmp_path: Path, key: str, value: object, said: str) -> None:
    folder = write_model(tmp_path / "model")
    (folder / "config.json").write_text(json.dumps(TINY | {key: value}))
    with pytest.raises(ModelError, match=said) as caught:
        load(folder)
    assert "config.json" in str(caught.value)


def test_every_tensor_counts_in_the_digest(tmp_path: Path) -> None:
    same = [load(write_model(tmp_path / str(i))).digest for i in range(2)]
    other = load(write_model(tmp_path / "other", seed=1)).digest
    assert same[0] == same[1] != other


def test_a_tensor_is_taken_once(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    shapes = {name: w.shape for name, w in random_weights(folder).items()}
    checkpoint = Checkpoint(folder, read_tensors(folder), shapes)
    checkpoint.take("model.norm.weight")
    with pytest.raises(KeyError):
        checkpoint.take("model.norm.weight")
