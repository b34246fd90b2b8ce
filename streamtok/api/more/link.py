"""`GET /v1/generate?prompt=...`: text for a link, a browser's EventSource, or `nc`.

The query's fields are few and mean what they mean in the other two endpoints, which this one hands
them to. The answer is always streamed: bare text, or events for a client that asks for them.
"""

from dataclasses import replace

from streamtok.api.endpoint import Order, answer
from streamtok.api.openai import chat, completions
from streamtok.api.openai import types as requests
from streamtok.api.openai.types import ChatRequest, CompletionRequest, LinkQuery, Message
from streamtok.api.services import Call, Services
from streamtok.http.framings import EVENT_STREAM, JSON_LINES, PLAIN_TEXT, Offer
from streamtok.http.response import Response

ENDPOINT = "/v1/generate"
OFFERS: tuple[Offer, ...] = (
    ("text/plain", PLAIN_TEXT),
    ("text/event-stream", EVENT_STREAM),
    ("application/x-ndjson", JSON_LINES),
)


async def generate(services: Services, call: Call) -> Response:
    """Continue the query's prompt, or answer it where `chat` is true."""
    query = requests.read_query(call.request.query)
    order = replace(
        _order(services, query), endpoint=ENDPOINT, prompt_field="prompt", offers=OFFERS
    )
    return await answer(services, call, order)


def _order(services: Services, query: LinkQuery) -> Order:
    given = {
        name: value
        for name in ("model", "max_tokens", "temperature", "top_p", "seed", "stop")
        if (value := getattr(query, name)) is not None
    }
    if query.chat:
        messages = [Message(role="user", content=query.prompt)]
        return chat.order(services, ChatRequest(messages=messages, stream=True, **given))
    fields = CompletionRequest(prompt=query.prompt, stream=True, **given)
    return completions.order(services, fields)
