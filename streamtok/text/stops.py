"""Stop strings over a stream of text: never a character of one, never a character kept too long.

`StopMatcher` takes text in pieces and gives back what may be shown: everything up to the first stop
string, held back only as far as its end could still become one. What comes out does not depend on
how the text was cut. Where stop strings overlap, the one that is complete first decides, and of
those complete at once the longest.

Read next: `streamtok.answer.render`.
"""

from collections.abc import Sequence


class StopMatcher:
    """Watches one sequence for any of `stops` (none of them empty).

    `matched` is the stop string that was met, once it was.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.matched: str | None = None

    def feed(self, text: str) -> str:
        """Return what may be shown now; after a match nothing more."""
        if self.matched is not None:
            return ""
        if not self._stops:
            return text
        held = self._held + text
        first = min(self._matches(held), default=None)
        if first is not None:
            _, start, self.matched = first
            return held[:start]
        keep = max(overlap(held, stop) for stop in self._stops)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def flush(self) -> str:
        """Return what was held back, as nothing more will come."""
        held, self._held = self._held, ""
        return held if self.matched is None else ""

    def _matches(self, text: str) -> list[tuple[int, int, str]]:
        """Return (end, start, stop) of the first occurrence of each stop string."""
        starts = [(text.find(stop), stop) for stop in self._stops]
        return [(start + len(stop), start, stop) for start, stop in starts if start >= 0]


def overlap(text: str, stop: str) -> int:
    """Return how long the longest end of `text` is that is a beginning of `stop`."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
