"""Sampling: from scores to a token."""

import json
from collections import Counter
from math import exp, log
from typing import Any

from streamtok.teach.lessons.lab import Lab, post
from streamtok.teach.lessons.lesson import Blocks, Lesson, Mistake, Question, Table, Wire

PROMPT = "The fox saw a"
DRAWS = 48
NEUTRAL = {"temperature": 1, "top_p": 1, "min_p": 0}
THRESHOLDS = (0.05, 0.08, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
PARAMETERS = ("temperature", "top_p", "top_k", "min_p", "seed")


def shares(lab: Lab) -> tuple[bytes, dict[str, float]]:
    """Return an answer with log-probabilities, and the five likeliest tokens with their shares."""
    asked = {"prompt": PROMPT, "max_tokens": 1, "logprobs": 5, "seed": 1, **NEUTRAL}
    exchange = lab.exchange(post("/v1/completions", asked))
    top = json.loads(exchange.answer.body)["choices"][0]["logprobs"]["top_logprobs"][0]
    # The token that was drawn is listed too, wherever it ranks
    likeliest = sorted(top, key=top.__getitem__, reverse=True)[:5]
    return exchange.raw, {token: exp(top[token]) for token in likeliest}


def threshold(found: dict[str, float]) -> float:
    """Return a `min_p` that drops some tokens and keeps some, and that none is near to."""
    ratios = [share / max(found.values()) for share in found.values()]
    parting = [least for least in THRESHOLDS if min(ratios) < least] or THRESHOLDS
    return max(parting, key=lambda least: min(abs(log(ratio / least)) for ratio in ratios))


def draw(lab: Lab, **parameters: Any) -> Counter[str]:
    """Return how often each token came in many draws.

    Raises:
        Mistake: the server refuses the parameters; says why.
    """
    asked = {"prompt": PROMPT, "max_tokens": 1, "n": DRAWS, "seed": 1, **NEUTRAL, **parameters}
    answer = lab.ask("/v1/completions", asked)
    if "error" in answer:
        raise Mistake(answer["error"]["message"])
    return Counter(choice["text"] for choice in answer["choices"])


def show(lab: Lab) -> Blocks:
    """See scores, and what is drawn from them."""
    raw, found = shares(lab)
    yield (
        "For each step the model gives every token of its vocabulary a score, a logit. Softmax "
        "makes shares of them that sum to 1, and one token is drawn by lot, each as likely as its "
        f"share is large. With `logprobs` the answer holds the logarithms of shares. After "
        f"`{PROMPT}`:"
    )
    yield Wire(raw, fields=frozenset(), rows=8)
    yield Table(
        ("token", "logprob", "share = e^logprob"),
        tuple((repr(token), f"{log(share):.3f}", f"{share:.1%}") for token, share in found.items()),
    )
    yield (
        "First, logits are divided by `temperature`: below 1 the likely get likelier, at 0 the "
        "likeliest is always taken. `min_p` 0.1 drops tokens less than a tenth as likely as the "
        "likeliest; `top_p` 0.9 keeps the likeliest that together reach nine tenths. "
        f"{DRAWS} draws each:"
    )
    yield _drawn(found, {f"temperature {t}": draw(lab, temperature=t) for t in (0, 0.5, 1)})
    least = threshold(found)
    limit = least * max(found.values())
    kept = sum(share >= limit for share in found.values())
    yield Question(
        f"With `min_p` {least} (and temperature 1), how many of these five tokens can still be "
        "drawn?",
        str(kept),
        f"{least} times {max(found.values()):.1%} is {limit:.1%}; {kept} of the five reach that. "
        "Where the model is sure few tokens are left, where it is not many are.",
        f"Compare each share with {least} times the largest one.",
    )


def change(lab: Lab, given: str) -> Blocks:
    """Draw with the parameters that the learner says."""
    yield _drawn(shares(lab)[1], {given: draw(lab, **_parameters(given))})
    yield (
        "The same seed gives the same draws: a token's lot depends on the seed and its position, "
        "and on nothing else that is being served."
    )


def _drawn(likely: dict[str, float], counts: dict[str, Counter[str]]) -> Table:
    """Return how often each of the `likely` tokens was drawn, and how often any other."""
    rows = [(repr(token), *(_bar(count[token]) for count in counts.values())) for token in likely]
    others = [sum(count.values()) - sum(count[t] for t in likely) for count in counts.values()]
    return Table(("token", *counts), (*rows, ("all others", *map(_bar, others))))


def _bar(count: int) -> str:
    return f"{count:>2} {'#' * round(14 * count / DRAWS)}"


def _parameters(given: str) -> dict[str, Any]:
    """Return `name=value` words as a request has them."""
    found = {}
    for word in given.split():
        name, _, value = word.partition("=")
        try:
            found[name] = json.loads(value)
        except ValueError as error:
            raise Mistake(f"{word}: expected a name, =, and a number") from error
    if unknown := found.keys() - set(PARAMETERS):
        raise Mistake(f"{min(unknown)}: expected one of {', '.join(PARAMETERS)}")
    return found


LESSON = Lesson(
    name="sampling",
    title="Sampling: from scores to a token",
    module="streamtok/engine/sampler.py",
    show=show,
    invitation=(
        "Choose parameters yourself, such as `temperature=2 top_p=0.5`. Others are `min_p`, "
        "`top_k` (so many of the likeliest) and `seed`."
    ),
    default="temperature=1.5 top_p=0.3",
    change=change,
)
