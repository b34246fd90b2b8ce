"""Threads that share a large product: whoever is free takes its next part.

The caller takes parts too, and waits for nobody who has not come yet: a helper that wakes up late,
because its core sleeps or serves others, finds less to do or nothing. Who computes a part does not
change a bit of it. numpy lets go of the interpreter's lock while it computes.

A `concurrent.futures` executor costs a future and a condition for each part and leaves the caller
waiting.
"""

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from queue import SimpleQueue

import numpy as np

Work = Callable[[int], None]


class Threads:
    """The calling thread and `count - 1` helpers, which start when they are first of use."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._process = 0  # the one whose helpers take from the queue: a fork takes none along

    def share(self, parts: range, work: Work) -> None:
        """Call `work` once for each of `parts`, in any order; return when all is done.

        Raises:
            Exception: whatever `work` raised first.
        """
        if self._process != os.getpid():
            self._start()
        job = _Job(iter(parts), work)
        for _ in range(self.count - 1):
            self._jobs.put(job)
        job.help()
        errors = [job.done.get() for _ in parts]
        for error in filter(None, errors):
            raise error

    def _start(self) -> None:
        self._jobs, self._process = SimpleQueue(), os.getpid()
        for _ in range(self.count - 1):
            threading.Thread(target=_serve, args=[self._jobs], daemon=True).start()
            weakref.finalize(self, self._jobs.put, None)


class _Job:
    """Parts that wait for someone, and what became of those that were taken."""

    def __init__(self, parts: Iterator[int], work: Work) -> None:
        self._parts, self._work = parts, work
        self._lock = threading.Lock()  # an iterator may not be shared by threads without the GIL
        self.done: SimpleQueue[Exception | None] = SimpleQueue()

    def _next(self) -> int | None:
        with self._lock:
            return next(self._parts, None)

    def help(self) -> None:
        """Take parts until there are none."""
        while (part := self._next()) is not None:
            try:
                self._work(part)
            except Exception as error:
                self.done.put(error)
            else:
                self.done.put(None)


def _serve(jobs: "SimpleQueue[_Job | None]") -> None:
    with np.errstate(all="ignore"):  # what is not finite is found where tokens are drawn
        while job := jobs.get():
            job.help()
            del job  # and with it the arrays it knows, before the next one comes


def available() -> int:
    """Return how many threads are worth having here: two at most, as more were not measured.

    OMP_NUM_THREADS bounds it, as it bounds matrix libraries; Ray sets it to how many processors it
    has set aside.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # one for each level
    return min(2, cores, max(1, int(given)) if given.isdecimal() else cores)
