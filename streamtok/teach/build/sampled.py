"""Exercise 4: sampling, and stop strings."""

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from streamtok.teach.build.exercise import Exercise, Wrong, check, shown
from streamtok.teach.build.model_kit import ANSWERS, PROBABILITIES, STOP
from streamtok.teach.build.program import Program, serving
from streamtok.teach.build.wire import ask, get, read_chunks, read_head

DRAWS = 200
CLOSE = 0.02  # shares of draws that are spread evenly
NAMES = "abcde"
Shares = tuple[float, ...]


def grade(file: Path) -> Iterator[str]:
    """Ask for draws of a token whose probabilities are known, and for answers with stop strings."""
    with serving(file) as program:
        yield from _grade_sampling(program)
        yield from _grade_stops(program)


def _grade_sampling(program: Program) -> Iterator[str]:
    greedy = shares(program, 0, 1)
    check(greedy[0] == 1, f"at temperature 0 the highest score always wins: {_table(greedy)}")
    yield "temperature 0 takes the highest score"
    first, second = (draws(program, 1, 1) for _ in range(2))
    check(
        first == second,
        "the same request gave other tokens: draw by the number `uniform` alone, so that a seed "
        "gives the same answer again",
    )
    plain = shares(program, 1, 1)
    check(
        plain != greedy,
        "at temperature 1 every draw is the highest score: draw by the number `uniform`",
    )
    check(_near(plain, PROBABILITIES), _expected("temperature 1", PROBABILITIES, plain))
    yield "temperature 1 draws by the probabilities, and the same number draws the same token"
    _check_temperature(shares(program, 2, 1))
    yield "a higher temperature makes them more equal"
    _check_top_p(shares(program, 1, 0.6))
    check(
        shares(program, 1, 0.1)[0] == 1,
        "with a top_p below the likeliest token's probability that token remains: never none",
    )
    yield "top_p keeps the fewest likely tokens that reach it together"


def _check_temperature(found: Shares) -> None:
    right = tempered(2)
    check(
        not _near(found, tempered(0.5)),
        "temperature 2 made the likely tokens likelier: scores are divided by the temperature, not "
        "multiplied",
    )
    check(
        not _near(found, PROBABILITIES),
        "temperature 2 draws as temperature 1: divide the scores, before softmax",
    )
    check(_near(found, right), _expected("temperature 2", right, found))


def _check_top_p(found: Shares) -> None:
    right = (2 / 3, 1 / 3, 0.0, 0.0, 0.0)
    check(
        found[0] < 1,
        "with top_p 0.6 only the token of probability 0.5 was drawn: the one that reaches 0.6 "
        "belongs to those that are kept",
    )
    check(not _near(found, PROBABILITIES), "top_p 0.6 changed nothing: unlikely tokens were drawn")
    check(
        found[2] == 0,
        "with top_p 0.6 a third token was drawn: 0.5 and 0.25 together reach it already",
    )
    check(_near(found, right), _expected("top_p 0.6", right, found))


def _grade_stops(program: Program) -> Iterator[str]:
    texts, _ = answer(program, "plain")
    check(
        "".join(texts) == "".join(ANSWERS["plain"]),
        f"an answer without a stop string lost or gained text: {shown(''.join(texts))}",
    )
    check(
        len(texts) > 3,
        "the whole text came in one piece: hold back only what may be the beginning of a stop "
        "string, and release the rest at once",
    )
    yield "text without a stop string is released at once"
    texts, taken = answer(program, "stop")
    text, right = "".join(texts), "The ending is: "
    check(
        STOP not in text,
        f"the text goes on beyond the stop string {STOP!r}, which came in two tokens, `ST` and "
        "`OP`: look for it in the text, not in each token",
    )
    check(
        not text.endswith("ST"),
        "`ST` was sent before it was clear that `OP` follows: hold back an end of the text that "
        "begins a stop string",
    )
    check(text == right, f"up to the stop string the text is {shown(right)}, yours {shown(text)}")
    check(
        taken <= 5,
        "after the stop string more tokens were taken: each costs the model a computation",
    )
    yield "a stop string in two tokens ends the answer, and nothing of it is sent"
    texts, _ = answer(program, "almost")
    text, right = "".join(texts), "".join(ANSWERS["almost"])
    check(
        text != right.removesuffix("S"),
        "the answer ended with an `S` that was held back and never sent: at the end, release it",
    )
    check(text == right, f"`START` is no stop string: expected {shown(right)}, got {shown(text)}")
    yield "what only looked like one is sent after all, at the end too"


def draws(program: Program, temperature: float, top_p: float) -> list[int]:
    """Return the tokens that were drawn. Raises Wrong."""
    rows = _ask(program, f"/?model=dice&draws={DRAWS}&temperature={temperature}&top_p={top_p}")
    chosen = [row["chosen"] for row in rows]
    check(
        set(chosen) <= set(range(len(PROBABILITIES))),
        f"choose returns the index of a score, found {shown(str(chosen))}",
    )
    return chosen


def shares(program: Program, temperature: float, top_p: float) -> Shares:
    """Return how often each token was drawn, of 1. Raises Wrong."""
    chosen = Counter(draws(program, temperature, top_p))
    return tuple(chosen[index] / DRAWS for index in range(len(PROBABILITIES)))


def answer(program: Program, model: str) -> tuple[list[str], int]:
    """Return the texts of an answer, and how many tokens were taken. Raises Wrong."""
    *rows, last = _ask(program, f"/?model={model}")
    return [row["text"] for row in rows if row["text"]], int(last["taken"])


def _ask(program: Program, target: str) -> list[dict[str, Any]]:
    response = ask(program, get(program, target))
    _, start = read_head(response.raw)
    body = b"".join(data for _, data in read_chunks(response.raw, start))
    rows = [json.loads(line) for line in body.splitlines()]
    for row in rows:
        if "error" in row:
            zero = " (at temperature 0 there is nothing to divide by)"
            hint = zero if "ZeroDivision" in row["error"] else ""
            raise Wrong(f"for {target} your code raised {row['error']}{hint}")
    return rows


def tempered(temperature: float) -> Shares:
    """Return the probabilities at a temperature."""
    weights = [math.exp(math.log(p) / temperature) for p in PROBABILITIES]
    return tuple(weight / sum(weights) for weight in weights)


def _near(one: Shares, other: Shares) -> bool:
    return all(abs(a - b) <= CLOSE for a, b in zip(one, other, strict=True))


def _expected(what: str, right: Shares, found: Shares) -> str:
    return f"at {what} the shares of draws are {_table(right)}; yours: {_table(found)}"


def _table(found: Shares) -> str:
    return ", ".join(f"{name} {share:.2f}" for name, share in zip(NAMES, found, strict=True))


EXERCISE = Exercise(
    name="sampled",
    title="Sampling, and stop strings",
    task=(
        "Write `choose` and `released`. `choose` draws one token from scores: temperature 0 takes "
        "the highest, otherwise probabilities are softmax(score / temperature), top_p keeps the "
        "fewest likely tokens that together reach it, and `uniform` (0 to 1) decides. `released` "
        "yields text as early as it can, ends before the stop string, and never sends a part of it."
    ),
    hints=(
        (
            "Sort the tokens by probability, add up until top_p is reached, and keep those. Then "
            "walk along their running sums until `uniform` times their total is passed."
        ),
        (
            "Keep what is not sent in a buffer. If the stop string is in it, send what is before, "
            "and return. Otherwise an end of the buffer may begin a stop string: hold back the "
            "longest one."
        ),
        "When the tokens end, what is held back is text after all.",
    ),
    real=(
        "llama.cpp's server lost the end of a text while it looked for a stop string "
        "(ggml-org/llama.cpp #9867), kept a held-back beginning at the end of the text (#15007), "
        "and for a time overlooked stop strings of several tokens (#11538)."
    ),
    grade=grade,
)
