"""Prompt lookup decoding: guesses that a sequence continues as it did the last time. Pure.

Texts repeat themselves and their prompts, so the tokens that followed the last occurrence of the
latest n-gram are a guess for the next ones (speculative decoding without a draft model). A guess is
nearly free where its positions fill up a tile of the matrix products that would be padded with
zeros: three more positions took 6 % of a step of the shipped model. Where a grammar leaves no
choice, what it forces is the guess instead (`streamtok.engine.sequence`). No token changes:
`streamtok.engine.verifier` draws each as if there were no guess. It implements
`streamtok.engine.sequence.Drafter`.
"""

from collections.abc import Sequence

NGRAM = 2  # tokens that must have occurred before
MOST_PAUSE = 64  # steps


class PromptLookup:
    """Guesses for one sequence; after each wrong guess the pause until the next one doubles."""

    def __init__(self) -> None:
        self._followers: dict[tuple[int, ...], int] = {}  # tokens -> where they last went on
        self._indexed = NGRAM
        self._pause = 1  # steps, after the next wrong guess
        self._silent = 0  # steps to come

    def guess(self, ids: Sequence[int], most: int) -> tuple[int, ...]:
        """Return what may follow `ids`, `most` tokens or none; `ids` only ever grow."""
        if most <= 0 or self._silent:
            self._silent = max(0, self._silent - 1)
            return ()
        for end in range(self._indexed, len(ids)):
            self._followers[tuple(ids[end - NGRAM : end])] = end
        self._indexed = max(self._indexed, len(ids))
        place = self._followers.get(tuple(ids[-NGRAM:]))
        if place is None:
            return ()
        period = len(ids) - place  # what repeats itself may be shorter than the guess
        return tuple(ids[place + index % period] for index in range(most))

    def learn(self, right: int) -> None:
        """Take note of how many tokens of the last guess were right."""
        if right:
            self._pause = 1
        else:
            self._silent, self._pause = self._pause, min(2 * self._pause, MOST_PAUSE)
