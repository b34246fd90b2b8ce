"""The KV cache: what it costs and what it saves."""

from time import perf_counter

from streamtok.model.config import ModelConfig
from streamtok.teach.lessons.lab import Exchange, Lab, post
from streamtok.teach.lessons.lesson import Blocks, Lesson, Question, Table, Wire, whole_number

LENGTH, TOKENS = 160, 8  # of the prompt, and to generate
LONGEST = 1000
FLOAT_BYTES = 4


def token_bytes(model: ModelConfig) -> int:
    """Return how many bytes the keys and values of one position take."""
    return 2 * model.layers * model.kv_heads * model.head_dim * FLOAT_BYTES


def measure(lab: Lab, length: int) -> tuple[Exchange, Table]:
    """Time the same number of tokens with what was computed before, and without.

    Returns the request that kept it, and the times.
    """
    begun_s = perf_counter()
    kept = _generate(lab, length, TOKENS)
    kept_s = perf_counter() - begun_s
    begun_s = perf_counter()
    for more in range(TOKENS):
        _generate(lab, length + more, 1)
    anew_s = perf_counter() - begun_s
    positions = sum(range(length, length + TOKENS))
    table = Table(
        ("", "positions computed", f"time for {TOKENS} tokens"),
        (
            ("keys and values kept", str(length + TOKENS - 1), f"{1000 * kept_s:.0f} ms"),
            ("all computed anew", str(positions), f"{1000 * anew_s:.0f} ms"),
        ),
    )
    return kept, table


def show(lab: Lab) -> Blocks:
    """Generate with and without, and compute the price."""
    model = lab.model
    yield (
        "In each layer a position looks back at all before it: it compares its query with their "
        "keys, and gathers from their values. Keys and values of a position never change when text "
        "is added. So they are kept: the KV cache."
    )
    yield (
        f"What if they were not? We ask for {TOKENS} tokens after a prompt of {LENGTH}: once in "
        f"one request, and once as {TOKENS} requests of one token, each with a prompt longer by "
        "one, so that all is computed again. (Each is another text, so that the server cannot know "
        "a part of it already.)"
    )
    kept, table = measure(lab, LENGTH)
    yield "What the one request was answered (its end says what it used):"
    yield Wire(kept.answer.body, rows=2)
    yield table
    sizes = f"{model.layers} layers, {model.kv_heads} key-value heads, {model.head_dim} numbers"
    each = token_bytes(model)
    yield (
        f"The cache costs memory. This model has {sizes} in each head, and keeps every number in "
        f"{FLOAT_BYTES} bytes."
    )
    yield Question(
        "How many bytes does the cache need for one token, keys and values together?",
        str(each),
        f"2 x {model.layers} x {model.kv_heads} x {model.head_dim} x {FLOAT_BYTES} = {each:,} "
        f"bytes. A whole context of {model.context:,} tokens takes "
        f"{each * model.context / 2**20:.1f} MiB, and each stream has its own: memory, more than "
        "arithmetic, limits how many streams a server can hold.",
        "Keys and values: twice the layers, times heads, times numbers, times bytes.",
    )


def change(lab: Lab, given: str) -> Blocks:
    """Measure a prompt of the length that the learner says."""
    length = whole_number(given, 1, LONGEST)
    yield measure(lab, length)[1]
    mib = token_bytes(lab.model) * (length + TOKENS) / 2**20
    yield (
        f"The cache of this text takes {mib:.2f} MiB. The longer the text, the more it saves: with "
        "it, work grows as the text does; without it, as the text's square."
    )


def _generate(lab: Lab, length: int, tokens: int) -> Exchange:
    """Have so many tokens made after a new prompt."""
    asked = {"prompt": lab.new_ids(length), "max_tokens": tokens, "ignore_eos": True}
    return lab.exchange(post("/v1/completions", asked))


LESSON = Lesson(
    name="cache",
    title="The KV cache: what it costs and saves",
    module="streamtok/model/attention.py",
    show=show,
    invitation=f"Try it with a prompt of another length (1 to {LONGEST} tokens).",
    default="40",
    change=change,
)
