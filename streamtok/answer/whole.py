"""A whole answer: the pieces of each choice put together, and the best choices found.

Read next: `streamtok.answer.dialect`, the same answer piece by piece.
"""

import math
from collections.abc import Sequence

from streamtok.answer.choice import Piece, tokens
from streamtok.answer.dialect import Pieces, Whole
from streamtok.answer.generation import Generation


async def whole(generation: Generation, dialect: Whole, choices: int, candidates: int) -> bytes:
    """Return the answer as JSON text, with the best `choices` of each prompt's `candidates`."""
    found: list[list[Piece]] = [[] for _ in generation.job.sequences]
    async for piece in generation:
        assert piece is not None  # there is no heartbeat without a stream
        found[piece.index].append(piece)
    kept: list[Pieces] = []
    for start in range(0, len(found), candidates):
        kept += best(found[start : start + candidates], choices)
    return await dialect.whole(kept)


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
