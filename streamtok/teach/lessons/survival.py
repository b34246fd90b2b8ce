"""Survival: the engine dies, and the stream goes on."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import Struct

from streamtok.teach.lessons.lab import PATIENCE_S, Exchange, Lab, Talk, get, post
from streamtok.teach.lessons.lesson import (
    Blocks,
    Lesson,
    Mistake,
    Question,
    Table,
    Wire,
    whole_number,
)

TOKENS, AFTER = 60, 20
MOST = 50  # events before the end
FRAMING = frozenset({"content-type", "transfer-encoding"})
BODY = {
    "prompt": "Once upon a time",
    "max_tokens": TOKENS,
    "seed": 7,
    "ignore_eos": True,
    "stream": True,
}


class Pair(Struct, frozen=True):
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


def run_server(lab: Lab, events: int) -> tuple[Exchange, Exchange]:
    """Kill a server in mid-stream, start it again, and ask it for the rest.

    It is another server than the lab's, in a process of its own, with a ledger in a file.
    """
    with TemporaryDirectory() as folder:
        ledger = str(Path(folder) / "usage.sqlite3")
        with _serving(lab, ledger) as process, _connected(process) as talk:
            talk.send(post("/v1/completions", BODY, "X-Resumable: 1"))
            begun = talk.read(lambda raw: raw.count(b"data: ") >= events)
            process.kill()
        chunks = begun.stream.chunks
        name = chunks[0]["id"]
        last = f"Last-Event-ID: {name}/{len(chunks)}"
        with _serving(lab, ledger) as process, _connected(process) as talk:
            talk.send(get(f"/v1/streams/{name}", last, "Connection: close"))
            return begun, talk.read()


@contextmanager
def _serving(lab: Lab, ledger: str) -> Iterator[subprocess.Popen[str]]:
    """Run `streamtok serve` for the length of the block; it has said that it is ready."""
    command = [sys.executable, "-m", "streamtok", "serve", "--port", "0", "--ledger", ledger]
    command += ["--log-level", "error", "--model", str(lab.config.model_folder)]
    command += ["--engine", "thread"]  # it dies with the server here
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def _connected(process: "subprocess.Popen[str]") -> Iterator[Talk]:
    """Connect to a server that says where it is."""
    assert process.stdout is not None
    port = int(process.stdout.readline().rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        yield Talk(connection)


def change(lab: Lab, given: str) -> Blocks:
    """Kill the engine, or the whole server, at another moment."""
    word, _, number = given.partition(" ")
    if word not in ("engine", "server"):
        raise Mistake(f"expected `engine` or `server` and a number, found {given!r}")
    events = whole_number(number, 1, MOST)
    if word == "engine":
        pair = run(lab, events)
        yield pair.table
        yield Wire(pair.killed.raw, fields=FRAMING, most=8)
        yield _verdict(pair.is_same)
        return
    whole = lab.exchange(post("/v1/completions", BODY))
    begun, rest = run_server(lab, events)
    yield (
        "The connection is cut with the server. But the client has the id of the last event, and "
        "the ledger had the request before the first byte left. A new server is asked for the rest:"
    )
    yield Wire(rest.sent, sent=True)
    yield Wire(rest.raw, fields=FRAMING, most=12)
    text = text_of(begun) + text_of(rest)
    yield f"{len(begun.stream.chunks)} events before, {len(rest.stream.chunks)} after the crash."
    yield _verdict(text == text_of(whole) and rest.answer.complete)


def _verdict(same: bool) -> str:
    return (
        "The same text, to the last letter."
        if same
        else "The texts differ: that is a fault of this server. Please report it."
    )


LESSON = Lesson(
    name="survival",
    title="Survival: the engine dies in mid-sentence",
    module="streamtok/engine/remote/process.py",
    show=show,
    invitation=(
        f"Kill the `engine`, or the whole `server`, after a number of events (1 to {MOST}), such "
        "as `server 10`."
    ),
    default="server 10",
    change=change,
)
