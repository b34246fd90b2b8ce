"""Prefill and decode."""

from msgspec import Struct

from streamtok.teach.lessons.lab import Lab, get, post
from streamtok.teach.lessons.lesson import Blocks, Lesson, Question, Table, Wire, whole_number

LENGTHS = (16, 128, 512)  # tokens
TOKENS = 12
ROUNDS = 3
LONGEST = 1000


class Timed(Struct, frozen=True):
    """A stream after a prompt of `length` tokens: its first token, and the mean gap after that."""

    id: str
    length: int
    first_s: float
    gap_s: float

    @property
    def row(self) -> tuple[str, str, str, str]:
        """The times as text."""
        return (
            str(self.length),
            f"{1000 * self.first_s:.1f} ms",
            f"{1000 * self.first_s / self.length:.2f} ms",
            f"{1000 * self.gap_s:.2f} ms",
        )


COLUMNS = ("prompt tokens", "first token after", "per prompt token", "each further token")


def measure(lab: Lab, *lengths: int) -> list[Timed]:
    """Return the median of several streams, by first token, after new prompts of `lengths`.

    The first round is not counted: caches are cold, and threads asleep. The rounds take turns, so
    that what slows the machine down for a moment meets all lengths alike.
    """
    rounds = [[_stream(lab, length) for length in lengths] for _ in range(1 + ROUNDS)][1:]
    middle = ROUNDS // 2
    return [sorted(timed, key=_first_s)[middle] for timed in zip(*rounds, strict=True)]


def _first_s(timed: Timed) -> float:
    return timed.first_s


def _stream(lab: Lab, length: int) -> Timed:
    """Stream a few tokens after a new prompt of `length` tokens."""
    body = {
        "prompt": lab.new_ids(length),
        "max_tokens": TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }
    stream = lab.exchange(post("/v1/completions", body)).stream
    first_s, last_s = stream.events[0].at_s, stream.events[-2].at_s  # the end is behind the last
    return Timed(stream.chunks[0]["id"], length, first_s, (last_s - first_s) / (TOKENS - 1))


def show(lab: Lab) -> Blocks:
    """Measure prompts of different lengths."""
    found = measure(lab, *LENGTHS)
    longest = found[-1]
    yield (
        "A model makes the next token from all tokens before it. So first it must compute the "
        "prompt: prefill. Then it goes on one token at a time: decode. A stream shows both: the "
        "wait for the first token, and the gaps between tokens. Measured here, just now, the "
        f"median of {ROUNDS} after a warm-up:"
    )
    yield Table(COLUMNS, tuple(timed.row for timed in found))
    yield (
        "The server has measured too. This is what `GET /v1/usage/{id}` says of the last one; "
        "`first_token_s` is in seconds."
    )
    yield _usage(lab, longest)
    yield Question(
        f"After {longest.length} tokens of prompt, one of these has cost "
        f"{1000 * longest.first_s / longest.length:.2f} ms, a generated token "
        f"{1000 * longest.gap_s:.2f} ms. Why is a token of the prompt cheaper?",
        "The prompt is known, so that many positions share one pass over the weights",
        "To compute a position, every weight is read from memory and used. Positions of a prompt "
        "do not wait for each other's result: one pass over the weights serves many. A generated "
        "token must exist before the next one can be computed.",
        "Which of the prompt's tokens must wait until another one is chosen?",
        (
            "The prompt is known, so that many positions share one pass over the weights",
            "Tokens of a prompt are shorter",
            "The model reads only a part of the prompt",
        ),
    )
    yield (
        "That is also why a server computes many streams at once: one pass over the weights for 32 "
        "streams costs far less than 32 passes."
    )


def change(lab: Lab, given: str) -> Blocks:
    """Measure a prompt of the length that the learner says."""
    length = whole_number(given, 1, LONGEST)
    (timed,) = measure(lab, length)
    yield Table(COLUMNS, (timed.row,))
    yield _usage(lab, timed)
    budget = lab.config.step_tokens
    yield (
        f"The engine works in steps, of {budget} positions at most (`--step-tokens`). This prompt "
        f"took {-(-length // budget)} of them. In each, every other stream gets its token too: a "
        "long prompt makes others slower, and stops nobody."
    )


def _usage(lab: Lab, timed: Timed) -> Wire:
    """Return what the ledger says of a stream."""
    exchange = lab.exchange(get(f"/v1/usage/{timed.id}", "Connection: close"))
    return Wire(exchange.raw, fields=frozenset(), rows=6)


LESSON = Lesson(
    name="prefill",
    title="Prefill and decode: where the time goes",
    module="streamtok/engine/scheduler.py",
    show=show,
    invitation=f"How long should the prompt be, in tokens (1 to {LONGEST})?",
    default="300",
    change=change,
)
