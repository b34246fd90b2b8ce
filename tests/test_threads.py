"""Several threads compute what one does, bit by bit, and no thread waits for one that sleeps."""

import os
import threading

import numpy as np
import pytest

from streamtok.model.exact import linear
from streamtok.model.exact.linear import ALIGNMENT, Arena, Linear
from streamtok.model.machine.calibration import Stopwatch, calibrate
from streamtok.model.machine.threads import Threads, available


@pytest.mark.parametrize("rows", [0, 2, 4, 8, 36, 64])
@pytest.mark.parametrize("out", [500, 512])
def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch, rows: int, out: int) -> None:
    monkeypatch.setattr(linear, "PART", 2**14)
    random = np.random.default_rng(0)
    tiling, weight = calibrate([(out, 96)], 16), random.random((out, 96), np.float32)
    x = random.random((rows, 96), np.float32)
    one, three = (Linear(weight, tiling, Arena(), Threads(count)) for count in (1, 3))
    found = [layer(x, np.empty((rows, layer.width), np.float32)) for layer in (one, three)]
    assert np.array_equal(*found)
    np.testing.assert_allclose(found[0][:, :out], x @ weight.T, rtol=1e-5)


def test_each_part_is_computed_once_by_whoever_is_free() -> None:
    threads = Threads(3)
    others = threading.Barrier(3)  # nobody goes on before all three have come
    workers: dict[int, int] = {}

    def work(part: int) -> None:
        assert part not in workers
        workers[part] = threading.get_ident()
        if part < 3:
            others.wait(10)

    threads.share(range(20), work)
    assert sorted(workers) == list(range(20))
    assert len(set(workers.values())) == 3


def test_the_caller_does_all_if_the_helpers_do_not_come() -> None:
    threads = Threads(2)
    caller = threading.get_ident()
    blocked, awake = threading.Event(), threading.Event()
    done: list[int] = []

    def block(part: int) -> None:
        """Keep the helper in a part of a job that another thread waits for."""
        if threading.current_thread() is other:
            blocked.wait(10)
        else:
            blocked.set()
            awake.wait(10)

    def work(part: int) -> None:
        assert threading.get_ident() == caller
        done.append(part)

    other = threading.Thread(target=threads.share, args=(range(2), block))
    other.start()
    blocked.wait(10)
    threads.share(range(5), work)
    awake.set()
    other.join()
    assert done == list(range(5))


def test_what_goes_wrong_in_a_part_is_raised_and_the_next_job_is_done() -> None:
    threads = Threads(2)

    def fail(part: int) -> None:
        raise MemoryError(part)

    with pytest.raises(MemoryError):
        threads.share(range(8), fail)
    done: list[int] = []
    threads.share(range(8), done.append)
    assert sorted(done) == list(range(8))


def test_a_fork_gets_helpers_of_its_own() -> None:
    threads = Threads(2)
    threads._process = os.getpid() - 1  # as if what is here were a fork of where they started
    both = threading.Barrier(2)
    threads.share(range(2), lambda part: both.wait(10))
    assert threads._process == os.getpid()


@pytest.mark.parametrize(("given", "count"), [("1", 1), (" 1 ", 1), ("0", 1), ("1,4", 1)])
def test_the_environment_bounds_how_many_there_are(
    monkeypatch: pytest.MonkeyPatch, given: str, count: int
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    most = available()
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert available() == count
    for other in ("64", "many", ""):
        monkeypatch.setenv("OMP_NUM_THREADS", other)
        assert available() == most


def test_panels_are_measured_where_they_would_be() -> None:
    """A panel that begins within a cache line takes a quarter longer, and not all widths do."""
    stopwatch = Stopwatch(1000)
    assert stopwatch._memory.ctypes.data % ALIGNMENT == 0
