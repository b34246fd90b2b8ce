"""What reaches clients: speed, first tokens and gaps, a long prompt among streams, a prefix."""

from itertools import count
from statistics import median

import numpy as np
from benchmarks.clients import Stream, connect
from benchmarks.engine import PROMPT, text_length
from benchmarks.models import prompt

LONG_PROMPT, OTHERS, SETTLED = 900, 8, 40
PREFIX = 500
_seeds = count(1000)  # no prompt is asked for twice unless that is measured


async def load(port: int, streams: int, tokens: int) -> dict[str, float]:
    """Ask for so many streams at once and read them to their ends; return what was seen."""
    length = text_length(streams, tokens)
    found = [await connect(port, prompt(PROMPT, next(_seeds)), length) for _ in range(streams)]
    for stream in found:
        stream.ask()
    for stream in found:
        await stream.end()
    return _describe(found)


def _describe(streams: list[Stream]) -> dict[str, float]:
    """Return tokens a second while all streams ran, and times in seconds, of whole answers."""
    begin_s = max(stream.times_s[0] for stream in streams)
    end_s = min(stream.times_s[-1] for stream in streams)
    tokens = sum(begin_s < time_s <= end_s for s in streams for time_s in s.times_s)
    gaps = [gap for stream in streams for gap in stream.gaps_s]
    return {
        "tokens_per_s": tokens / (end_s - begin_s),
        "first_p50_s": float(np.percentile([s.first_s for s in streams], 50)),
        "first_p99_s": float(np.percentile([s.first_s for s in streams], 99)),
        "gap_p50_s": float(np.percentile(gaps, 50)),
        "gap_p99_s": float(np.percentile(gaps, 99)),
    }


async def intrude(port: int) -> dict[str, float]:
    """Let a long prompt arrive among running streams; return what happens to their gaps."""
    others = [await connect(port, prompt(PROMPT, next(_seeds)), 900) for _ in range(OTHERS)]
    for stream in others:
        stream.ask()
    for stream in others:
        await stream.reach(SETTLED)
    late = await connect(port, prompt(LONG_PROMPT, next(_seeds)), 8)
    late.ask()
    await late.end()
    for stream in others:
        stream.leave()
    before, during = [], []
    for stream in others:
        for start_s, stop_s in zip(stream.times_s, stream.times_s[1:], strict=False):
            if stop_s < late.asked_s:
                before.append(stop_s - start_s)
            elif start_s < late.times_s[0]:
                during.append(stop_s - start_s)
    usual, full = median(before[len(before) // 4 :]), median(during)
    return {
        "first_s": late.first_s,
        "gap_before_s": usual,
        "gap_during_s": full,
        "longest_s": max(during),
        "longest_in_usual_steps": max(during) / usual,
        "longest_in_full_steps": max(during) / full,
    }


async def repeat(port: int) -> dict[str, float]:
    """Ask twice for texts after a prefix; return the seconds to the first token."""
    prefix, times = prompt(PREFIX, next(_seeds)), []
    for _ in range(2):
        stream = await connect(port, prefix + prompt(1, next(_seeds)), 4)
        stream.ask()
        await stream.end()
        times.append(stream.first_s)
    return {"first_s": times[0], "second_s": times[1], "ratio": times[1] / times[0]}
