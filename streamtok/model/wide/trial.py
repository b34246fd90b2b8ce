"""Tries on the machine itself which large products give a small one's bits.

Read next: `streamtok.model.wide.form`, which says what is tried.
"""

import logging

import numpy as np
from msgspec.structs import replace

from streamtok.model.attention import KVCache, Rows
from streamtok.model.config import ModelConfig
from streamtok.model.decoder import LlamaDecoder
from streamtok.model.exact.batch_invariance import BLOCK, Tiling, multiply
from streamtok.model.exact.linear import Threads
from streamtok.model.wide.attention import COLUMNS as QUERIES
from streamtok.model.wide.attention import WideAttention
from streamtok.model.wide.form import Form, forms
from streamtok.model.wide.layers import WideLayers
from streamtok.model.wide.matrices import Joined, Own, weights_of
from streamtok.model.wide.product import COLUMNS, ROWS, Room, WideMatrix

log = logging.getLogger(__name__)

COUNTS = (12, 29, ROWS + 5)  # rows whose bits are compared
HEAVY = 2**21  # numbers in a layer's matrices: what takes long to read


def plug_in(decoder: LlamaDecoder, threads: Threads) -> LlamaDecoder:
    """Let threads share a prompt's rows, if products for that are exact here; return `decoder`."""
    tiling, config = decoder.tiling, decoder.config
    long = tiling.exact and attention_is_exact(config, tiling)
    if tiling.exact and (tiling.free or tiling.least):
        heavy = tiling.free and weights_of(decoder.layers[0]) >= HEAVY
        whole = Own(decoder, whole=True) if heavy else None
        decoder.many_rows = WideLayers(decoder, Own(decoder, whole=False), whole, threads, long)
        log.info("prompts in one part for each thread, %s attention", _kind(long))
        return decoder
    found = {inner: _find(inner, tiling) for inner in tiling.cuts} if tiling.exact else {}
    exact = {inner: form for inner, form in found.items() if form}
    if not exact or len(exact) < len(found):
        log.info("no large products for prompts: they would change bits")
        return decoder
    log.info("large products for prompts, %s attention", _kind(long))
    decoder.many_rows = WideLayers(decoder, Joined(decoder, exact), None, threads, long)
    return decoder


def _kind(long: bool) -> str:
    return "with large products for" if long else "with small products for"


def _find(inner: int, tiling: Tiling) -> Form | None:
    """Return how large products of `inner` terms are computed; None if nothing gives the bits."""
    cut = tiling.cuts[inner]
    random = np.random.default_rng(0)
    count = COLUMNS // cut.panel + 2
    panels = random.standard_normal((count, inner, cut.panel), np.float32)  # [P, in, panel]
    x = random.standard_normal((max(COUNTS), inner), np.float32)  # [rows, in]
    x = np.concatenate([x, np.zeros((-len(x) % cut.granule, inner), np.float32)])
    expected = np.empty((len(x), count * cut.panel), np.float32)  # [rows, P * panel]
    multiply(x, panels, cut, expected)
    for form in forms(inner):
        matrix = WideMatrix(form, inner, count * cut.panel, Room())
        for piece in range(matrix.pieces):
            matrix.join(piece, panels)
        found = (matrix(x[:rows], np.empty_like(expected[:rows])) for rows in COUNTS)
        if all(np.array_equal(one, expected[: len(one)]) for one in found):
            return form
    return None


def attention_is_exact(config: ModelConfig, tiling: Tiling) -> bool:
    """Say whether attention in large products has the bits of that in small ones."""
    random = np.random.default_rng(0)
    count = QUERIES // config.group + 9
    start = BLOCK // 2
    one = replace(config, layers=1, context=start + count)
    cached = KVCache(one, 1).layers[0]
    for array in cached:
        array[:] = random.standard_normal(array.shape, np.float32)
    q = random.standard_normal((count, config.heads, config.head_dim), np.float32)  # [R, H, E]
    q *= np.float32(config.head_dim**-0.5)
    positions = np.arange(start, start + count)[None]
    expected, found = (np.empty((count, config.heads * config.head_dim), np.float32) for _ in "12")
    wide = WideAttention(one, tiling, Room())
    Rows(one, tiling, slice(0, 1), positions).attend(cached, q, expected, config.window)
    for part in wide.parts(slice(0, count), 0, start):
        wide.attend(part, cached, q, found, config.window)
    return np.array_equal(found, expected)
