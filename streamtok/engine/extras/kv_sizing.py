"""How many sequences' keys and values fit into memory, computed before any of it is used.

Every slot has room for a whole context, so that no step can run out of memory. Slots beyond those
of running sequences keep what ended ones have left: see `streamtok.engine.prefix_cache`.
"""

import ctypes
import os

from streamtok.config import EngineConfig
from streamtok.errors import ConfigError
from streamtok.model.attention import count_blocks
from streamtok.model.config import ModelConfig
from streamtok.model.exact.batch_invariance import BLOCK

MIB = 2**20
FLOAT_BYTES = 4  # of a float32
ASSUMED_BYTES = 4096 * MIB


def count_slots(model: ModelConfig, config: EngineConfig) -> int:
    """Return how many slots `config.kv_memory` holds for `model`.

    Raises:
        ConfigError: not even one.
    """
    size = slot_bytes(model)
    memory = config.kv_memory or min(2 * config.max_streams * size, machine_bytes() // 2)
    if memory < size:
        raise ConfigError(
            f"--kv-memory: {memory / MIB:.1f} MiB cannot hold the model's context of "
            f"{model.context} tokens, whose keys and values take {size / MIB:.1f} MiB"
        )
    return memory // size


def slot_bytes(config: ModelConfig) -> int:
    """Return how much memory one slot takes when its context is full."""
    position = 2 * config.layers * config.kv_heads * config.head_dim * FLOAT_BYTES
    return position * count_blocks(config) * BLOCK


def machine_bytes() -> int:
    """Return the size of the machine's memory; without a system that says it, 4 GiB."""
    if hasattr(os, "sysconf"):
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    if hasattr(ctypes, "windll"):
        status = _MemoryStatus()
        status.length = ctypes.sizeof(status)
        if ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
            return int(status.total)
    return ASSUMED_BYTES


class _MemoryStatus(ctypes.Structure):
    """Windows' MEMORYSTATUSEX, of which the total physical memory is read."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("total", ctypes.c_uint64),
        ("others", ctypes.c_uint64 * 6),
    )
