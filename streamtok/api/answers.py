"""The JSON that goes out, as types: encoding by msgspec.

Answers are declared field by field, so that each one on the wire has exactly these keys.
"""

from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from streamtok.errors import RequestError


class TokenPiece(Struct):
    """A token of `POST /tokenize`: its text, or its bytes where they are no text by themselves."""

    id: int
    piece: str | list[int]


class ErrorBody(Struct):
    """OpenAI's error object: always all four keys."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(Struct):
    """The body of every answer that is an error, and of an error event in a stream."""

    error: ErrorBody


class PromptDetails(Struct):
    """Part of `usage`: how many tokens of the prompt did not have to be computed again."""

    cached_tokens: int


class UsageBody(Struct):
    """`usage`: what a request cost, in tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class TopLogprob(Struct):
    """An alternative at one position of a chat."""

    token: str
    logprob: float
    bytes: list[int]


class ChatLogprob(Struct):
    """One token of a chat with its log-probability."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Struct):
    """`logprobs` of a chat."""

    content: list[ChatLogprob]
    refusal: None = None


class CompletionLogprobs(Struct):
    """`logprobs` of a completion: parallel lists, one item per token.

    Nothing comes before a prompt's first token, which has None for its log-probabilities.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class Delta(Struct, omit_defaults=True):
    """What a chunk adds to a chat message."""

    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET


class ChatChunkChoice(Struct):
    """A choice in a chunk of a streamed chat."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: str | None
    token_ids: list[int] | UnsetType = UNSET


class ChatMessage(Struct):
    """The whole answer of a chat."""

    content: str
    role: str = "assistant"
    refusal: None = None


class ChatChoice(Struct):
    """A choice of a chat that is not streamed."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: str
    token_ids: list[int] | UnsetType = UNSET


class CompletionChoice(Struct):
    """A choice of a completion, streamed or not."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: str | None
    token_ids: list[int] | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET


class Envelope(Struct, kw_only=True):
    """What all chunks and answers of one request share.

    `usage`, `obfuscation` and all token ids are absent where they were not asked for.
    """

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice] | list[ChatChoice] | list[CompletionChoice]
    usage: UsageBody | UnsetType | None = UNSET
    obfuscation: str | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET


class ModelBody(Struct):
    """One entry of `GET /v1/models`."""

    id: str
    created: int
    owned_by: str = "streamtok"
    object: str = "model"


class ListBody(Struct):
    """A list of objects."""

    data: list[Any]
    object: str = "list"


_encoder = msgspec.json.Encoder()
encode = _encoder.encode


def error_body(error: RequestError) -> bytes:
    """Return an error as JSON text."""
    body = ErrorBody(error.message, error.type, error.param, error.code)
    return encode(ErrorResponse(body))
