"""`POST /v1/embeddings`: texts in, points out.

Goes the way of all that is generated, with nothing to generate. Never streamed.
Read next: `streamtok.engine.extras.embeddings`, how a text becomes a point.
"""

import struct
from base64 import b64encode
from collections.abc import Sequence
from functools import partial

from streamtok.answer.dialect import Occasion, Pieces
from streamtok.api.endpoint import Order, answer
from streamtok.api.openai import answers
from streamtok.api.openai.answers import EmbeddingBody, Embeddings, EmbeddingUsage
from streamtok.api.openai.completions import read_prompts
from streamtok.api.openai.types import Documented, EmbeddingRequest, SamplingFields
from streamtok.api.services import Call, Services
from streamtok.errors import InvalidRequest
from streamtok.http.response import Response

ENDPOINT = "/v1/embeddings"
DOCUMENTED = Documented(frozenset(), {}, {})


async def embed(services: Services, call: Call) -> Response:
    """`POST /v1/embeddings`: what texts are as points in space."""
    fields, ignored = services.read(call, EmbeddingRequest, DOCUMENTED)
    services.check_model(fields.model)
    width = services.engine.width
    if fields.dimensions not in (None, width):
        raise InvalidRequest(
            f"dimensions: this model's embeddings have {width}", param="dimensions"
        )
    order = Order(
        endpoint=ENDPOINT,
        fields=SamplingFields(),
        prompts=[ids for ids, _ in read_prompts(services, fields.input, "input")],
        max_tokens=0,
        top_logprobs=None,
        prefix="embd-",
        dialect=partial(Points, as_base64=fields.encoding_format == "base64"),
        ignored=ignored,
        prompt_field="input",
        embed=True,
    )
    return await answer(services, call, order)


class Points:
    """The JSON of the embeddings of one request, in the order of its input."""

    def __init__(self, occasion: Occasion, as_base64: bool) -> None:
        self._job = occasion.generation.job
        self._as_base64 = as_base64

    async def whole(self, choices: Sequence[Pieces]) -> bytes:
        """See `Whole.whole`."""
        data = [EmbeddingBody(i, self._numbers(pieces)) for i, pieces in enumerate(choices)]
        spent = self._job.prompt_tokens
        return answers.encode(Embeddings(data, self._job.model, EmbeddingUsage(spent, spent)))

    def _numbers(self, pieces: Pieces) -> list[float] | str:
        embedding = pieces[-1].embedding
        assert embedding is not None
        if self._as_base64:
            return b64encode(struct.pack(f"<{len(embedding)}f", *embedding)).decode()
        return list(embedding)
