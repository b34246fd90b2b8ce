"""What the engine does by itself, and what the machine would allow."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from benchmarks.models import prompt
from threadpoolctl import threadpool_limits

from streamtok.engine.extras.logprobs import score
from streamtok.engine.runner import Runner
from streamtok.engine.scheduler import Scheduler
from streamtok.engine.verifier import draw
from streamtok.messages import SamplingParams, SequenceRequest
from streamtok.model.base import Decoder

STEP_TOKENS = 512  # positions in a step: what `serve` takes if it is not told otherwise
PROMPT = 16  # ids in front of the texts of a batch
REPEATS = 3  # readings of a limit, of which the best counts: nothing makes a machine faster
SQUARE = 1024


class Loop:
    """Plan, run, draw, commit, without guesses: `streams` sequences and the time of each step."""

    def __init__(self, decoder: Decoder, streams: int) -> None:
        self._scheduler = Scheduler(streams, STEP_TOKENS)
        self._runner = Runner(decoder, streams)

    def add(self, seed: int, length: int, tokens: int) -> None:
        """Let a greedy text of so many tokens begin after a prompt."""
        sampling = SamplingParams(temperature=0.0)
        asked = SequenceRequest(0, tuple(prompt(length, seed)), sampling, tokens)
        self._scheduler.add(str(seed), [asked])

    @property
    def busy(self) -> bool:
        """Whether a text is not complete."""
        return bool(self._scheduler.running or self._scheduler.waiting)

    def step(self) -> tuple[float, int]:
        """Return how many seconds a step took and how many tokens it drew."""
        begun_s = time.perf_counter()
        plan = self._scheduler.plan()
        logits, _ = self._runner.run(plan)  # [rows, V]
        drawn = draw(logits, plan.works)
        self._scheduler.commit(plan, drawn, score(logits, plan.works))
        return time.perf_counter() - begun_s, len(drawn)


def text_length(streams: int, tokens: int) -> int:
    """Return how long texts must be for all to run together for about so many tokens.

    Those that begin first leave the others less of each step for their prompts.
    """
    return tokens + 2 * streams


def decode_rate(decoder: Decoder, streams: int, tokens: int) -> float:
    """Return the tokens a second of a batch in which all sequences decode."""
    loop = Loop(decoder, streams)
    for seed in range(streams):
        loop.add(seed, PROMPT, text_length(streams, tokens))
    steps = []
    while loop.busy:
        steps.append(loop.step())
    full = [seconds for seconds, drawn in steps if drawn == streams][1:]
    return streams * len(full) / sum(full)


def prefill_rate(decoder: Decoder, length: int) -> float:
    """Return the prompt tokens a second until the first token of the text is drawn."""
    loop = Loop(decoder, 1)
    loop.add(0, length, 1)
    seconds = 0.0
    while loop.busy:
        seconds += loop.step()[0]
    return length / seconds


class Limits:
    """What so many threads of this machine can do at best."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads)
        # far more than any cache holds
        self._memory = np.split(np.ones(64 * 2**20, np.float32), threads)
        self._square = [np.ones((SQUARE, SQUARE), np.float32) for _ in range(threads)]

    def bandwidth(self) -> float:
        """Return the bytes a second that are read from memory."""
        return sum(part.nbytes for part in self._memory) / self._best(self._memory)

    def flops(self) -> float:
        """Return the float32 operations a second of matrix products."""
        return 2 * SQUARE**3 * len(self._square) / self._best(self._square)

    def _best(self, arrays: list[np.ndarray]) -> float:
        """Return the seconds in which all arrays are multiplied by themselves, each in a thread."""
        with threadpool_limits(1, user_api="blas"):
            seconds = []
            for _ in range(REPEATS):
                begun_s = time.perf_counter()
                list(self._pool.map(lambda array: np.dot(array, array), arrays))
                seconds.append(time.perf_counter() - begun_s)
        return min(seconds)
