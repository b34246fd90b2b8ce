"""What a step's logits become: each sequence's next token, drawn as its request asks for.

Read next: `streamtok.engine.sampler`, which draws.
"""

from collections.abc import Sequence

from streamtok.engine.sampler import Draw, sample
from streamtok.engine.scheduler import Sample, Work
from streamtok.errors import RequestError
from streamtok.model.weights import Array


def draw(logits: Array, works: Sequence[Work]) -> list[Sample | RequestError]:
    """Draw one token for each sampled one of `works` from `logits` [sampled, V]."""
    return sample(logits, [_draw(work) for work in works if work.sampled])


def _draw(work: Work) -> Draw:
    request = work.sequence.request
    generated_ids = work.sequence.generated_ids
    barred_ids = request.stop_ids if len(generated_ids) < request.min_tokens else ()
    return Draw(request.sampling, request.prompt_ids, generated_ids, barred_ids)
