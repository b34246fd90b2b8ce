"""The tracer's interface: what the serving path reports.

With tracing off there is no `Trace`, so that each step costs one `is None` test. The steps of a
request that generates, each reported when it is done:

    parse       the request is complete
    admit       key and limits let it pass
    tokenize    the prompt is token ids
    queue       the engine has it
    start       a sequence has left the queue
    prefill     its prompt is computed
    token       it has a token more
    chunk       a chunk is about to be written
    end         it has ended
    finish      the answer is complete

The room `streamtok.observe` implements it.

Read next: `streamtok.errors`.
"""

from typing import Any, Literal, Protocol

from streamtok.http.transport import ByteStream, SocketStream

StepName = Literal[
    "parse",
    "admit",
    "tokenize",
    "queue",
    "start",
    "prefill",
    "token",
    "chunk",
    "end",
    "finish",
]


class Trace(Protocol):
    """Receives the steps of the requests on one connection."""

    def step(self, name: StepName, **facts: Any) -> None:
        """Report that a step is done, with what is known about it."""


class Tracer(Protocol):
    """Begins a trace for each connection."""

    def tap(self, stream: SocketStream) -> tuple[ByteStream, Trace]:
        """Return a stream that records what passes through `stream`, and its trace."""
