"""Turns a step's logits into the next token of each sequence, or more where a guess was right.

Each token is drawn from the logits after the tokens before it, with the history, the seed and the
position it has, exactly as if it had been computed in a step of its own (speculative decoding, here
with equality instead of arXiv:2211.17192's rejection sampling, as every draw is reproducible). A
grammar is consulted at each position in turn, once the token before it is known, so that it never
has to be rewound.

Read next: `streamtok.engine.sampler`, which draws.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate

from msgspec.structs import replace

from streamtok.engine.plan import Drawn, Sample, Work
from streamtok.engine.sampler import ComputeLogprobs, Draw, sample
from streamtok.engine.sequence import Guide
from streamtok.engine.sequence import Sequence as Generated
from streamtok.errors import RequestError
from streamtok.messages import Constraint
from streamtok.model.weights import Array

StartGuide = Callable[[Constraint], Guide]  # raises InvalidRequest


def draw(
    logits: Array,
    works: Sequence[Work],
    start_guide: StartGuide | None = None,
    logprobs: ComputeLogprobs | None = None,
) -> list[Drawn]:
    """Draw the next tokens of each sampled one of `works`, whose rows of `logits` [., V] follow.

    `start_guide` is needed if one of them is constrained, `logprobs` if it reports them.
    """
    ends = accumulate(work.rows for work in works)
    last = [(work, end - 1) for work, end in zip(works, ends, strict=True) if work.sampled]
    sampled = [work for work, _ in last]
    first = [row - len(work.guess) for work, row in last]
    drawn: list[Drawn] = [[] for _ in sampled]
    going = list(range(len(sampled)))
    while going:
        draws = [_draw(sampled[i], drawn[i], start_guide) for i in going]
        able = [(i, draw) for i, draw in zip(going, draws, strict=True) if isinstance(draw, Draw)]
        rows = [first[i] + len(drawn[i]) for i, _ in able]
        chosen = logits if len(rows) == len(logits) else logits[rows]  # [able, V]
        tokens = iter(sample(chosen, [draw for _, draw in able], logprobs))
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


def _draw(work: Work, drawn: Drawn, start_guide: StartGuide | None) -> Draw | RequestError:
    """Return what the next token is drawn with; an error where its grammar fails."""
    request = work.sequence.request
    known, prompt = work.sequence.ids, len(request.prompt_ids)
    ids = [*known, *work.guess[: len(drawn)]] if drawn else known
    barred_ids = request.stop_ids if len(ids) - prompt < request.min_tokens else ()
    if request.constraint is None:
        return Draw(request.sampling, ids, prompt, barred_ids)
    try:
        if work.sequence.guide is None:
            work.sequence.guide = _start(work.sequence, request.constraint, start_guide)
        allowed = work.sequence.guide.allowed(barred_ids)
    except RequestError as error:
        return error
    return Draw(request.sampling, ids, prompt, allowed=allowed)


def _start(sequence: Generated, constraint: Constraint, start_guide: StartGuide | None) -> Guide:
    """Return the guide of `sequence`, advanced to the end of what is generated already."""
    assert start_guide is not None  # see EngineExtras.refusal
    guide = start_guide(constraint)
    for token_id in sequence.request.generated_ids:
        guide.take(token_id)
    return guide


def _take(work: Work, token: Sample | RequestError) -> Sample | RequestError:
    """Return `token` after the sequence's guide, if it has one, has gone on by it."""
    guide = work.sequence.guide
    if guide is None or isinstance(token, RequestError):
        return token
    try:
        return replace(token, completes=guide.take(token.token_id))
    except RequestError as error:
        return error
