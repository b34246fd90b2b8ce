"""How many contexts fit into a memory, reckoned before any of it is used."""

from pathlib import Path

import pytest

from streamtok.config import EngineConfig
from streamtok.engine.extras import kv_sizing as memory
from streamtok.engine.extras.kv_sizing import count_slots, slot_bytes
from streamtok.errors import ConfigError
from streamtok.messages import SamplingParams, SequenceRequest
from streamtok.model.attention import KVCache
from streamtok.model.load import load, read_config
from streamtok.testing import local_engine

# keys and values, layers, heads, their width, the context in whole blocks, float32
SLOT = 2 * 2 * 2 * 8 * 192 * 4


def test_a_slot_takes_what_the_cache_allots_to_it(tiny_model: Path) -> None:
    config = read_config(tiny_model)
    cache = KVCache(config, 3)
    assert sum(one.nbytes for layer in cache.layers for one in layer) == 3 * slot_bytes(config)
    assert slot_bytes(config) == SLOT


@pytest.mark.parametrize(
    ("given", "machine", "slots"),
    [
        (SLOT, 0, 1),
        (10 * SLOT - 1, 0, 9),
        (0, 1000 * SLOT, 8),  # twice the four streams
        (0, 10 * SLOT, 5),  # half of the machine
    ],
)
def test_memory_is_counted_in_slots(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, given: int, machine: int, slots: int
) -> None:
    monkeypatch.setattr(memory, "machine_bytes", lambda: machine)
    config = EngineConfig(max_streams=4, kv_memory=given)
    assert count_slots(read_config(tiny_model), config) == slots


@pytest.mark.parametrize(("given", "machine"), [(SLOT - 1, 1000 * SLOT), (0, SLOT)])
def test_too_little_memory_is_named(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, given: int, machine: int
) -> None:
    monkeypatch.setattr(memory, "machine_bytes", lambda: machine)
    with pytest.raises(ConfigError, match=r"^--kv-memory: 0\.0 MiB cannot hold .* 128 tokens"):
        count_slots(read_config(tiny_model), EngineConfig(kv_memory=given))


async def test_no_more_sequences_run_than_there_is_memory_for(
    tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = local_engine(load(tiny_model), EngineConfig(kv_memory=2 * SLOT))
    assert "holds 2 sequences at once" in caplog.text
    params = SamplingParams()
    stream = engine.submit("a", [SequenceRequest(i, (1,), params, 20) for i in range(5)])
    async for _ in stream:
        assert engine.stats().running <= 2
    await engine.close()
