"""`POST /v1/responses`, and what is kept of it: OpenAI's Responses API.

A request is translated to a chat. Unless it says `store: false`, the response is kept in the ledger
with the conversation behind it, and a next request may go on from it by its id. Only the key
that made a response can see it, go on from it, or delete it.
Read next: `streamtok.api.responses_events`, how the answer is told.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import msgspec

from streamtok.api import answers, chat
from streamtok.api.endpoint import Order, answer
from streamtok.api.requests import ChatRequest, Message, RefusalPart, StreamOptions
from streamtok.api.responses_events import ResponseEvents
from streamtok.api.responses_types import (
    DOCUMENTED,
    FlatSchemaFormat,
    InputMessage,
    ResponseBody,
    ResponseDeleted,
    ResponseRequest,
    TextConfig,
)
from streamtok.api.services import Call, Services
from streamtok.api.structured import ObjectFormat
from streamtok.engine.grammars import json_schema
from streamtok.errors import InvalidRequest, NotFound
from streamtok.http.framings import TYPED_OFFERS
from streamtok.http.response import Response, json_response
from streamtok.ledger import KeptResponse
from streamtok.messages import Constraint

ENDPOINT = "/v1/responses"


async def respond(services: Services, call: Call) -> Response:
    """`POST /v1/responses`: text or messages in, a response out."""
    fields, ignored = services.read(call, ResponseRequest, DOCUMENTED)
    messages = [*await _before(services, call, fields), *_messages(fields)]
    order = _order(services, fields, messages, ignored)
    keep = partial(_keep, services, call, messages) if _is_kept(services, fields) else None
    order = replace(order, dialect=partial(ResponseEvents, fields=fields, keep=keep))
    return await answer(services, call, order)


async def response(services: Services, call: Call, response_id: str) -> Response:
    """`GET /v1/responses/{id}`: a response that was kept."""
    for name, value in call.request.query.items():
        if value not in ("", "false"):
            raise InvalidRequest(
                f"{name} is not supported by this server", param=name, code="unsupported_parameter"
            )
    return json_response((await _find(services, call, response_id)).body)


async def delete(services: Services, call: Call, response_id: str) -> Response:
    """`DELETE /v1/responses/{id}`: forget a response that was kept."""
    await services.meter.ledger.forget((await _find(services, call, response_id)).id)
    return json_response(answers.encode(ResponseDeleted(response_id)))


def _order(
    services: Services,
    fields: ResponseRequest,
    messages: Sequence[Message],
    ignored: tuple[str, ...],
) -> Order:
    instructions = [Message(role="system", content=fields.instructions or "")]
    asked = ChatRequest(
        model=fields.model,
        messages=[*(instructions if fields.instructions else ()), *messages],
        max_tokens=fields.max_output_tokens,
        stream=fields.stream,
        stream_options=StreamOptions() if fields.stream_options else None,
        temperature=fields.temperature,
        top_p=fields.top_p,
        top_k=fields.top_k,
        min_p=fields.min_p,
        seed=fields.seed,
    )
    return replace(
        chat.order(services, asked, ignored),
        endpoint=ENDPOINT,
        prefix="resp_",
        prompt_field="input",
        offers=TYPED_OFFERS,
        constraint=_constraint(fields.text or TextConfig()),
    )


def _messages(fields: ResponseRequest) -> Iterator[Message]:
    """Yield the input as the messages of a chat."""
    if isinstance(fields.input, str):
        yield Message(role="user", content=fields.input)
        return
    for message in fields.input:
        yield Message(role=message.role, content=_text(message))


def _text(message: InputMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    return "".join(p.refusal if isinstance(p, RefusalPart) else p.text for p in message.content)


def _constraint(text: TextConfig) -> Constraint | None:
    """Return what the answer must be, if anything is asked for."""
    if isinstance(text.format, ObjectFormat):
        return json_schema({"type": "object"}, "text.format")
    if isinstance(text.format, FlatSchemaFormat):
        strict = bool(text.format.strict)
        return json_schema(text.format.schema, "text.format.schema", strict=strict)
    return None


# What is kept


def _is_kept(services: Services, fields: ResponseRequest) -> bool:
    """Return whether a response is to be kept: unless it says otherwise, as OpenAI has it.

    Raises:
        InvalidRequest: it is, and none are kept here.
    """
    if fields.store and not services.stored_responses:
        raise InvalidRequest(
            "store: this server keeps no responses (--stored-responses 0)",
            param="store",
            code="unsupported_parameter",
        )
    return bool(services.stored_responses) and fields.store is not False


async def _before(services: Services, call: Call, fields: ResponseRequest) -> list[Message]:
    """Return the conversation that a request goes on from.

    Raises:
        InvalidRequest: there is none.
    """
    if (response_id := fields.previous_response_id) is None:
        return []
    try:
        kept = await _find(services, call, response_id)
    except NotFound as error:
        raise InvalidRequest(
            f"previous_response_id: {error.message}",
            param="previous_response_id",
            code="previous_response_not_found",
        ) from error
    return msgspec.json.decode(kept.conversation, type=list[Message])


async def _keep(
    services: Services, call: Call, messages: list[Message], body: ResponseBody, text: str
) -> bool:
    """Keep a response and its conversation, without instructions, which count only once."""
    conversation = answers.encode([*messages, Message(role="assistant", content=text)])
    kept = KeptResponse(body.id, call.key, answers.encode(body), conversation)
    return await services.meter.ledger.keep(kept, services.stored_responses)


async def _find(services: Services, call: Call, response_id: str) -> KeptResponse:
    """Return a response of the caller's key.

    Raises:
        NotFound: there is none of this id, or it is another's.
    """
    kept = await services.meter.ledger.kept(response_id)
    if kept is None or kept.key != call.key:
        raise NotFound(f"no response is kept for {response_id!r}", code="response_not_found")
    return kept
