"""The server's routes: one table, put together from those of each endpoint's module."""

from streamtok.api.anthropic import messages
from streamtok.api.more import embeddings, info, link, openapi, page, tokens, traces
from streamtok.api.openai import chat, completions
from streamtok.api.responses import responses

ROUTES = (
    *chat.ROUTES,
    *completions.ROUTES,
    *link.ROUTES,
    *responses.ROUTES,
    *messages.ROUTES,
    *embeddings.ROUTES,
    *tokens.ROUTES,
    *info.ROUTES,
    *traces.ROUTES,
    *openapi.ROUTES,
    *page.ROUTES,
)
