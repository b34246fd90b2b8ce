"""Cancellation: a client that leaves."""

import json
import time

from streamtok.teach.lessons.lab import Exchange, Lab, get, post
from streamtok.teach.lessons.lesson import Blocks, Lesson, Question, Wire, whole_number

TOKENS, LEAVE_AFTER, MOST = 600, 5, 100
FRAMING = frozenset({"content-type", "transfer-encoding"})
POLL_S = 0.02
PATIENCE_S = 5.0  # until the ledger has the request


def leave(lab: Lab, events: int) -> tuple[Exchange, Exchange]:
    """Leave a long stream after some events; return what came, and what the ledger says."""
    body = {
        "prompt": "Once upon a time",
        "max_tokens": TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }
    with lab.connect() as talk:
        talk.send(post("/v1/completions", body))
        begun = talk.read(lambda raw: raw.count(b"data: ") >= events)
    name = begun.stream.chunks[0]["id"]
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        usage = lab.exchange(get(f"/v1/usage/{name}", "Connection: close"))
        if usage.answer.status == 200 or time.monotonic() > deadline_s:
            return begun, usage
        time.sleep(POLL_S)


def show(lab: Lab) -> Blocks:
    """Leave in the middle, and see what became of the request."""
    begun, usage = leave(lab, LEAVE_AFTER)
    yield (
        f"We ask for {TOKENS} tokens. After {LEAVE_AFTER} events we close the connection, as a "
        "browser does when its user closes the page."
    )
    yield Wire(begun.raw, fields=FRAMING, most=12)
    yield Question(
        f"Of the {TOKENS} tokens that were asked for, how many will the model compute?",
        "A few more than we read",
        "Nobody tells a server that a client has left: HTTP has no word for it. But a write to a "
        "connection that is closed is answered by a reset. Then the request is cancelled, before "
        "the engine's next step. What was under way by then is computed, and counted.",
        "Each token is computed just before it is sent.",
        (
            "All of them: it was asked to",
            "A few more than we read",
            f"Exactly the {LEAVE_AFTER} that we read",
        ),
    )
    yield "Each request is in a ledger, however it ended. This one, at `GET /v1/usage/{id}`:"
    yield Wire(usage.raw, fields=frozenset(), rows=6)
    yield _summary(usage)


def change(lab: Lab, given: str) -> Blocks:
    """Leave after another number of events."""
    begun, usage = leave(lab, whole_number(given, 1, MOST))
    yield Wire(usage.raw, fields=frozenset(), rows=6)
    count = len(begun.stream.chunks)
    yield f"We read {count} event{'s' if count > 1 else ''}. {_summary(usage)}"


def _summary(usage: Exchange) -> str:
    """Return what a record says, in words."""
    record = json.loads(usage.answer.body)
    return (
        f"`finish_reason` is `{record['finish_reason']}`: {record['generated_tokens']} tokens were "
        f"computed, {record['delivered_tokens']} written to the socket, and the other "
        f"{TOKENS - record['generated_tokens']} cost nothing."
    )


LESSON = Lesson(
    name="cancellation",
    title="Cancellation: a client that leaves",
    module="streamtok/answer/generation.py",
    show=show,
    invitation=f"After how many events should we leave (1 to {MOST})?",
    default="20",
    change=change,
)
