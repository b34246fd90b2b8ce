"""Tokens, and how they become text again."""

from typing import Any

from streamtok.teach.lessons.lab import Lab, post
from streamtok.teach.lessons.lesson import Blocks, Lesson, Mistake, Question, Table, Wire

TEXT = "The fox \U0001f98a smiled."
ANIMAL = "\U0001f98a"
FRAMING = frozenset({"content-type", "transfer-encoding"})
# With a penalty for what has occurred, these let the model say tokens in a given order.
BIASES = (100, 85, 70, 55)


def table(tokens: list[dict[str, Any]]) -> Table:
    """Return tokens with their bytes."""
    return Table(
        ("id", "bytes", "text"), tuple(_row(token["id"], token["piece"]) for token in tokens)
    )


def _row(token_id: int, piece: str | list[int]) -> tuple[str, str, str]:
    if isinstance(piece, str):
        return str(token_id), piece.encode().hex(" "), repr(piece)
    return str(token_id), bytes(piece).hex(" "), "(part of a character)"


def show(lab: Lab) -> Blocks:
    """See the tokens of a text, and what a stream makes of a character in several tokens."""
    asked = {"content": TEXT, "with_pieces": True}
    exchange = lab.exchange(post("/tokenize", asked))
    yield (
        "A model reads and writes numbers. Each stands for a piece of text, a token; this model "
        f"knows {lab.model.vocab} of them. A tokenizer cuts text into tokens:"
    )
    yield Wire(exchange.sent, sent=True, fields=frozenset())
    yield Wire(exchange.raw, fields=frozenset(), rows=5)
    yield table(lab.ask("/tokenize", asked)["tokens"])
    ids = lab.ask("/tokenize", {"content": ANIMAL})["tokens"]
    first = ANIMAL.encode()[:1].hex()
    yield (
        f"There is no token for the fox's face. Its character is {len(ANIMAL.encode())} bytes in "
        f"UTF-8 (RFC 3629), and takes {len(ids)} tokens."
    )
    yield Question(
        f"Now the model is made to say that character, one token a step, streamed. After the first "
        f"step the server has the byte {first} and nothing else. What does it send?",
        "Nothing yet",
        f"{first} announces a character of {len(ANIMAL.encode())} bytes. Half a character is no "
        "text, and JSON cannot hold it. So the server keeps bytes back until the character is "
        "complete, and then sends them at once. What never becomes a character is sent as U+FFFD "
        "in the end.",
        "The client decodes UTF-8. What could it do with that byte?",
        (f"The byte {first}", "Nothing yet", "U+FFFD, the sign for what is no character"),
    )
    yield Wire(_forced(lab, ids).raw, fields=FRAMING)
    yield f"{len(ids)} tokens, and one chunk."


def change(lab: Lab, given: str) -> Blocks:
    """Cut a text of the learner's into tokens."""
    if len(given) > 60:
        raise Mistake("expected up to 60 characters")
    tokens = lab.ask("/tokenize", {"content": given, "with_pieces": True})["tokens"]
    yield table(tokens)
    yield (
        f"{len(given)} characters, {len(given.encode())} bytes in UTF-8, {len(tokens)} tokens. "
        "What was frequent in the texts that the tokenizer was made from takes few tokens."
    )


def _forced(lab: Lab, ids: list[int]) -> Any:
    """Return a stream of bare text in which the model says `ids` in this order."""
    body = {
        "prompt": "The animal is a",
        "max_tokens": len(ids),
        "temperature": 0,
        "logit_bias": {str(token): bias for token, bias in zip(ids, BIASES, strict=True)},
        "repetition_penalty": 10,
        "stream": True,
    }
    return lab.exchange(post("/v1/completions", body, "Accept: text/plain"))


LESSON = Lesson(
    name="tokens",
    title="Tokens, and text again",
    module="streamtok/text/detokenizer.py",
    show=show,
    invitation="Type a text, with foreign letters or pictures if you like, and see its tokens.",
    default="Z\u00fcrich is a town. Zurich too.",
    change=change,
)
