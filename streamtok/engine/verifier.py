"""What a step's logits become: the next token of each sequence, and more where a guess was right.

Each token is drawn from the logits after the tokens before it, with the history, the seed and the
position it has, exactly as if it had been computed in a step of its own (speculative decoding, here
with equality instead of arXiv:2211.17192's rejection sampling, as every draw is reproducible). What
a grammar allows is asked at each position in turn, once the token before it is known, so that it
never has to be taken back.

Read next: `streamtok.engine.sampler`, which draws.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from streamtok.engine.extras.grammars import Grammars, Guide
from streamtok.engine.sampler import Draw, sample
from streamtok.engine.scheduler import Drawn, Sample, Work
from streamtok.errors import RequestError
from streamtok.messages import Constraint
from streamtok.model.weights import Array


def draw(logits: Array, works: Sequence[Work], grammars: Grammars | None = None) -> list[Drawn]:
    """Draw the next tokens of each sampled one of `works`, whose rows of `logits` [., V] follow.

    `grammars` is needed where one of them is constrained.
    """
    ends = accumulate(work.rows for work in works)
    last = [(work, end - 1) for work, end in zip(works, ends, strict=True) if work.sampled]
    sampled = [work for work, _ in last]
    first = [row - len(work.guess) for work, row in last]
    drawn: list[Drawn] = [[] for _ in sampled]
    going = list(range(len(sampled)))
    while going:
        draws = [_draw(sampled[i], drawn[i], grammars) for i in going]
        able = [(i, draw) for i, draw in zip(going, draws, strict=True) if isinstance(draw, Draw)]
        rows = [first[i] + len(drawn[i]) for i, _ in able]
        chosen = logits if len(rows) == len(logits) else logits[rows]  # [able, V]
        tokens = iter(sample(chosen, [draw for _, draw in able]))
        for i, draw in zip(going, draws, strict=True):
            drawn[i].append(_take(sampled[i], next(tokens)) if isinstance(draw, Draw) else draw)
        going = [i for i in going if _goes_on(sampled[i], drawn[i])]
    return drawn


def _goes_on(work: Work, drawn: Drawn) -> bool:
    """Whether the token drawn last was guessed, so that the row after it is of use."""
    token, place = drawn[-1], len(drawn) - 1
    if place == len(work.guess) or isinstance(token, RequestError) or token.completes:
        return False
    return token.token_id == work.guess[place]


def _draw(work: Work, drawn: Drawn, grammars: Grammars | None) -> Draw | RequestError:
    """Return what the next token is drawn with; an error where its grammar cannot tell."""
    request = work.sequence.request
    known, prompt = work.sequence.ids, len(request.prompt_ids)
    ids = [*known, *work.guess[: len(drawn)]] if drawn else known
    barred_ids = request.stop_ids if len(ids) - prompt < request.min_tokens else ()
    if request.constraint is None:
        return Draw(request.sampling, ids, prompt, barred_ids)
    try:
        guide = work.sequence.guide = work.sequence.guide or _start(request.constraint, grammars)
        allowed = guide.allowed(barred_ids)
    except RequestError as error:
        return error
    return Draw(request.sampling, ids, prompt, allowed=allowed)


def _start(constraint: Constraint, grammars: Grammars | None) -> Guide:
    assert grammars is not None, "the edge lets no constraint pass without the library"
    return grammars.start(constraint)


def _take(work: Work, token: Sample | RequestError) -> Sample | RequestError:
    """Return `token` after the sequence's guide, if it has one, has gone on by it."""
    guide = work.sequence.guide
    if guide is None or isinstance(token, RequestError):
        return token
    try:
        return replace(token, completes=guide.take(token.token_id))
    except RequestError as error:
        return error
