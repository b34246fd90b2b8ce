"""The steps of a generation in a request's trace; see `streamtok.http.tracer`.

Read next: `streamtok.answer.meter`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from streamtok.answer.ask import Ask
from streamtok.http.tracer import Trace
from streamtok.messages import (
    Event,
    Failed,
    Prefilled,
    SequenceRequest,
    Started,
    TokenEvent,
    Waiting,
)


def record(trace: Trace, event: Event | Waiting) -> None:
    """Record an event that the engine has sent."""
    if isinstance(event, TokenEvent):
        trace.step("token", index=event.index, id=event.token_id)
    elif isinstance(event, Started):
        trace.step("start", index=event.index)
    elif isinstance(event, Prefilled):
        trace.step("prefill", index=event.index, cached=event.cached)
    elif isinstance(event, Failed):
        trace.step("end", index=event.index, reason="error", error=event.error.code)


def describe(ask: Ask, answer_id: str, sequences: Sequence[SequenceRequest]) -> Mapping[str, Any]:
    """Return what `ask` wants of the engine: `sequences`."""
    return {
        "id": answer_id,
        "endpoint": ask.surface.path,
        "model": ask.model,
        "stream": ask.stream,
        "prompt_tokens": ask.prompt_tokens,
        "choices": len(sequences),
        "max_tokens": sequences[0].max_tokens,
        "temperature": ask.sampling.temperature,
        "top_p": ask.sampling.top_p,
        "seed": ask.sampling.seed,
    }
