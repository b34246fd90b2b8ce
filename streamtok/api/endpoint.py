"""What all that generates has in common: parameters in, a streamed or whole answer out.

Endpoints differ in how a prompt is made and in how the answer is told, by a `Dialect` of their own.
Read next: `streamtok.api.openai.chat`, then `streamtok.api.openai.completions`.
"""

import asyncio
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial

from streamtok.answer.choice import TextRules
from streamtok.answer.dialect import Dialect, Occasion, Whole, chunks
from streamtok.answer.generation import Generation, Job
from streamtok.answer.whole import whole
from streamtok.api.openai import types as requests
from streamtok.api.openai.streaming import USAGE_TRAILERS, takes_trailers, usage_trailers
from streamtok.api.openai.types import SamplingFields
from streamtok.api.services import Call, Services
from streamtok.engine.extras.grammars import Grammars
from streamtok.errors import ContextTooLong, InvalidRequest
from streamtok.faults.catalogue import FIELD
from streamtok.http.framings import OFFERS, PLAIN_TEXT, Framing, Offer, negotiate
from streamtok.http.response import Response, json_response
from streamtok.messages import Constraint, SamplingParams, SequenceRequest

CHAT_PREFIX = "chatcmpl-"
TOKEN_ID = re.compile("[0-9]{1,10}")  # int() refuses to read thousands of digits


@dataclass(frozen=True, slots=True)
class Order:
    """What the endpoint makes of a request: prompts, and how to answer.

    `dialect` makes what tells one answer, whose id begins with `prefix`; `prompt_field` is where
    the prompts stood; `offers` are the framings a stream may have; `candidates` are generated of
    each prompt, to choose the best (0: none but those asked for); `echoes` are texts that the
    choices of each prompt begin with, or nothing; `constraint` is what the answer must be, if
    anything, made of `parts`; `calls` says that it may call functions, `embed` that
    embeddings are wanted, and no tokens.
    """

    endpoint: str
    fields: SamplingFields
    prompts: Sequence[tuple[int, ...]]
    max_tokens: int
    top_logprobs: int | None
    prefix: str
    dialect: Callable[[Occasion], Whole]
    ignored: tuple[str, ...]
    prompt_field: str = "prompt"
    offers: Sequence[Offer] = OFFERS
    candidates: int = 0
    echoes: Sequence[str] = ()
    constraint: Constraint | None = None
    parts: Sequence[Constraint] = ()
    calls: bool = False
    embed: bool = False


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
    framing = _framing(call, order) if fields.stream else None
    if services.faults is None:
        return await _response(services, call, order, framing)
    plan = services.faults.asked(call.request, framing, order.prefix == CHAT_PREFIX)
    known = tuple(name for name in order.ignored if name != FIELD)
    response = await _response(services, call, replace(order, ignored=known), framing)
    return plan.spoil(response) if plan else response


async def _response(
    services: Services, call: Call, order: Order, framing: Framing | None
) -> Response:
    """Begin to generate, in the `framing` of a stream or as a whole; see `answer`."""
    fields = order.fields
    job = _job(services, call, order)
    if job.trace is not None:
        job.trace.step("tokenize", tokens=job.prompt_tokens)
    if order.constraint is not None:
        await _check(services, order.constraint, order.parts)
    has_ping = framing is not None and framing.ping
    timers = services.timers if has_ping else replace(services.timers, heartbeat=None)
    generation = Generation(job, services.engine, services.detokenizers, services.meter, timers)
    occasion = Occasion(generation, services.meter.clock, services.engine.fingerprint)
    dialect = order.dialect(occasion)
    headers = requests.ignored_header(order.ignored)
    try:
        started = await generation.started()
        if framing is None:
            choices = fields.n or 1
            candidates = order.candidates or choices
            body = await whole(generation, dialect, choices, candidates)
            return replace(json_response(body, headers=headers), summary=generation.summary)
    except BaseException:
        generation.close()
        raise
    assert isinstance(dialect, Dialect)  # what has no stream has no field to ask for one
    if services.close_after_stream:
        headers = (*headers, ("connection", "close"))
    headers = (*framing.headers, *headers)
    stream = chunks(generation, dialect, framing, started)
    response = Response(200, headers, stream, generation.summary, generation.close)
    if framing is PLAIN_TEXT and takes_trailers(call.request):
        announced = (("trailer", ", ".join(USAGE_TRAILERS)),)
        response = replace(
            response, headers=headers + announced, trailers=partial(usage_trailers, generation)
        )
    return response


async def _check(services: Services, constraint: Constraint, parts: Sequence[Constraint]) -> None:
    """Check that `constraint` can be met; the event loop stays free meanwhile.

    Raises:
        InvalidRequest: it cannot, or one of its `parts`, or nothing can be enforced here.
    """
    if services.grammars is None:
        raise InvalidRequest(
            f"{constraint.param}: this server lacks llguidance, or it cannot read the model's "
            "tokenizer; pip install 'streamtok[structured]'",
            param=constraint.param,
            code="unsupported_parameter",
        )
    grammars = services.grammars
    try:
        await _compile(grammars, constraint)
    except InvalidRequest:
        for part in parts:
            await _compile(grammars, part)
        raise


async def _compile(grammars: Grammars, constraint: Constraint) -> None:
    if grammars.is_compiled(constraint):
        grammars.check(constraint)
    else:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(grammars.compiler, grammars.check, constraint)


def stops(fields: SamplingFields) -> tuple[str, ...]:
    """Return the stop strings of a request."""
    if fields.stop is None:
        return ()
    return (fields.stop,) if isinstance(fields.stop, str) else tuple(fields.stop)


def _framing(call: Call, order: Order) -> Framing:
    """Return the framing of a stream.

    Raises:
        NotAcceptable: the client accepts none that is offered.
        InvalidRequest: bare text is to hold more than a text.
    """
    framing = negotiate(call.request.header("accept"), order.offers)
    if framing is PLAIN_TEXT:
        extra = {
            order.prompt_field: len(order.prompts) > 1,
            "n": (order.fields.n or 1) > 1,
            "logprobs": order.top_logprobs is not None,
            "tools": order.calls,
        }
        for name in (name for name, given in extra.items() if given):
            raise InvalidRequest(
                f"{name}: text/plain is the bare text of one choice; accept text/event-stream or "
                "application/x-ndjson for more",
                param=name,
            )
    return framing


def check_ids(services: Services, ids: Collection[int], param: str) -> None:
    """Check that the `ids` in the field `param` are tokens.

    Raises:
        InvalidRequest: one is not.
    """
    vocab = services.engine.vocab
    if wrong := [token for token in ids if token >= vocab]:
        raise InvalidRequest(
            f"{param}: {wrong[0]} is not a token id; expected 0 to {vocab - 1}",
            param=param,
            code="invalid_value",
        )


def _job(services: Services, call: Call, order: Order) -> Job:
    """Return the sequences to generate: `n` choices of each prompt, in order."""
    fields, context, param = order.fields, services.engine.context, order.prompt_field
    for ids in order.prompts:
        if not ids:
            raise InvalidRequest("the prompt has no tokens", param=param, code="invalid_value")
        if len(ids) + min(order.max_tokens, 1) > context:
            room = " and must leave room for at least one more" * (order.max_tokens > 0)
            raise ContextTooLong(
                f"the prompt has {len(ids)} tokens; the model's context is {context} tokens{room}",
                param=param,
            )
    seed = services.new_seed() if fields.seed is None else fields.seed
    if (fields.min_tokens or 0) > order.max_tokens:
        raise InvalidRequest(
            f"min_tokens: expected at most max_tokens, {order.max_tokens}",
            param="min_tokens",
            code="invalid_value",
        )
    stop_ids = frozenset(fields.stop_token_ids or ())
    check_ids(services, stop_ids, "stop_token_ids")
    if not fields.ignore_eos:
        stop_ids |= services.tokenizer.stop_ids
    bias = _logit_bias(services, fields)
    count = order.candidates or fields.n or 1
    sequences = [
        SequenceRequest(
            index=index,
            prompt_ids=ids,
            sampling=_sampling(services, order, bias, seed + index),
            max_tokens=min(order.max_tokens, context - len(ids)),
            stop_ids=stop_ids,
            min_tokens=fields.min_tokens or 0,
            prompt_logprobs=bool(order.echoes) and order.top_logprobs is not None,
            client=call.caller,
            constraint=order.constraint,
            embed=order.embed,
        )
        for index, ids in enumerate(ids for ids in order.prompts for _ in range(count))
    ]
    return Job(
        id=services.new_id(order.prefix),
        endpoint=order.endpoint,
        model=services.model,
        key=call.key,
        caller=call.caller,
        stream=bool(fields.stream),
        prompt_tokens=sum(len(ids) for ids in order.prompts),
        sequences=tuple(sequences),
        rules=TextRules(
            stops=stops(fields),
            special=fields.skip_special_tokens is False,
            detailed=_top_logprobs(order) is not None or bool(fields.return_token_ids),
            calls=order.calls,
        ),
        echoes=tuple(text for text in order.echoes for _ in range(count)),
        choices=count,
        trace=call.request.trace,
    )


def _top_logprobs(order: Order) -> int | None:
    """Return how many log-probabilities each token comes with; the best are found by its own."""
    chosen = order.candidates > (order.fields.n or 1)
    return 0 if order.top_logprobs is None and chosen else order.top_logprobs


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
        top_logprobs=_top_logprobs(order),
    )


def _logit_bias(services: Services, fields: SamplingFields) -> tuple[tuple[int, float], ...]:
    """Return the biases by token id, which JSON can only name by a string."""
    bias = fields.logit_bias or {}
    for token in bias:
        if not TOKEN_ID.fullmatch(token) or int(token) >= services.engine.vocab:
            raise InvalidRequest(
                f"logit_bias: {token!r} is not a token id; expected 0 to "
                f"{services.engine.vocab - 1}",
                param="logit_bias",
                code="invalid_value",
            )
    return tuple((int(token), value) for token, value in bias.items())
