"""The JSON and the queries that come in at the endpoints beside the answers, as types."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from streamtok.api.more.sums import GROUPS
from streamtok.api.openai.types import Message, Tool
from streamtok.api.parameters import MaxTokens, Seed, StopText, Temperature, TokenId, TopP


class TokenizeRequest(Struct):
    """`POST /tokenize`."""

    content: str
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False


class DetokenizeRequest(Struct):
    """`POST /detokenize`."""

    tokens: list[TokenId]


class TemplateRequest(Struct):
    """`POST /apply-template`."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    tools: list[Tool] | None = None
    add_generation_prompt: bool = True
    chat_template_kwargs: dict[str, Any] = {}


class LinkQuery(Struct, forbid_unknown_fields=True):
    """`GET /v1/generate`: what a query can say."""

    prompt: str
    chat: bool = False
    model: str | None = None
    max_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    seed: Seed | None = None
    stop: StopText | None = None


class UsageQuery(Struct, forbid_unknown_fields=True):
    """`GET /v1/usage`: times are seconds since 1970, or as ISO 8601 has them."""

    since: str | None = None
    until: str | None = None
    key: str | None = None
    group_by: Literal[*GROUPS] | None = None  # type: ignore[valid-type]


class EmbeddingRequest(Struct, kw_only=True):
    """`POST /v1/embeddings`; a list of strings or of id lists is a batch."""

    input: StopText | Annotated[list[StopText | TokenId | list[TokenId]], Meta(min_length=1)]
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    user: str | None = None
