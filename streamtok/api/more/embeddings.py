"""`POST /v1/embeddings`: texts in, vectors out.

Runs like a completion of no tokens. Never streamed.
"""

import struct
from base64 import b64encode
from functools import partial

from msgspec.structs import replace

from streamtok.answer.ask import Surface
from streamtok.answer.complete import CompleteAnswer
from streamtok.api.endpoint import answer
from streamtok.api.more.answers import EmbeddingBody, Embeddings, EmbeddingUsage
from streamtok.api.more.types import EmbeddingRequest
from streamtok.api.openai import answers
from streamtok.api.openai.completions import is_batch, read_prompts
from streamtok.api.parameters import Parameters, check_count, draft
from streamtok.api.route import Operation, Route
from streamtok.api.services import Call, Services
from streamtok.errors import InvalidRequest
from streamtok.http.response import Response
from streamtok.messages import Embedding

ENDPOINT = "/v1/embeddings"
EMBEDDINGS = Surface(ENDPOINT, "embd-", "input")


async def embed(services: Services, call: Call) -> Response:
    """`POST /v1/embeddings`: what texts are as points in space."""
    fields, ignored = await services.read(call, EmbeddingRequest)
    width = services.engine.width
    drafted = draft(services, call, Parameters(model=fields.model), EMBEDDINGS)
    if fields.dimensions not in (None, width):
        raise InvalidRequest(
            f"dimensions: this model's embeddings have {width}", param="dimensions"
        )
    check_count(services, len(fields.input) if is_batch(fields.input) else 1)
    prompts = await services.run(call, partial(_prompts, services, fields))
    asked = replace(drafted, prompts=prompts, max_tokens=0, embed=True)
    points = Points(as_base64=fields.encoding_format == "base64")
    return await answer(services, call, asked, points, ignored)


def _prompts(services: Services, fields: EmbeddingRequest) -> list[tuple[int, ...]]:
    return [ids for ids, _ in read_prompts(services, fields.input, "input")]


class Points:
    """The JSON of the embeddings of one request, in the order of its input."""

    def __init__(self, as_base64: bool) -> None:
        self._as_base64 = as_base64

    async def complete(self, answer: CompleteAnswer) -> bytes:
        """See `CompleteDialect.complete`."""
        points = enumerate(choice.embedding for choice in answer.choices)
        data = [EmbeddingBody(index, self._numbers(point)) for index, point in points]
        spent = answer.usage.prompt_tokens
        return answers.encode(Embeddings(data, answer.began.model, EmbeddingUsage(spent, spent)))

    def _numbers(self, embedding: Embedding) -> list[float] | str:
        if self._as_base64:
            return b64encode(struct.pack(f"<{len(embedding)}f", *embedding)).decode()
        return list(embedding)


OPERATION = Operation(Embeddings, EmbeddingRequest, example={"input": "Once upon a time"})
ROUTES = (Route("POST", ENDPOINT, embed, OPERATION, limited=True),)
