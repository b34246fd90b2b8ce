"""OpenAI's response bodies as msgspec types.

Answers are declared field by field, so that each one on the wire has exactly these keys.

Read next: `streamtok.answer.complete`.
"""

from typing import Generic, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from streamtok.answer.events import Usage
from streamtok.errors import RequestError

Choice = TypeVar("Choice")


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


class FunctionDelta(Struct, omit_defaults=True):
    """What a chunk adds to a call: its name once, then its arguments bit by bit."""

    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET


class ToolCallDelta(Struct, omit_defaults=True):
    """What a chunk adds to the call number `index` of a message."""

    index: int
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
    function: FunctionDelta | UnsetType = UNSET


class Delta(Struct, omit_defaults=True):
    """What a chunk adds to a chat message."""

    role: str | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET


class ChatChunkChoice(Struct):
    """A choice in a chunk of a streamed chat."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: str | None
    token_ids: list[int] | UnsetType = UNSET


class FunctionBody(Struct):
    """The function that a call calls; `arguments` are JSON as the model wrote it."""

    name: str
    arguments: str


class ToolCallBody(Struct):
    """A call of a function."""

    id: str
    function: FunctionBody
    type: str = "function"


class ChatMessage(Struct):
    """The whole answer of a chat; it calls tools, or has content, or both."""

    content: str | None
    role: str = "assistant"
    refusal: None = None
    tool_calls: list[ToolCallBody] | UnsetType = UNSET


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


class Envelope(Struct, Generic[Choice], kw_only=True):
    """What all chunks and answers of one request share.

    `usage`, `obfuscation` and all token ids are absent where they were not asked for.
    """

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice]
    usage: UsageBody | UnsetType | None = UNSET
    obfuscation: str | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET


class ChatCompletion(Envelope[ChatChoice], kw_only=True):
    """The answer of `POST /v1/chat/completions`."""


class ChatCompletionChunk(Envelope[ChatChunkChoice], kw_only=True):
    """One event of a streamed chat."""


class Completion(Envelope[CompletionChoice], kw_only=True):
    """The answer of `POST /v1/completions`, and one event of it if it is streamed."""


_encoder = msgspec.json.Encoder()
encode = _encoder.encode


def error_body(error: RequestError) -> bytes:
    """Return an error as JSON text."""
    body = ErrorBody(error.message, error.type, error.param, error.code)
    return encode(ErrorResponse(body))


def usage_body(usage: Usage) -> UsageBody:
    """Return `usage` as OpenAI has it."""
    details = PromptDetails(usage.cached_tokens)
    return UsageBody(usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, details)
