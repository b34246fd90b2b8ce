"""Whether two replicas compute the same: a fixed prompt, whose scores must be equal bit for bit.

A text may only go on where the next token would have been the same one. Processors of different
kinds add in different orders. Read next: `streamtok.engine.cluster.client`.
"""

import logging
from collections.abc import Awaitable, Callable

from streamtok.engine.cluster.places import Cluster, Link, ReplicaLost
from streamtok.engine.commands import ENDS, Submit
from streamtok.engine.remote.frames import unpack
from streamtok.errors import StreamtokError
from streamtok.messages import (
    Event,
    Failed,
    PromptScored,
    SamplingParams,
    SequenceRequest,
    TokenEvent,
)

log = logging.getLogger(__name__)

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


async def connect_alike(
    cluster: Cluster,
    name: str,
    expected: tuple[str, Scores],
    pause: Callable[[], Awaitable[object]],
) -> Link:
    """Return a link to a replica with the expected weights and scores.

    It is tried for ever: what fails and what is different is logged, and tried again after a pause.
    """
    while True:
        try:
            link = await cluster.connect(name)
            scores = await probe(link)
        except (ReplicaLost, StreamtokError) as error:
            log.error("%s cannot be started: %s", name, error)
        else:
            if (link.info.fingerprint, scores) == expected:
                return link
            log.error("%s gives other results, and is not used: %s", name, link.place)
            await link.close()
        await pause()
