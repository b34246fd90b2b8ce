"""Whether two replicas compute the same: a fixed prompt, whose scores must be equal bit for bit.

A text may only go on where the next token would have been the same one. Processors of different
kinds add in different orders. Read next: `streamtok.engine.cluster.client`.
"""

from streamtok.engine.cluster.places import Link
from streamtok.engine.commands import ENDS, Submit
from streamtok.engine.remote.frames import unpack
from streamtok.messages import (
    Event,
    Failed,
    PromptScored,
    SamplingParams,
    SequenceRequest,
    TokenEvent,
)

PROBE_TOKENS = 48
INTERNAL = "internal-"  # the ids of requests that no client has made begin with it

Scores = tuple[Event, ...]


async def probe(link: Link) -> Scores:
    """Return the log-probabilities of a fixed prompt, by which two replicas can be compared.

    Raises:
        ReplicaLost: the replica has ended.
        StreamtokError: it gives no usable result.
    """
    ids = tuple(range(min(link.info.vocab, link.info.context // 2, PROBE_TOKENS)))
    sampling = SamplingParams(top_logprobs=3)
    name = INTERNAL + "probe"
    request = SequenceRequest(0, ids, sampling, max_tokens=2, prompt_logprobs=True)
    link.send([Submit(name, (request,))])
    scores: list[Event] = []
    while True:
        for _, event in unpack((await link.receive()).events):
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, TokenEvent | PromptScored):
                scores.append(event)
            elif isinstance(event, ENDS):
                return tuple(scores)
