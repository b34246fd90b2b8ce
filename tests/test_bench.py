"""The benchmark's own loop over the engine's parts goes on as they change."""

from pathlib import Path

import pytest

from streamtok.model.load import load


def test_the_engine_can_be_measured(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "scripts" / "bench")
    from benchmarks import engine

    monkeypatch.setattr(engine, "prompt", lambda length, seed: [1 + seed] * length)
    decoder = load(tiny_model)
    assert engine.decode_rate(decoder, 2, 4) > 0
    assert engine.prefill_rate(decoder, 20) > 0
