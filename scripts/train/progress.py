"""Shows how a training run goes: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

STEPS_PER_LINE = 20
SMOOTHING = 0.95


def duration(seconds: float) -> str:
    """`3723` -> `"1:02:03"`."""
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"


class TrainingProgress:
    """Reports the loss (nats a token), the speed and the time left of a run; a context manager."""

    def __init__(self, first_step: int, steps: int, batch_tokens: int) -> None:
        self._first_step, self._steps, self._batch_tokens = first_step, steps, batch_tokens
        self._begin_s = time.monotonic()
        self._loss: float | None = None
        self._bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.description}"),
            disable=not sys.stdout.isatty(),
        )
        self._task = self._bar.add_task("", total=steps, completed=first_step)

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def advance(self, step: int, loss: float) -> None:
        """Count a step whose mean loss was `loss`."""
        previous = loss if self._loss is None else self._loss
        self._loss = SMOOTHING * previous + (1 - SMOOTHING) * loss
        per_step_s = (time.monotonic() - self._begin_s) / (step - self._first_step)
        line = (
            f"loss {self._loss:.3f}, {self._batch_tokens / per_step_s:.0f} tokens/s, "
            f"{duration(per_step_s * (self._steps - step))} left"
        )
        self._bar.update(self._task, completed=step, description=line)
        if self._bar.disable and (step % STEPS_PER_LINE == 0 or step == self._steps):
            print(f"step {step}/{self._steps}: {line}", flush=True)

    def tell(self, message: str) -> None:
        """Print a line of its own."""
        self._bar.console.print(message, highlight=False, soft_wrap=True)
        sys.stdout.flush()
