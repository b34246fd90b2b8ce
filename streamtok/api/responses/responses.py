"""`POST /v1/responses`, and what is kept of it: OpenAI's Responses API.

A request is translated to a chat. Unless it says `store: false`, the response is kept in the ledger
with the conversation behind it, and a next request may go on from it by its id. Only the key
that made a response can see it, go on from it, or delete it.
Read next: `streamtok.api.responses.history`, then `streamtok.api.responses.events`.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import msgspec

from streamtok.answer.ask import Ask, Surface
from streamtok.api.constraints.structured import NamedSchema, ResponseFormat, SchemaFormat
from streamtok.api.endpoint import answer
from streamtok.api.openai import answers, chat
from streamtok.api.openai.types import ChatRequest, Message, StreamOptions
from streamtok.api.responses.answers import ResponseBody, ResponseDeleted
from streamtok.api.responses.events import ResponseEvents
from streamtok.api.responses.history import chosen, continued, conversation, offered
from streamtok.api.responses.types import (
    DOCUMENTED,
    FlatSchemaFormat,
    ResponseRequest,
    TextConfig,
)
from streamtok.api.services import Call, Services
from streamtok.errors import InvalidRequest, NotFound
from streamtok.http.framings import TYPED_OFFERS
from streamtok.http.response import Response, json_response
from streamtok.ledger import KeptResponse
from streamtok.messages import Constraint

ENDPOINT = "/v1/responses"
RESPONSES = Surface(ENDPOINT, "resp_", "input", TYPED_OFFERS)
FIELDS = (  # what a chat calls them, and what they are called here
    ("response_format.json_schema", "text.format"),
    ("response_format", "text.format"),
    (".function.parameters", ".parameters"),
)


async def respond(services: Services, call: Call) -> Response:
    """`POST /v1/responses`: text or messages in, a response out."""
    fields, ignored = services.read(call, ResponseRequest, DOCUMENTED)
    messages = [*await _before(services, call, fields), *conversation(fields)]
    asked = _ask(services, call, fields, messages)
    keep = partial(_keep, services, call, messages) if _is_kept(services, fields) else None
    dialect = ResponseEvents(services, fields, asked.sampling, keep)
    return await answer(services, call, asked, dialect, ignored)


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


def _ask(
    services: Services, call: Call, fields: ResponseRequest, messages: Sequence[Message]
) -> Ask:
    instructions = [Message(role="system", content=fields.instructions or "")]
    chat_fields = ChatRequest(
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
        response_format=_format(fields.text or TextConfig()),
        tools=offered(fields.tools or ()),
        tool_choice=chosen(fields.tool_choice),
        parallel_tool_calls=fields.parallel_tool_calls,
    )
    asked = chat.ask(services, call, chat_fields, RESPONSES)
    return replace(
        asked,
        constraint=asked.constraint and _renamed(asked.constraint),
        parts=[_renamed(part) for part in asked.parts],
    )


def _format(text: TextConfig) -> ResponseFormat:
    """Return what the answer must be, as a chat has it."""
    if isinstance(text.format, FlatSchemaFormat):
        form = text.format
        return SchemaFormat(NamedSchema(form.name, form.schema, form.strict, form.description))
    return text.format


def _renamed(constraint: Constraint) -> Constraint:
    """Return `constraint` with the name that its field has here."""
    field = constraint.field
    for theirs, ours in FIELDS:
        field = field.replace(theirs, ours)
    return replace(constraint, field=field)


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
    services: Services, call: Call, messages: list[Message], body: ResponseBody
) -> bool:
    """Keep a response and its conversation, without instructions, which count only once."""
    so_far = answers.encode([*messages, *continued(body.output)])
    kept = KeptResponse(body.id, call.key, answers.encode(body), so_far)
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
