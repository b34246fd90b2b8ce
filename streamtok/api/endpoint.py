"""What all generating endpoints share: an `Ask` in, a streamed or complete answer out.

Endpoints differ in how they make an `Ask` of their JSON, and in the dialect of the answer.

Read next: `streamtok.answer.ask`.
"""

from contextlib import aclosing
from typing import cast

from msgspec.structs import replace

from streamtok.answer.ask import Ask
from streamtok.answer.complete import collect
from streamtok.answer.generation import Generation
from streamtok.answer.render import CompleteDialect, Dialect, Renderer
from streamtok.api.openai.streaming import USAGE_TRAILERS, takes_trailers, usage_trailers
from streamtok.api.services import Call, Services
from streamtok.api.validation import ignored_header
from streamtok.engine.commands import HIGH_WATER
from streamtok.errors import ContextTooLong, InvalidRequest
from streamtok.http.framings import PLAIN_TEXT, Framing, negotiate
from streamtok.http.request import HeaderList
from streamtok.http.response import Body, Response, json_response


async def answer(
    services: Services, call: Call, ask: Ask, dialect: CompleteDialect, ignored: tuple[str, ...]
) -> Response:
    """Generate what `ask` says; return when the answer can no longer fail with a status.

    A header of the answer names the `ignored` fields of the request. With heartbeats, a stream
    begins at the first one: what fails after that is an error event.

    Raises:
        RequestError: the request cannot be carried out, or there is no room for it.
    """
    if services.director is not None:
        services, ask = services.director.direct(services, call, ask)
    framing = _framing(call, ask) if ask.stream else None
    interceptor = None
    if services.faults is not None:
        interceptor = services.faults.plan(call.request, framing, ask)
        ignored = tuple(name for name in ignored if name != services.faults.field)
    generation = await _submit(services, ask, framing)
    headers = (*ignored_header(ignored), *services.headers_of(generation.id))
    try:
        started = await generation.started()
        singly = interceptor is not None or ask.trace is not None  # they count tokens
        events = generation.events(started=started, most=1 if singly else HIGH_WATER)
        if interceptor is not None:
            events = interceptor.events(events)
        if framing is None:
            async with aclosing(events):
                complete = await collect(events, ask.choices, ask.candidates)
                whole = await dialect.complete(complete)
            response = replace(json_response(whole, headers=headers), summary=generation.summary)
        else:
            # What has no stream has no field to ask for one
            renderer = Renderer(cast(Dialect, dialect), framing)
            body: Body = renderer.stream(events)
            body = body if singly else services.direct(body, generation, renderer)
            response = _streamed(services, call, generation, framing, headers, body)
    except BaseException:
        generation.close()
        raise
    return response if interceptor is None else interceptor.response(response)


async def _submit(services: Services, ask: Ask, framing: Framing | None) -> Generation:
    """Check what depends on the model, and give the engine its work."""
    _check_prompts(ask, services.engine.context)
    answer_id = services.new_id(ask.surface.id_prefix)
    if ask.trace is not None:
        ask.trace.step("tokenize", tokens=ask.prompt_tokens)
    if ask.constraint is not None:
        await services.constraints.check(ask.constraint, ask.parts)
    has_ping = framing is not None and framing.ping
    timers = services.timers if has_ping else replace(services.timers, heartbeat=None)
    return Generation(
        ask, answer_id, services.engine, services.detokenizers, services.meter, timers
    )


def _streamed(
    services: Services,
    call: Call,
    generation: Generation,
    framing: Framing,
    headers: HeaderList,
    body: Body,
) -> Response:
    """Return a stream's response, which closes its generation."""
    if services.close_after_stream:
        headers = (*headers, ("connection", "close"))
    headers = (*framing.headers, *headers)
    response = Response(200, headers, body, generation.summary, generation.close)
    if framing is PLAIN_TEXT and takes_trailers(call.request):
        announced = (("trailer", ", ".join(USAGE_TRAILERS)),)
        response = replace(
            response,
            headers=headers + announced,
            trailers=lambda: usage_trailers(generation.usage),
        )
    return response


def _framing(call: Call, ask: Ask) -> Framing:
    """Return the framing of a stream.

    Raises:
        NotAcceptable: the client accepts none that is offered.
        InvalidRequest: bare text is to hold more than a text.
    """
    framing = negotiate(call.request.header("accept"), ask.surface.offers)
    if framing is PLAIN_TEXT:
        extra = {
            ask.surface.prompt_field: len(ask.prompts) > 1,
            "n": ask.choices > 1,
            "logprobs": ask.sampling.top_logprobs is not None,
            "tools": ask.rules.reader is not None,
        }
        for name in (name for name, given in extra.items() if given):
            raise InvalidRequest(
                f"{name}: text/plain is the bare text of one choice; accept text/event-stream or "
                "application/x-ndjson for more",
                param=name,
            )
    return framing


def _check_prompts(ask: Ask, context: int) -> None:
    """Check that prompts and answers fit the model's `context`.

    Raises:
        InvalidRequest: one does not, or there are no tokens, or too few may be generated.
    """
    param = ask.surface.prompt_field
    for ids in ask.prompts:
        if not ids:
            raise InvalidRequest("the prompt has no tokens", param=param, code="invalid_value")
        if len(ids) + min(ask.max_tokens, 1) > context:
            room = " and must leave room for at least one more" * (ask.max_tokens > 0)
            raise ContextTooLong(
                f"the prompt has {len(ids)} tokens; the model's context is {context} tokens{room}",
                param=param,
            )
    if ask.min_tokens > ask.max_tokens:
        raise InvalidRequest(
            f"min_tokens: expected at most max_tokens, {ask.max_tokens}",
            param="min_tokens",
            code="invalid_value",
        )
