"""Chooses tokens from logits: an ordered list of small functions, then one draw per row.

Every draw is decided by the row's own logits, its parameters, its seed and its position: nothing is
kept from step to step, so that a stream gives the same tokens at any load and can be continued from
any token. A new sampler is one more function in `STEPS`.

Read next: `streamtok.answer.events`.
"""

from collections.abc import Callable, Collection, Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from streamtok.engine.plan import Sample
from streamtok.engine.sequence import Mask
from streamtok.errors import EngineFailed, RequestError
from streamtok.messages import SamplingParams, TokenLogprobs
from streamtok.model.weights import Array

NOT_FINITE = "the model gave a score that is not a finite number"
# From logits [rows, V], a token for each row, and how many of the likeliest tokens to report
ComputeLogprobs = Callable[[Array, Sequence[int], int], list[TokenLogprobs]]


class Draw(Struct, frozen=True):
    """What one row is drawn with: parameters, the ids before it, and those it must not be.

    The first `prompt` of `ids` are the prompt's. Where a grammar decides what it may be, `allowed`
    [V] says so, with at least one token.
    """

    params: SamplingParams
    ids: Sequence[int]
    prompt: int
    barred_ids: Collection[int] = ()
    allowed: Mask | None = None

    @property
    def place(self) -> int:
        """How many tokens have been generated before it."""
        return len(self.ids) - self.prompt

    @property
    def plain(self) -> bool:
        """Whether it is the likeliest token, whatever came before it."""
        params = self.params
        return params.greedy and not (
            self.barred_ids
            or self.allowed is not None
            or params.logit_bias
            or params.presence_penalty
            or params.frequency_penalty
            or params.repetition_penalty != 1.0
        )


Rows = Sequence[Draw]
Step = Callable[[Array, Rows], None]  # changes scores [rows, V] in place


def sample(
    logits: Array, draws: Rows, logprobs: ComputeLogprobs | None = None
) -> list[Sample | RequestError]:
    """Draw one token for each row of `logits` [rows, V]; a row that is not finite is an error."""
    good = _find_finite(logits)  # [rows]
    tokens = np.argmax(logits, axis=-1)  # [rows]
    shaped = [i for i, draw in enumerate(draws) if good[i] and not draw.plain]
    if shaped:
        tokens[shaped] = _draw(logits[shaped], [draws[i] for i in shaped])
    return [
        Sample(token, _report(row, token, draw.params.top_logprobs, logprobs))
        if finite
        else EngineFailed(NOT_FINITE)
        for token, row, draw, finite in zip(tokens.tolist(), logits, draws, good, strict=True)
    ]


def _draw(scores: Array, draws: Rows) -> npt.NDArray[np.intp]:
    """Return the token drawn for each row of `scores` [rows, V], which it changes: [rows]."""
    for step in STEPS:
        step(scores, draws)
    tokens: npt.NDArray[np.intp] = np.argmax(scores, axis=-1)  # [rows]
    for i, draw in enumerate(draws):
        if not draw.params.greedy:
            tokens[i] = _choose(scores[i], uniform(draw.params.seed, draw.place))
    return tokens


def _find_finite(logits: Array) -> list[bool]:
    """Tell which rows of `logits` [rows, V] hold nothing but finite numbers."""
    with np.errstate(over="ignore", invalid="ignore"):
        sums = np.add.reduce(logits, axis=-1)  # [rows]: finite only if all are
    good: list[bool] = np.isfinite(sums).tolist()
    # a sum may overflow where no number of it is infinite
    return [fine or bool(np.isfinite(row).all()) for fine, row in zip(good, logits, strict=True)]


def bar(scores: Array, draws: Rows) -> None:
    """Rule out tokens that may not come yet, or not here."""
    for row, draw in zip(scores, draws, strict=True):
        if draw.barred_ids:
            row[list(draw.barred_ids)] = -np.inf
        if draw.allowed is not None:
            row[~draw.allowed] = -np.inf


def logit_bias(scores: Array, draws: Rows) -> None:
    """Add to the scores of single tokens."""
    for row, draw in zip(scores, draws, strict=True):
        for token, bias in draw.params.logit_bias:
            row[token] += bias


def repetition_penalty(scores: Array, draws: Rows) -> None:
    """Shrink the scores of tokens that occurred (CTRL, arXiv:1909.05858, section 4.1)."""
    for row, draw in zip(scores, draws, strict=True):
        if draw.params.repetition_penalty != 1.0:
            seen = np.unique(draw.ids)  # [distinct]
            penalty = np.float32(draw.params.repetition_penalty)
            row[seen] = np.where(row[seen] > 0, row[seen] / penalty, row[seen] * penalty)


def presence_and_frequency_penalty(scores: Array, draws: Rows) -> None:
    """Subtract, for tokens generated so far, a constant and a share per occurrence (OpenAI)."""
    for row, draw in zip(scores, draws, strict=True):
        presence, frequency = draw.params.presence_penalty, draw.params.frequency_penalty
        if (presence or frequency) and draw.place:
            seen, counts = np.unique(draw.ids[draw.prompt :], return_counts=True)  # [distinct] each
            row[seen] -= (presence + frequency * counts).astype(np.float32)


def temperature(scores: Array, draws: Rows) -> None:
    """Divide by the temperature: below one the likely get likelier, above one less so."""
    divisor = [1.0 if draw.params.greedy else draw.params.temperature for draw in draws]
    scores /= np.array(divisor, np.float32)[:, None]  # [rows, 1]


def min_p(scores: Array, draws: Rows) -> None:
    """Drop tokens less likely than `min_p` times the likeliest (arXiv:2407.01082)."""
    rows = _asking(draws, lambda params: params.min_p > 0)
    if rows:
        below = np.log([[draws[i].params.min_p] for i in rows]).astype(np.float32)  # [rows, 1]
        chosen = scores[rows]  # [rows, V]
        chosen[chosen < chosen.max(axis=-1, keepdims=True) + below] = -np.inf
        scores[rows] = chosen


def top_k(scores: Array, draws: Rows) -> None:
    """Keep the k likeliest tokens (and what ties with the last of them)."""
    for i in _asking(draws, lambda params: 0 < params.top_k < scores.shape[1]):
        row, k = scores[i], draws[i].params.top_k
        row[row < np.partition(row, -k)[-k]] = -np.inf


def top_p(scores: Array, draws: Rows) -> None:
    """Keep the likeliest tokens that together reach `top_p` (arXiv:1904.09751)."""
    for i in _asking(draws, lambda params: params.top_p < 1):
        row, share = scores[i], draws[i].params.top_p
        shares = np.exp(row - row.max())  # [V]
        total = np.add.reduce(shares, dtype=np.float64)
        # Tokens below this do not reach half of 1 - top_p together, however many there are: few are
        # left to be sorted.
        likely = shares[shares >= (1 - share) * total / (2 * len(row))]  # [candidates]
        falling = np.sort(likely)[::-1]  # [candidates]
        before = np.cumsum(falling, dtype=np.float64) - falling  # [candidates]
        kept = max(1, int(np.searchsorted(before, share * total)))
        row[shares < falling[kept - 1]] = -np.inf


STEPS: tuple[Step, ...] = (
    logit_bias,
    repetition_penalty,
    presence_and_frequency_penalty,
    bar,
    temperature,
    min_p,
    top_k,
    top_p,
)


def uniform(seed: int, position: int) -> float:
    """Return a number in [0, 1) that depends on `seed` and `position` alone.

    Two rounds of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
    generators"), the upper 53 bits of the result.
    """
    return (_mix(_mix(seed) + position) >> 11) / (1 << 53)


def _mix(value: int) -> int:
    word = (1 << 64) - 1
    value = (value + 0x9E3779B97F4A7C15) & word
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & word
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & word
    return value ^ (value >> 31)


def _asking(draws: Rows, wants: Callable[[SamplingParams], bool]) -> list[int]:
    """Return the rows that are drawn at random and for which `wants` is true."""
    return [i for i, d in enumerate(draws) if not d.params.greedy and wants(d.params)]


def _choose(row: Array, at: float) -> int:
    """Return the token at the share `at` of all that `row` [V] stands for, in the order of ids."""
    alive = np.flatnonzero(row > -np.inf)  # [candidates]
    scores = row[alive]  # [candidates]
    reached = np.cumsum(np.exp(scores - scores.max()), dtype=np.float64)  # [candidates]
    # The greatest `uniform` is 1 - 2^-53: rounded, the point is still below the whole sum.
    return int(alive[np.searchsorted(reached, at * reached[-1], side="right")])


def _report(
    logits: Array, token: int, count: int | None, logprobs: ComputeLogprobs | None
) -> TokenLogprobs | None:
    """Return the model's own log-probability of `token` after one row of logits [V], if wanted."""
    if count is None:
        return None
    assert logprobs is not None  # see EngineExtras.refusal
    return logprobs(logits[None], [token], count)[0]
