"""`POST /v1/messages` and `POST /v1/messages/count_tokens`: Anthropic's format.

Errors have its shape too. Read next: `streamtok.api.anthropic.history`, then
`streamtok.api.anthropic.events`.
"""

from functools import partial

from msgspec.structs import replace

from streamtok.answer.ask import Ask, Surface
from streamtok.api.anthropic.events import MessageEvents, error_body
from streamtok.api.anthropic.history import conversation, wanted
from streamtok.api.anthropic.types import (
    CountRequest,
    ErrorEvent,
    Event,
    MessageBody,
    MessageRequest,
    TokenCount,
)
from streamtok.api.endpoint import answer
from streamtok.api.openai import answers
from streamtok.api.parameters import Parameters, ask_chat, prompt_ids
from streamtok.api.route import ErrorFormat, Operation, Route
from streamtok.api.services import Call, Services
from streamtok.api.validation import ignored_header
from streamtok.errors import RequestError
from streamtok.http.framings import TYPED_OFFERS
from streamtok.http.response import Response, json_response

ENDPOINT = "/v1/messages"
MESSAGES = Surface(ENDPOINT, "msg_", "messages", TYPED_OFFERS)


async def message(services: Services, call: Call) -> Response:
    """`POST /v1/messages`: a chat in Anthropic's format."""
    fields, ignored = await services.read(call, MessageRequest)
    asked = await services.run(call, partial(_ask, services, call, fields))
    is_cut = asked.prompt_tokens + fields.max_tokens > services.engine.context
    dialect = MessageEvents(partial(services.new_id, "toolu_"), is_cut)
    return await answer(services, call, asked, dialect, ignored)


async def count_tokens(services: Services, call: Call) -> Response:
    """`POST /v1/messages/count_tokens`: how many tokens a prompt has."""
    fields, ignored = await services.read(call, CountRequest)
    services.check_model(fields.model)
    chat = replace(conversation(fields), tools=wanted(fields).tools)
    count = len(await services.run(call, partial(prompt_ids, services, chat)))
    body = answers.encode(TokenCount(count))
    return json_response(body, headers=ignored_header(ignored))


def refuse(error: RequestError) -> Response:
    """Return the answer that tells the client of `error`."""
    return json_response(error_body(error), error.status, error.headers())


def _ask(services: Services, call: Call, fields: MessageRequest) -> Ask:
    parameters = Parameters(
        model=fields.model,
        max_tokens=fields.max_tokens,
        stop=fields.stop_sequences,
        stream=fields.stream,
        temperature=fields.temperature,
        top_p=fields.top_p,
        top_k=fields.top_k,
        min_p=fields.min_p,
        seed=fields.seed,
    )
    return ask_chat(services, call, parameters, conversation(fields), wanted(fields), MESSAGES)


ERRORS = ErrorFormat(
    "Anthropic", ErrorEvent, refuse, ("request-id", "x-request-id"), "anthropic-version"
)
HI = {"messages": [{"role": "user", "content": "Who are you?"}]}
ROUTES = (
    Route(
        "POST",
        ENDPOINT,
        message,
        Operation(MessageBody, MessageRequest, event=Event, example=HI | {"max_tokens": 8}),
        limited=True,
        errors=ERRORS,
    ),
    Route(
        "POST",
        f"{ENDPOINT}/count_tokens",
        count_tokens,
        Operation(TokenCount, CountRequest, example=HI),
        errors=ERRORS,
    ),
)
