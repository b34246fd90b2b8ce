"""When text came: whether something between the model and the client holds bytes back.

A server's own pace is what it is judged by, so that slow models and slow machines pass. Three
things show a buffer: the first token of a long answer comes much later than that of a short one;
events come in bursts; events of many tokens come at one moment. Which program holds bytes back is
found by asking both ways (`compare`): directly, and through the proxies in front.
"""

import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise

from msgspec import Struct
from msgspec.structs import replace

from streamtok.teach.doctor.eventstream import Stream
from streamtok.teach.doctor.recording import Answer
from streamtok.teach.doctor.rules import rule

MANY_EVENTS = 12  # fewer say nothing about their times
LATE = 3.0  # times later than its own first token: that is not the model
LATE_S = 0.1  # less is noise
BURST = 6  # events that come together on average; servers that guess ahead make up to four
GAP = 0.25  # of the mean gap: below it two events came together
SPREAD_S = 0.03  # answers that are over sooner are too fast to judge
NOBODY = "nobody holds bytes back"


class Pace(Struct, frozen=True):
    """The same question asked for one token (`short`) and for many (`long`)."""

    short: Stream
    long: Stream


def times_of(stream: Stream) -> list[float]:
    """Return when each event with text came, in seconds since the request."""
    return [block.at_s for block in stream.spoken]


def bursts(stream: Stream) -> list[tuple[float, int, int]]:
    """Return when events came together: time, how many events, and how many bytes of body."""
    blocks = stream.spoken
    if not blocks:
        return []
    spread_s = blocks[-1].at_s - blocks[0].at_s
    together_s = GAP * spread_s / max(1, len(blocks) - 1)
    found: list[tuple[float, int, int]] = [(blocks[0].at_s, 1, len(blocks[0].raw))]
    for before, block in pairwise(blocks):
        at_s, count, size = found[-1]
        if block.at_s - before.at_s <= together_s:
            found[-1] = (at_s, count + 1, size + len(block.raw))
        else:
            found.append((block.at_s, 1, len(block.raw)))
    return found


@rule(
    "error",
    source="OpenAI API reference: tokens are sent as they become available",
    breaks="users, who look at nothing until all is there",
    fix="switch buffering off in the proxy (nginx: proxy_buffering off or X-Accel-Buffering: no; "
    "HAProxy: option http-no-delay), and flush each event in the server",
)
def buffered_whole(pace: Pace) -> Iterator[str]:
    """The first token of a long answer comes as soon as that of a short one."""
    short, long = times_of(pace.short), times_of(pace.long)
    if not short or len(long) < MANY_EVENTS:
        return
    is_late = long[0] > LATE * short[0] and long[0] - short[0] > LATE_S
    if is_late and long[-1] - long[0] < (long[0] - short[0]) / 2:
        yield (
            f"the first token of 1 came after {short[0]:.3f} s, the first of {len(long)} after "
            f"{long[0]:.3f} s, the last {long[-1] - long[0]:.3f} s later"
        )


@rule(
    "warning",
    source="not a rule of HTTP; what streaming is for",
    breaks="no client, but text comes in jerks: something collects events",
    fix="switch buffering, compression and Nagle's algorithm off in each proxy on the way, and "
    "flush each event in the server",
)
def buffered_in_bursts(pace: Pace) -> Iterator[str]:
    """Events come one by one, as they are made."""
    times, found = times_of(pace.long), bursts(pace.long)
    if len(times) < MANY_EVENTS or times[-1] - times[0] < SPREAD_S:
        return
    if len(found) * BURST <= len(times):
        yield f"{len(times)} events came in {len(found)} bursts{_shape(found)}"


RULES = (buffered_whole, buffered_in_bursts)


def is_held_back(seen: Pace) -> bool:
    """Whether a rule is broken."""
    return any(list(rule.check(seen)) for rule in RULES)


def decompressed(answer: Answer) -> Answer | None:
    """Return an answer as a client decodes it, gzip read by read; None if that cannot be done.

    What a compressor has not let go is not there yet, so that its times are those of the text.
    """
    if answer.header("content-encoding") != "gzip":
        return None
    inflate, body, times, start = zlib.decompressobj(31), b"", [], 0
    try:
        for end, at_s in answer.times:
            body += inflate.decompress(answer.body[start:end])
            times.append((len(body), at_s))
            start = end
    except zlib.error:
        return None
    headers = tuple(field for field in answer.headers if field[0] != "content-encoding")
    return replace(answer, headers=headers, body=body, chunks=(), times=tuple(times))


def _shape(found: Sequence[tuple[float, int, int]]) -> str:
    """Return how large bursts are and how often they come; the last one is what was left."""
    inner = found[:-1]
    if len(inner) < 2:
        return ""
    size = sum(size for _, _, size in inner) / len(inner)
    every_ms = 1000 * (found[-1][0] - found[0][0]) / len(inner)
    return f" of about {size / 1024:.1f} KiB, one every {every_ms:.0f} ms"


def measured(stream: Stream) -> str:
    """Return when the text of a stream came, in words."""
    times = times_of(stream)
    if not times:
        return "no text came"
    return (
        f"{len(times)} events in {len(bursts(stream))} bursts, the first after "
        f"{1000 * times[0]:.0f} ms, the last after {1000 * times[-1]:.0f} ms"
    )


def verdict(direct: Pace, via: Pace) -> str:
    """Say who holds bytes back: the server, what stands before it, or nobody."""
    server = [found for one in RULES for found in one.check(direct)]
    way = [found for one in RULES for found in one.check(via)]
    if server:
        return f"the server itself holds bytes back: {server[0]}"
    if way:
        return f"what stands between holds bytes back: {way[0]}"
    return NOBODY


def timeline(stream: Stream, width: int, end_s: float) -> str:
    """Return a line of `width` columns up to `end_s`: how many events came in each."""
    counts = [0] * width
    for at_s in times_of(stream):
        counts[min(width - 1, int(at_s / end_s * width)) if end_s else 0] += 1
    return "".join(" " if not n else "." if n == 1 else str(n) if n < 10 else "#" for n in counts)
