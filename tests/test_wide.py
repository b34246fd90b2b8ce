"""Large products for prompts give the bits of small ones, in any mixture and with any threads."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from streamtok.model.attention import KVCache
from streamtok.model.batch import Segment
from streamtok.model.decoder import LlamaDecoder
from streamtok.model.exact.batch_invariance import fixed_cut, multiply
from streamtok.model.load import load
from streamtok.model.machine import kernel
from streamtok.model.machine.calibration import calibrate
from streamtok.model.wide.form import forms
from streamtok.model.wide.layers import STREAMS, WHOLE, WideLayers
from streamtok.model.wide.matrices import Own
from streamtok.model.wide.product import Room, WideMatrix
from streamtok.testing import write_model

CONTEXT = 320
KERNEL = kernel.find()
SHAPES: list[dict[str, Any]] = [
    {"num_key_value_heads": 4},
    {"num_key_value_heads": 1, "head_dim": 8},
    {"model_type": "mistral", "sliding_window": 40},
    {"hidden_size": 384, "intermediate_size": 328, "num_hidden_layers": 1, "head_dim": 64},
    {"hidden_size": 512, "intermediate_size": 520, "num_hidden_layers": 1, "head_dim": 64},
]


@cache
def decoders() -> list[tuple[LlamaDecoder, LlamaDecoder]]:
    """Models as they are, and as they compute without large products.

    Each is there with the BLAS's kernel, if it can be called here, and without.
    """
    pairs = []
    with TemporaryDirectory() as folder:
        for index, shape in enumerate(SHAPES):
            path = write_model(Path(folder) / str(index), max_position_embeddings=CONTEXT, **shape)
            for found in {KERNEL, None}:
                with patch("streamtok.model.machine.products.find", return_value=found):
                    wide, small = load(path, 1 + index % 2), load(path, 1)
                assert isinstance(wide, LlamaDecoder)
                assert isinstance(small, LlamaDecoder)
                small.many_rows = None
                pairs.append((wide, small))
    return pairs


def ids_of(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 261, count)  # [count]


@given(data=st.data())
@examples(20)
def test_prompts_in_long_chunks_have_the_bits_of_short_ones(data: st.DataObject) -> None:
    """Prompts beside streams that decode, all in one pass: keys, values and logits are alike."""
    wide, small = data.draw(st.sampled_from(decoders()))
    lengths = data.draw(st.lists(st.integers(1, CONTEXT), min_size=1, max_size=3))
    caches = [KVCache(wide.config, len(lengths)) for _ in range(2)]
    expected = []
    for slot, length in enumerate(lengths):
        ids = ids_of(length, slot)
        for start in range(0, length, 40):  # fewer rows than large products are for
            part = np.arange(start, min(start + 40, length))
            segment = Segment(slice(slot, slot + 1), ids[None, part], part[None], 1)
            logits = small.forward(caches[0], [segment])
        expected.append(logits[0])
    cuts = [data.draw(st.integers(0, length - 1)) for length in lengths]
    for begin, end in (([0] * len(cuts), cuts), (cuts, lengths)):
        segments = [
            Segment(
                slice(slot, slot + 1),
                ids_of(lengths[slot], slot)[None, first:last],
                np.arange(first, last)[None],
                1,
            )
            for slot, (first, last) in enumerate(zip(begin, end, strict=True))
            if last > first
        ]
        if segments:
            logits = wide.forward(caches[1], segments)
    assert np.array_equal(logits, expected)
    for one, other in zip(caches[0].layers, caches[1].layers, strict=True):
        assert all(map(np.array_equal, one, other))


@given(
    pair=st.integers(0, 2 * len(SHAPES) - 1),
    positions=st.lists(st.integers(0, CONTEXT - 2), min_size=STREAMS, max_size=WHOLE + 3),
    length=st.sampled_from([1, 1, 2]),
    whole=st.booleans(),
)
@examples(20)
def test_many_sequences_that_decode_have_the_bits_of_each_alone(
    pair: int, positions: list[int], length: int, whole: bool
) -> None:
    wide, small = decoders()[pair % len(decoders())]
    assert isinstance(wide.many_rows, WideLayers)
    random = np.random.default_rng(len(positions))
    caches = [KVCache(wide.config, len(positions)) for _ in range(2)]
    for one, other in zip(caches[0].layers, caches[1].layers, strict=True):
        for array, same in zip(one, other, strict=True):
            same[:] = array[:] = random.standard_normal(array.shape, np.float32)
    places = np.array(positions)[:, None] + np.arange(length)  # [N, R]
    ids = ids_of(places.size, 1).reshape(places.shape)
    kept = Own(wide, whole=True) if whole else None
    with patch.object(wide.many_rows, "_whole", kept):
        logits = wide.forward(caches[0], [Segment(slice(0, len(ids)), ids, places, 1)])
    for slot, row in enumerate(logits):
        one_id, one_place = ids[slot : slot + 1], places[slot : slot + 1]
        alone = Segment(slice(slot, slot + 1), one_id, one_place, 1)
        assert np.array_equal(small.forward(caches[1], [alone])[0], row)
    for one, other in zip(caches[0].layers, caches[1].layers, strict=True):
        assert all(map(np.array_equal, one, other))


def test_threads_share_the_positions_of_a_prompt_on_this_machine() -> None:
    assert all(isinstance(wide.many_rows, WideLayers) for wide, _ in decoders())


@pytest.mark.parametrize("inner", [32, 328, 768])
@pytest.mark.parametrize("panel", [16, 64])
def test_one_of_the_known_forms_gives_a_small_products_bits(inner: int, panel: int) -> None:
    if calibrate([(640, inner)], 64).free:
        pytest.skip("small products take any number of rows here, and no large ones are used")
    random = np.random.default_rng(0)
    panels = random.standard_normal((640 // panel, inner, panel), np.float32)
    x = random.standard_normal((300, inner), np.float32)
    expected = np.empty((300, 640), np.float32)
    multiply(x, panels, fixed_cut(inner, panel), expected)
    alike = []
    for form in forms(inner):
        matrix = WideMatrix(form, inner, 640, Room())
        for piece in range(matrix.pieces):
            matrix.join(piece, panels)
        for rows in (1, 25, 300):
            found = matrix(x[:rows], np.empty((rows, 640), np.float32))
            np.testing.assert_allclose(found, expected[:rows], rtol=1e-3, atol=1e-4)
            alike.append((form, np.array_equal(found, expected[:rows])))
    assert any(all(same for of, same in alike if of == form) for form in forms(inner))


@pytest.mark.skipif(KERNEL is None, reason="the BLAS's kernel cannot be called here")
@given(
    times=st.integers(1, 40),
    inner=st.sampled_from([1, 7, 96, 700]),
    count=st.sampled_from([1, 2, 40, 90]),
)
@examples(20)
def test_a_row_has_the_same_bits_in_every_product_of_the_kernel(
    times: int, inner: int, count: int
) -> None:
    assert KERNEL is not None
    rows = times * KERNEL.cut(inner).granule
    random = np.random.default_rng(0)
    panels = random.standard_normal((count, inner, KERNEL.panel), np.float32)
    x = random.standard_normal((rows, inner), np.float32)
    whole, alone = (np.full((rows, count * KERNEL.panel), np.nan, np.float32) for _ in "12")
    KERNEL.multiply(x, panels, whole)
    for row in range(0, rows, KERNEL.least):
        one = slice(row, row + KERNEL.least)
        KERNEL.multiply(x[one], panels, alone[one])
    assert np.array_equal(whole, alone)
    expected = x.astype(np.float64) @ panels.swapaxes(0, 1).reshape(inner, -1)
    np.testing.assert_allclose(whole, expected, rtol=1e-3, atol=1e-3)
