"""What the trace of a request is told of its generation. See `streamtok.http.tracer`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from streamtok.http.tracer import Trace
from streamtok.messages import Event, Failed, Prefilled, Started, TokenEvent, Waiting

if TYPE_CHECKING:
    from streamtok.answer.generation import Job


def tell(trace: Trace, event: Event | Waiting) -> None:
    """Tell `trace` of an event that the engine has sent."""
    if isinstance(event, TokenEvent):
        trace.step("token", index=event.index, id=event.token_id)
    elif isinstance(event, Started):
        trace.step("start", index=event.index)
    elif isinstance(event, Prefilled):
        trace.step("prefill", index=event.index, cached=event.cached)
    elif isinstance(event, Failed):
        trace.step("end", index=event.index, reason="error", error=event.error.code)


def describe(job: "Job") -> Mapping[str, Any]:
    """Return what `job` asks of the engine."""
    first = job.sequences[0]
    sampling = first.sampling
    return {
        "id": job.id,
        "endpoint": job.endpoint,
        "model": job.model,
        "stream": job.stream,
        "prompt_tokens": job.prompt_tokens,
        "choices": len(job.sequences),
        "max_tokens": first.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
    }
