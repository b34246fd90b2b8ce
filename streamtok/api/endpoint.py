"""What chat and text completions have in common: parameters in, a streamed or whole answer out.

The two differ in how a prompt is made and in the shape of their JSON, which each gives as a
`Shape`. Read next: `streamtok.api.chat`, then `streamtok.api.completions`.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Protocol

from msgspec import UNSET

from streamtok.api import schemas
from streamtok.api.generation import Generation, Job, Piece
from streamtok.api.schemas import Envelope, SamplingFields, UsageBody
from streamtok.api.services import Call, Services
from streamtok.errors import ContextTooLong, InvalidRequest, RequestError
from streamtok.http import sse
from streamtok.http.request import HeaderList
from streamtok.http.response import Response, json_response
from streamtok.messages import SamplingParams, SequenceRequest

STREAM_HEADERS: HeaderList = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    ("x-accel-buffering", "no"),  # tells nginx not to collect the chunks
)


class Shape(Protocol):
    """The JSON of one endpoint, for one request: it may count what has passed."""

    prefix: str
    streamed: str
    whole: str

    def opening(self, index: int) -> Any | None:
        """Return the choice of the chunk before any text, if there is one."""

    def part(self, piece: Piece) -> Any:
        """Return the choice of a chunk that carries a piece's text."""

    def end(self, index: int, finish_reason: str) -> Any:
        """Return the choice of the chunk after the last text."""

    def choice(self, index: int, pieces: Sequence[Piece]) -> Any:
        """Return the whole of a choice."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the endpoint makes of a request: prompts, and how to answer."""

    endpoint: str
    fields: SamplingFields
    prompts: Sequence[tuple[int, ...]]
    max_tokens: int
    top_logprobs: int | None
    shape: Shape
    ignored: tuple[str, ...]


async def answer(services: Services, call: Call, order: Order) -> Response:
    """Generate what `order` asks for; return when the answer can no longer fail with a status.

    With heartbeats, a stream begins at the first one: what fails after that is an error event.

    Raises:
        RequestError: the order cannot be carried out, or there is no room for it.
    """
    fields = order.fields
    if fields.stream_options is not None and not fields.stream:
        raise InvalidRequest(
            "stream_options is only allowed where stream is true", param="stream_options"
        )
    job = _job(services, call, order)
    timers = services.timers if fields.stream else replace(services.timers, heartbeat=None)
    generation = Generation(job, services.engine, services.detokenizers, services.meter, timers)
    envelope = Envelope(
        id=job.id,
        object=order.shape.streamed if fields.stream else order.shape.whole,
        created=int(services.meter.clock.wall_s()),
        model=services.model,
        system_fingerprint=services.engine.fingerprint,
        choices=[],
    )
    headers = (("x-ignored-fields", ", ".join(order.ignored)),) if order.ignored else ()
    try:
        started = await generation.started()
        if not fields.stream:
            body = await _whole(generation, order.shape, envelope)
            return replace(json_response(body, headers=headers), summary=generation.summary)
    except BaseException:
        generation.close()
        raise
    if services.close_after_stream:
        headers = (*headers, ("connection", "close"))
    options = fields.stream_options
    events = _events(
        generation,
        order.shape,
        envelope,
        include_usage=bool(options and options.include_usage),
        started=started,
    )
    return Response(200, (*STREAM_HEADERS, *headers), events, generation.summary, generation.close)


def stops(fields: SamplingFields) -> tuple[str, ...]:
    """Return the stop strings of a request."""
    if fields.stop is None:
        return ()
    return (fields.stop,) if isinstance(fields.stop, str) else tuple(fields.stop)


async def _events(
    generation: Generation, shape: Shape, envelope: Envelope, *, include_usage: bool, started: bool
) -> AsyncGenerator[bytes, None]:
    """Yield the server-sent events of a stream: each is one chunk on the wire.

    Once this has begun the status is out, so that an error can only be an event. The order is
    OpenAI's: a role per choice, text, a finish reason per choice, usage, [DONE]. Before the first
    text there may be heartbeats, each in a chunk of its own too.
    """
    envelope.usage = None if include_usage else UNSET

    def event(choice: Any) -> bytes:
        envelope.choices = [choice]
        return sse.encode(schemas.encode(envelope))

    try:
        while not started:
            yield sse.PING
            started = await generation.started()
        for sequence in generation.job.sequences:
            if (opening := shape.opening(sequence.index)) is not None:
                yield event(opening)
        async with aclosing(generation.pieces()) as pieces:
            async for piece in pieces:
                if piece is None:
                    yield sse.PING
                    continue
                if piece.text or piece.tokens:
                    yield event(shape.part(piece))
                if piece.finish_reason is not None:
                    yield event(shape.end(piece.index, piece.finish_reason))
        if include_usage:
            envelope.choices, envelope.usage = [], _usage(generation)
            yield sse.encode(schemas.encode(envelope))
    except RequestError as error:
        yield sse.encode(schemas.error_body(error))
    finally:
        generation.close()
    yield sse.DONE


async def _whole(generation: Generation, shape: Shape, envelope: Envelope) -> bytes:
    """Return the answer that is not streamed, as JSON text."""
    pieces: list[list[Piece]] = [[] for _ in generation.job.sequences]
    async with aclosing(generation.pieces()) as stream:
        async for piece in stream:
            assert piece is not None  # there is no heartbeat without a stream
            pieces[piece.index].append(piece)
    envelope.choices = [shape.choice(index, parts) for index, parts in enumerate(pieces)]
    envelope.usage = _usage(generation)
    return schemas.encode(envelope)


def _usage(generation: Generation) -> UsageBody:
    prompt, completion = generation.job.prompt_tokens, generation.completion_tokens
    return UsageBody(prompt, completion, prompt + completion)


def _job(services: Services, call: Call, order: Order) -> Job:
    """Return the sequences to generate: `n` choices of each prompt, in order."""
    fields, context = order.fields, services.engine.context
    param = "messages" if isinstance(fields, schemas.ChatRequest) else "prompt"
    for ids in order.prompts:
        if not ids:
            raise InvalidRequest("the prompt has no tokens", param=param, code="invalid_value")
        if len(ids) >= context:
            raise ContextTooLong(
                f"the prompt has {len(ids)} tokens; the model's context is {context} tokens "
                "and must leave room for at least one more",
                param=param,
            )
    seed = services.new_seed() if fields.seed is None else fields.seed
    stop_ids = frozenset() if fields.ignore_eos else services.tokenizer.stop_ids
    bias = _logit_bias(services, fields)
    sequences = [
        SequenceRequest(
            index=index,
            prompt_ids=ids,
            sampling=_sampling(services, order, bias, seed + index),
            max_tokens=min(order.max_tokens, context - len(ids)),
            stop_ids=stop_ids,
        )
        for index, ids in enumerate(ids for ids in order.prompts for _ in range(fields.n or 1))
    ]
    return Job(
        id=services.new_id(order.shape.prefix),
        endpoint=order.endpoint,
        model=services.model,
        key=call.key,
        caller=call.caller,
        stream=bool(fields.stream),
        prompt_tokens=sum(len(ids) for ids in order.prompts),
        sequences=tuple(sequences),
        stops=stops(fields),
    )


def _sampling(
    services: Services, order: Order, bias: tuple[tuple[int, float], ...], seed: int
) -> SamplingParams:
    """Return how to sample: the request's own parameters before the model's, before neutral."""
    given = {
        name: value
        for name in services.defaults
        if (value := getattr(order.fields, name)) is not None
    }
    return SamplingParams(
        **{**services.defaults, **given},
        presence_penalty=order.fields.presence_penalty or 0.0,
        frequency_penalty=order.fields.frequency_penalty or 0.0,
        logit_bias=bias,
        seed=seed,
        top_logprobs=order.top_logprobs,
    )


def _logit_bias(services: Services, fields: SamplingFields) -> tuple[tuple[int, float], ...]:
    """Return the biases by token id, which JSON can only name by a string."""
    bias = fields.logit_bias or {}
    for token in bias:
        if not token.isascii() or not token.isdigit() or int(token) >= services.engine.vocab:
            raise InvalidRequest(
                f"logit_bias: {token!r} is not a token id; expected 0 to "
                f"{services.engine.vocab - 1}",
                param="logit_bias",
                code="invalid_value",
            )
    return tuple((int(token), value) for token, value in bias.items())
