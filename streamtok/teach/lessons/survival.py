"""Survival: the engine dies, and the stream goes on."""

from dataclasses import dataclass
from itertools import pairwise

from streamtok.teach.lessons.lab import Exchange, Lab, post
from streamtok.teach.lessons.lesson import Blocks, Lesson, Question, Table, Wire, whole_number

TOKENS, AFTER = 60, 20
FRAMING = frozenset({"content-type", "transfer-encoding"})
BODY = {
    "prompt": "Once upon a time",
    "max_tokens": TOKENS,
    "seed": 7,
    "ignore_eos": True,
    "stream": True,
}


@dataclass(frozen=True, slots=True)
class Pair:
    """The same request twice: left alone, and with the engine killed after `events` events."""

    whole: Exchange
    killed: Exchange
    events: int

    @property
    def is_same(self) -> bool:
        """Whether both clients got the same text, to the end."""
        return text_of(self.whole) == text_of(self.killed) and self.killed.answer.complete

    @property
    def table(self) -> Table:
        """What each client got."""
        rows = (("left alone", self.whole), (f"killed after {self.events} events", self.killed))
        return Table(
            ("engine", "tokens", "longest gap", "complete", "last words"),
            tuple(
                (
                    name,
                    str(len(exchange.stream.chunks) - 1),  # the last one says why it ended
                    f"{1000 * longest_gap_s(exchange):.0f} ms",
                    "yes" if exchange.answer.complete else "no",
                    repr(text_of(exchange)[-12:]),
                )
                for name, exchange in rows
            ),
        )


def text_of(exchange: Exchange) -> str:
    """Return the text of a stream."""
    return "".join(chunk["choices"][0]["text"] for chunk in exchange.stream.chunks)


def longest_gap_s(exchange: Exchange) -> float:
    """Return the longest time between two events, in seconds."""
    times = [block.at_s for block in exchange.stream.events]
    return max((after - before for before, after in pairwise(times)), default=0.0)


def run(lab: Lab, events: int) -> Pair:
    """Stream twice, and kill the engine's process in the middle of the second stream."""
    request = post("/v1/completions", BODY)
    whole = lab.exchange(request)
    with lab.connect() as talk:
        talk.send(request)
        talk.read(lambda raw: raw.count(b"data: ") >= events)
        lab.kill_engine()
        return Pair(whole, talk.read(), events)


def show(lab: Lab) -> Blocks:
    """Kill the process that computes, in mid-sentence."""
    pair = run(lab, AFTER)
    yield (
        "The model is computed in a process of its own, the engine. We ask for "
        f"{TOKENS} tokens, and ask again for the same. The second time, after {AFTER} events, we "
        "kill the engine with `kill -9`, which no program can prevent. This is what its client got:"
    )
    yield Wire(pair.killed.raw, fields=FRAMING, most=14)
    yield pair.table
    yield Question(
        "The first tokens, their keys and their values were in the memory of a process that is "
        "dead. How can the stream go on, with the very text of the first one?",
        "The tokens so far are given to a new engine, which computes what they lead to again",
        "A token is a function of weights, prompt, parameters, seed and position, and of nothing "
        "else: not of other streams, not of time. So the server starts a new engine, submits "
        "prompt and sent tokens as one text, and goes on behind them. Most servers end the stream "
        "with an error here, because their sums depend on what else is in the batch.",
        "What does the server still know, which process holds the connection?",
        (
            "The engine had written its memory to a file",
            "The tokens so far are given to a new engine, which computes what they lead to again",
            "The client has noticed it and asked again",
        ),
    )
    yield (
        "The gap is the time in which a new process starts and loads the weights. The client sees "
        "nothing else: no error, no second head, the same connection."
    )


def change(lab: Lab, given: str) -> Blocks:
    """Kill the engine at another moment."""
    pair = run(lab, whole_number(given, 1, TOKENS))
    yield pair.table
    yield Wire(pair.killed.raw, fields=FRAMING, most=8)
    yield (
        "The same text, to the last letter."
        if pair.is_same
        else "The texts differ: that is a fault of this server. Please report it."
    )


LESSON = Lesson(
    name="survival",
    title="Survival: the engine dies in mid-sentence",
    module="streamtok/engine/remote/process.py",
    show=show,
    invitation=f"Kill it after another number of events (1 to {TOKENS}).",
    default="3",
    change=change,
)
