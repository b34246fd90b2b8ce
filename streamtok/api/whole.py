"""A whole answer: the pieces of each choice put together, and the best choices found.

Read next: `streamtok.api.streaming`, the same answer piece by piece.
"""

import math
from collections.abc import Sequence
from contextlib import aclosing

from streamtok.api import answers
from streamtok.api.answers import Envelope
from streamtok.api.choice import Piece, tokens
from streamtok.api.generation import Generation
from streamtok.api.streaming import Shape, usage

Pieces = Sequence[Piece]  # of one choice, in order


async def whole(
    generation: Generation, shape: Shape, envelope: Envelope, choices: int, candidates: int
) -> bytes:
    """Return the answer as JSON text, with the best `choices` of each prompt's `candidates`."""
    found: list[list[Piece]] = [[] for _ in generation.job.sequences]
    async with aclosing(generation.pieces()) as stream:
        async for piece in stream:
            assert piece is not None  # there is no heartbeat without a stream
            found[piece.index].append(piece)
    kept: list[Pieces] = []
    for start in range(0, len(found), candidates):
        kept += best(found[start : start + candidates], choices)
    envelope.choices = [shape.choice(index, pieces) for index, pieces in enumerate(kept)]
    envelope.prompt_token_ids = shape.prompt_token_ids
    envelope.usage = usage(generation)
    return answers.encode(envelope)


def best(candidates: Sequence[Pieces], choices: int) -> Sequence[Pieces]:
    """Return the `choices` with the highest log-probability per token, the highest first.

    Where all are wanted they stay in order.
    """
    if choices == len(candidates):
        return candidates
    return sorted(candidates, key=_mean_logprob, reverse=True)[:choices]


def _mean_logprob(pieces: Pieces) -> float:
    """Return the mean over the generated tokens; an answer without any is the last resort."""
    generated = tokens(piece for piece in pieces if not piece.is_prompt)
    logprobs = [token.logprobs.logprob for token in generated if token.logprobs]
    return sum(logprobs) / len(logprobs) if logprobs else -math.inf
