"""Figures of several rounds of measurements, and how far these are."""

from collections import defaultdict
from statistics import median

from rich.progress import Progress


class Rounds:
    """Collects figures by case and name; each case that is added moves the bar on by one."""

    def __init__(self, progress: Progress, title: str, cases: int) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=cases)
        self._found: dict[str, dict[str, list[float]]] = {}

    def add(self, case: str, **figures: float) -> None:
        """Keep what one round found."""
        known = self._found.setdefault(case, defaultdict(list))
        for name, figure in figures.items():
            known[name].append(figure)
        self._progress.advance(self._task)

    def middle(self, case: str) -> dict[str, float]:
        """Return the median of each figure of a case."""
        return {name: median(figures) for name, figures in self._found[case].items()}
