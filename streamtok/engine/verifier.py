"""What a step's logits become: the next token of each sequence, and more where a guess was right.

Each token is drawn from the logits after the tokens before it, with the history, the seed and the
position it has, exactly as if it had been computed in a step of its own (speculative decoding, here
with equality instead of arXiv:2211.17192's rejection sampling, as every draw is reproducible).

Read next: `streamtok.engine.sampler`, which draws.
"""

from collections.abc import Sequence
from itertools import accumulate

from streamtok.engine.sampler import Draw, sample
from streamtok.engine.scheduler import Drawn, Sample, Work
from streamtok.model.weights import Array


def draw(logits: Array, works: Sequence[Work]) -> list[Drawn]:
    """Draw the next tokens of each sampled one of `works`, whose rows of `logits` [., V] follow."""
    ends = accumulate(work.rows for work in works)
    last = [(work, end - 1) for work, end in zip(works, ends, strict=True) if work.sampled]
    sampled = [work for work, _ in last]
    first = [row - len(work.guess) for work, row in last]
    drawn: list[Drawn] = [[] for _ in sampled]
    going = list(range(len(sampled)))
    while going:
        rows = [first[i] + len(drawn[i]) for i in going]
        chosen = logits if len(rows) == len(logits) else logits[rows]  # [going, V]
        draws = [_draw(sampled[i], drawn[i]) for i in going]
        for i, token in zip(going, sample(chosen, draws), strict=True):
            drawn[i].append(token)
        going = [i for i in going if _goes_on(sampled[i], drawn[i])]
    return drawn


def _goes_on(work: Work, drawn: Drawn) -> bool:
    """Whether the token drawn last was guessed, so that the row after it is of use."""
    token, place = drawn[-1], len(drawn) - 1
    guessed = place < len(work.guess)
    return guessed and isinstance(token, Sample) and token.token_id == work.guess[place]


def _draw(work: Work, drawn: Drawn) -> Draw:
    request = work.sequence.request
    generated_ids = [*work.sequence.generated_ids, *work.guess[: len(drawn)]]
    barred_ids = request.stop_ids if len(generated_ids) < request.min_tokens else ()
    return Draw(request.sampling, request.prompt_ids, generated_ids, barred_ids)
