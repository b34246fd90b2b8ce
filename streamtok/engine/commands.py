"""Commands to an engine, what it says of itself, and the bounds of the queues between. Plain values
without numpy and asyncio: neither server nor engine imports here what the other needs.

Read next: `streamtok.engine.base`, the protocol these values belong to.
"""

from msgspec import Struct

from streamtok.messages import Event, Failed, Finished, SequenceRequest

HIGH_WATER = 64  # unread events of a request above which its sequences are paused
LOW_WATER = 16  # unread events at which they go on
READ_EVERY = 16  # events after which a Read command goes to the engine; not above LOW_WATER
STEP_TOKENS = 8  # that one step may add to one sequence, where guesses were right
STEP_EVENTS = STEP_TOKENS + 8  # besides: its start, scores of its prompt, its end, a heartbeat
ENDS = (Finished, Failed)
Addressed = tuple[str, Event]  # the id of the request that the event is for


class Submit(Struct, frozen=True):
    """Queue the sequences of a request. A request is submitted once."""

    request_id: str
    sequences: tuple[SequenceRequest, ...]


class Cancel(Struct, frozen=True):
    """End a request, or one of its sequences."""

    request_id: str
    index: int | None


class Read(Struct, frozen=True):
    """The reader of a request has taken `count` of its events in total."""

    request_id: str
    count: int


class Close(Struct, frozen=True):
    """Stop: what still runs or waits ends with Failed(Unavailable)."""


Command = Submit | Cancel | Read | Close


class EngineInfo(Struct, frozen=True):
    """What a server needs to know about its engine; see `streamtok.engine.base.Engine`.

    `room` is how many sequences may run and wait. `exact` says that a sequence's tokens are the
    same bit for bit in any batch, so that another engine can continue it.
    """

    context: int
    vocab: int
    width: int
    streams: int
    room: int
    fingerprint: str
    exact: bool
