"""`GET /v1/generate?prompt=...`: text for a link, a browser's EventSource, or `nc`.

The query's fields are few and mean what they mean in the other two endpoints, which this one hands
them to. The answer is always streamed: bare text, or events for a client that asks for them.
"""

from functools import partial

from streamtok.answer.ask import Surface
from streamtok.api.endpoint import answer
from streamtok.api.input.validation import checked
from streamtok.api.more.types import LinkQuery
from streamtok.api.openai import chat, completions
from streamtok.api.openai.answers import Completion
from streamtok.api.openai.types import ChatRequest, CompletionRequest, Message
from streamtok.api.route import Operation, Route
from streamtok.api.services import Call, Services
from streamtok.http.framings import EVENT_STREAM, JSON_LINES, PLAIN_TEXT, Offer
from streamtok.http.response import Response

OFFERS: tuple[Offer, ...] = (
    ("text/plain", PLAIN_TEXT),
    ("text/event-stream", EVENT_STREAM),
    ("application/x-ndjson", JSON_LINES),
)
ENDPOINT = "/v1/generate"
COMPLETION = Surface(ENDPOINT, completions.COMPLETION.id_prefix, "prompt", OFFERS)
CHAT = Surface(ENDPOINT, chat.CHAT.id_prefix, "prompt", OFFERS)


async def generate(services: Services, call: Call) -> Response:
    """Continue the query's prompt, or answer it where `chat` is true."""
    query = checked(call.request.query, LinkQuery, strict=False)
    given = {
        name: value
        for name in ("model", "max_tokens", "temperature", "top_p", "seed", "stop")
        if (value := getattr(query, name)) is not None
    }
    if query.chat:
        messages = [Message(role="user", content=query.prompt)]
        fields = ChatRequest(messages=messages, stream=True, **given)
        asked = await services.run(call, partial(chat.ask, services, call, fields, CHAT))
        return await answer(services, call, asked, chat.dialect(services, fields, asked), ())
    text = CompletionRequest(prompt=query.prompt, stream=True, **given)
    asked = await services.run(call, partial(completions.ask, services, call, text, COMPLETION))
    return await answer(services, call, asked, completions.dialect(services, text, asked), ())


OPERATION = Operation(
    query=LinkQuery,
    event=Completion,
    media_type="text/plain",
    example={"prompt": "Once upon a time", "max_tokens": 8},
)
ROUTES = (Route("GET", ENDPOINT, generate, OPERATION, limited=True),)
