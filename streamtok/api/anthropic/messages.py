"""`POST /v1/messages` and `POST /v1/messages/count_tokens`: Anthropic's format.

A request is translated to a chat; the answer is told in Anthropic's events. Errors have its shape
too. Read next: `streamtok.api.anthropic.history`, then `streamtok.api.anthropic.events`.
"""

from dataclasses import replace
from functools import partial

from streamtok.answer.ask import Ask, Surface
from streamtok.api.anthropic.events import MessageEvents, error_body
from streamtok.api.anthropic.history import chosen, conversation, offered
from streamtok.api.anthropic.types import (
    DOCUMENTED,
    CountRequest,
    MessageRequest,
    NoChoice,
    TokenCount,
)
from streamtok.api.constraints.tools import described
from streamtok.api.endpoint import answer
from streamtok.api.openai import answers, chat
from streamtok.api.openai import types as requests
from streamtok.api.openai.types import ChatRequest
from streamtok.api.services import Call, Services
from streamtok.errors import RequestError
from streamtok.http.framings import TYPED_OFFERS
from streamtok.http.response import Response, json_response

ENDPOINT = "/v1/messages"
MESSAGES = Surface(ENDPOINT, "msg_", "messages", TYPED_OFFERS)


async def message(services: Services, call: Call) -> Response:
    """`POST /v1/messages`: a chat in Anthropic's format."""
    fields, ignored = services.read(call, MessageRequest, DOCUMENTED)
    asked = _ask(services, call, fields)
    is_cut = asked.prompt_tokens + fields.max_tokens > services.engine.context
    dialect = MessageEvents(partial(services.new_id, "toolu_"), is_cut)
    return await answer(services, call, asked, dialect, ignored)


async def count_tokens(services: Services, call: Call) -> Response:
    """`POST /v1/messages/count_tokens`: how many tokens a prompt has."""
    fields, ignored = services.read(call, CountRequest, DOCUMENTED)
    services.check_model(fields.model)
    messages, begun = conversation(fields)
    shown = () if isinstance(fields.tool_choice, NoChoice) else described(offered(fields))
    count = len(chat.prompt_ids(services, messages, begun, shown))
    body = answers.encode(TokenCount(count))
    return json_response(body, headers=requests.ignored_header(ignored))


def refuse(error: RequestError) -> Response:
    """Return the answer that tells the client of `error`."""
    return json_response(error_body(error), error.status, error.headers())


def _ask(services: Services, call: Call, fields: MessageRequest) -> Ask:
    messages, begun = conversation(fields)
    chat_fields = ChatRequest(
        model=fields.model,
        messages=messages,
        tools=offered(fields),
        tool_choice=chosen(fields.tool_choice),
        parallel_tool_calls=not getattr(fields.tool_choice, "disable_parallel_tool_use", False),
        max_tokens=fields.max_tokens,
        stop=fields.stop_sequences,
        stream=fields.stream,
        temperature=fields.temperature,
        top_p=fields.top_p,
        top_k=fields.top_k,
        min_p=fields.min_p,
        seed=fields.seed,
    )
    asked = chat.ask(services, call, chat_fields, MESSAGES, begun)
    parts = [replace(p, field=f"tools[{i}].input_schema") for i, p in enumerate(asked.parts)]
    return replace(asked, parts=parts)
