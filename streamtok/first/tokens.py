"""A real answer: score every token of the vocabulary, choose one, append it, repeat.

A language model is a function from token ids to a score for each token that may come next. The loop
around it is all of generation: the tokenizer turns the prompt into ids, `logits` scores, a sampler
chooses, and the ids become text again. At temperature 0 the highest score wins. Otherwise a token
is drawn with the probability that its score stands for, by a number that depends on the seed and
the position only, so that the same request always gets the same text.

Uses the reference model and what loads its weights, the tokenizer, and `uniform` of the sampler;
the connection is that of `streamtok.first.framing`.

What this does not do: it computes the whole text again for every token (`streamtok.model.decoder`
keeps keys and values) and decodes it again (`streamtok.text.detokenizer`); it knows no stop strings
(`streamtok.text.stops`) and few parameters (`streamtok.engine.sampler`); all other clients wait
while it computes. Read next: `streamtok.first.queue`, which computes in a thread.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from functools import partial

import numpy as np

from streamtok.engine.sampler import uniform
from streamtok.first import FOLDER
from streamtok.first.chunks import serve
from streamtok.first.events import Fields, Piece
from streamtok.first.framing import converse
from streamtok.model.load import read_weights
from streamtok.model.reference import Float, logits, softmax
from streamtok.text.tokenizer import Tokenizer

Generate = Callable[[list[int], Fields], AsyncGenerator[int, None]]


class Model:
    """The shipped model: its configuration, and its tensors by name."""

    def __init__(self) -> None:
        self.config, self.weights = read_weights(FOLDER)

    async def generate(self, ids: list[int], asked: Fields) -> AsyncGenerator[int, None]:
        """Continue `ids` by one token after the other."""
        for position in range(asked.max_tokens):
            scores = logits(self.config, self.weights, ids)[-1]  # [V]: after the last token
            ids = [*ids, choose(scores, asked, position)]
            yield ids[-1]
            await asyncio.sleep(0)  # the event loop's turn to look at its other clients


def choose(scores: Float, asked: Fields, position: int) -> int:
    """Return the token drawn from `scores` [V]; seed and position decide the draw."""
    if asked.temperature == 0:
        return int(scores.argmax())
    reached = np.cumsum(softmax(scores / np.float32(asked.temperature)), dtype=np.float64)  # [V]
    at = uniform(asked.seed, position)  # in [0, 1)
    return int(np.searchsorted(reached, at * reached[-1], side="right"))


async def pieces(
    generate: Generate, tokenizer: Tokenizer, asked: Fields
) -> AsyncGenerator[Piece, None]:
    """Yield the text that is generated, never a part of a character; at last, why it ended."""
    ids: list[int] = []
    sent, reason = "", "length"
    async with aclosing(generate([*tokenizer.encode(asked.prompt, special=True)], asked)) as tokens:
        async for token in tokens:
            if token in tokenizer.stop_ids:  # the model's way to say that its text is complete
                reason = "stop"
                break
            ids.append(token)
            text = tokenizer.decode(ids).rstrip("\ufffd")  # bytes that need those of more tokens
            if text != sent:
                yield text[len(sent) :], None
                sent = text
    if rest := tokenizer.decode(ids)[len(sent) :]:
        yield rest, None
    yield "", reason


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        respond = partial(pieces, Model().generate, Tokenizer(FOLDER))
        asyncio.run(serve(partial(converse, respond)))
