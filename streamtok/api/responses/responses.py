"""`POST /v1/responses`, and what is kept of it: OpenAI's Responses API.

Unless it says `store: false`, a response is kept in the ledger with the conversation behind it, and
a next request may continue from it by its id. Only the key that made a response can see it,
continue from it, or delete it.
Read next: `streamtok.api.responses.history`, then `streamtok.api.responses.events`.
"""

from collections.abc import Sequence
from functools import partial

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from streamtok.answer.ask import Ask, Surface
from streamtok.api.conversation import Conversation, Message
from streamtok.api.endpoint import answer
from streamtok.api.input.validation import checked
from streamtok.api.openai import answers
from streamtok.api.parameters import Parameters, ask_chat, check_streamed, prompt_ids
from streamtok.api.responses import stored
from streamtok.api.responses.answers import (
    Event,
    InputItemList,
    InputTokens,
    ResponseBody,
    ResponseDeleted,
)
from streamtok.api.responses.events import ResponseEvents
from streamtok.api.responses.history import continued, conversation, input_items, wanted
from streamtok.api.responses.stored import KeptResponse
from streamtok.api.responses.truncation import truncated
from streamtok.api.responses.types import (
    LOGPROBS,
    InputFields,
    InputItemsQuery,
    InputTokensRequest,
    ResponseRequest,
)
from streamtok.api.route import Operation, Route
from streamtok.api.services import Call, Services
from streamtok.api.validation import ignored_header
from streamtok.errors import InvalidRequest, NotFound
from streamtok.http.framings import TYPED_OFFERS
from streamtok.http.response import Response, json_response

ENDPOINT = "/v1/responses"
RESPONSES = Surface(ENDPOINT, "resp_", "input", TYPED_OFFERS)


COMPLETE = ("completed", "incomplete")  # statuses of responses that have an answer


class _Status(Struct):
    """What is read of a response that is kept."""

    status: str = "completed"


class Kept(Struct):
    """A conversation that is kept; the first `prompt` messages of it were the response's input."""

    messages: list[Message]
    prompt: int


async def respond(services: Services, call: Call) -> Response:
    """`POST /v1/responses`: text or messages in, a response out."""
    asked, dialect, ignored = await prepare(services, call)
    return await answer(services, call, asked, dialect, ignored)


async def prepare(services: Services, call: Call) -> tuple[Ask, ResponseEvents, tuple[str, ...]]:
    """Return what a request asks for, the dialect of its answer, and the fields that are unknown.

    Raises:
        RequestError: it cannot be had.
    """
    fields, ignored = await services.read(call, ResponseRequest)
    messages = [*await _before(services, call, fields), *conversation(fields.input)]
    asked = await services.run(call, partial(_ask, services, call, fields, messages))
    keep = partial(_keep, services, call, messages) if _is_kept(services, fields) else None
    return asked, ResponseEvents(services, fields, asked.sampling, keep), ignored


async def response(services: Services, call: Call, response_id: str) -> Response:
    """`GET /v1/responses/{id}`: a response that was kept."""
    for name, value in without_include(call).items():
        if value not in ("", "false"):
            raise InvalidRequest(
                f"{name} is not supported by this server", param=name, code="unsupported_parameter"
            )
    return json_response((await find(services, call, response_id)).body)


async def delete(services: Services, call: Call, response_id: str) -> Response:
    """`DELETE /v1/responses/{id}`: forget a response that was kept."""
    found = await find(services, call, response_id)
    await stored.forget(services.meter.ledger.database, found.id)
    return json_response(answers.encode(ResponseDeleted(response_id)))


async def list_input(services: Services, call: Call, response_id: str) -> Response:
    """`GET /v1/responses/{id}/input_items`: what a response that was kept has answered."""
    query = checked(without_include(call), InputItemsQuery, strict=False)
    kept = _read(await find(services, call, response_id))
    items = list(input_items(kept.messages[: kept.prompt], response_id))
    if query.order == "desc":
        items.reverse()
    if query.after is not None:
        ids = [item.id for item in items]
        if query.after not in ids:
            raise InvalidRequest(f"after: no item has the id {query.after!r}", param="after")
        items = items[ids.index(query.after) + 1 :]
    page = items[: query.limit]
    listed = InputItemList(
        data=page,
        first_id=page[0].id if page else None,
        last_id=page[-1].id if page else None,
        has_more=len(items) > len(page),
    )
    return json_response(answers.encode(listed))


async def count_input(services: Services, call: Call) -> Response:
    """`POST /v1/responses/input_tokens`: how many tokens a prompt has."""
    fields, ignored = await services.read(call, InputTokensRequest)
    services.check_model(fields.model)
    given = conversation(fields.input) if fields.input is not None else []
    messages = [*await _before(services, call, fields), *given]

    def work() -> int:
        return len(prompt_ids(services, _chat(services, fields, messages)))

    count = await services.run(call, work)
    return json_response(answers.encode(InputTokens(count)), headers=ignored_header(ignored))


def without_include(call: Call) -> dict[str, str]:
    """Return the query without `include`: what it may name, there is none of here."""
    query = call.request.query.items()
    return {name: value for name, value in query if name.partition("[")[0] != "include"}


def _ask(
    services: Services, call: Call, fields: ResponseRequest, messages: Sequence[Message]
) -> Ask:
    check_streamed(fields.stream_options, fields.stream)
    parameters = Parameters(
        model=fields.model,
        max_tokens=fields.max_output_tokens,
        stream=fields.stream,
        temperature=fields.temperature,
        top_p=fields.top_p,
        top_k=fields.top_k,
        min_p=fields.min_p,
        seed=fields.seed,
    )
    chat = _chat(services, fields, messages)
    asked = ask_chat(services, call, parameters, chat, wanted(fields), RESPONSES)
    if LOGPROBS not in (fields.include or ()):
        return asked
    return replace(
        asked,
        sampling=replace(asked.sampling, top_logprobs=fields.top_logprobs or 0),
        rules=replace(asked.rules, detailed=True),
    )


def _chat(services: Services, fields: InputFields, messages: Sequence[Message]) -> Conversation:
    if fields.instructions:
        messages = [Message(role="system", content=fields.instructions), *messages]
    chat = Conversation(messages=messages, tools=wanted(fields).tools)
    return truncated(services, chat) if fields.truncation == "auto" else chat


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


async def _before(services: Services, call: Call, fields: InputFields) -> list[Message]:
    """Return the conversation that a request continues.

    Raises:
        InvalidRequest: there is none.
    """
    if (response_id := fields.previous_response_id) is None:
        return []
    param = "previous_response_id"
    try:
        kept = await find(services, call, response_id)
    except NotFound as error:
        raise InvalidRequest(
            f"{param}: {error.message}", param=param, code="previous_response_not_found"
        ) from error
    if (status := msgspec.json.decode(kept.body, type=_Status).status) not in COMPLETE:
        raise InvalidRequest(
            f"{param}: {response_id!r} is {status}, and cannot be continued",
            param=param,
            code="previous_response_not_complete",
        )
    return _read(kept).messages


async def _keep(
    services: Services, call: Call, messages: list[Message], body: ResponseBody
) -> bool:
    """Keep a response and its conversation, without instructions, which count only once.

    One that has not begun replaces none, since it may have ended meanwhile.
    """
    so_far = Kept([*messages, *continued(body.output)], prompt=len(messages))
    kept = KeptResponse(body.id, call.key, answers.encode(body), answers.encode(so_far))
    return await stored.keep(
        services.meter.ledger.database,
        kept,
        services.stored_responses,
        replace=body.status != "queued",
    )


def _read(kept: KeptResponse) -> Kept:
    """Return the conversation of a response.

    Raises:
        InvalidRequest: an older version of the server has kept it in another form.
    """
    try:
        return msgspec.json.decode(kept.conversation, type=Kept)
    except msgspec.ValidationError as error:
        raise InvalidRequest(
            f"{kept.id!r} was kept by an older version of this server, and can only be read",
            code="response_too_old",
        ) from error


async def find(services: Services, call: Call, response_id: str) -> KeptResponse:
    """Return a response of the caller's key.

    Raises:
        NotFound: there is none of this id, or it is another's.
    """
    kept = await stored.kept(services.meter.ledger.database, response_id)
    if kept is None or kept.key != call.key:
        raise NotFound(f"no response is kept for {response_id!r}", code="response_not_found")
    return kept


ROUTES = (
    Route(
        "POST",
        ENDPOINT,
        respond,
        Operation(
            ResponseBody,
            ResponseRequest,
            event=Event,
            example={"input": "Who are you?", "max_output_tokens": 8},
        ),
        limited=True,
    ),
    Route(
        "POST",
        f"{ENDPOINT}/input_tokens",
        count_input,
        Operation(InputTokens, InputTokensRequest, example={"input": "Who are you?"}),
    ),
    Route(
        "GET",
        f"{ENDPOINT}/*/input_items",
        list_input,
        Operation(InputItemList, query=InputItemsQuery),
    ),
    Route("GET", f"{ENDPOINT}/*", response, Operation(ResponseBody)),
    Route("DELETE", f"{ENDPOINT}/*", delete, Operation(ResponseDeleted)),
)
