"""Exercise 4: sampling, and stop strings."""

import math
from collections.abc import Iterator

from streamtok.teach.build.model_kit import serve_model


def choose(scores: list[float], temperature: float, top_p: float, uniform: float) -> int:
    """Return the index of the score that is drawn; `uniform`, from 0 to 1, decides."""
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    if temperature == 0:
        return order[0]
    highest = scores[order[0]]  # subtracted, so that exp cannot overflow
    weights = [math.exp((scores[index] - highest) / temperature) for index in order]
    kept, total = 0, 0.0
    while kept < len(order) and total < top_p * sum(weights):
        total += weights[kept]
        kept += 1
    reached = 0.0
    for index, weight in zip(order[:kept], weights, strict=False):
        reached += weight
        if uniform * total < reached:
            return index
    return order[kept - 1]


def released(tokens: Iterator[str], stop: str) -> Iterator[str]:
    """Yield the text of `tokens` up to the string `stop`, each part as early as possible."""
    held = ""
    for token in tokens:
        held += token
        before, found, _ = held.partition(stop)
        if found:
            yield before
            return
        lengths = (n for n in range(min(len(stop), len(held)), 0, -1) if held.endswith(stop[:n]))
        sure = len(held) - next(lengths, 0)
        yield held[:sure]
        held = held[sure:]
    yield held


if __name__ == "__main__":
    serve_model(choose, released)
