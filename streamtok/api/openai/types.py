"""The JSON that comes in, as types: validation by msgspec.

Requests hold every field of OpenAI's two endpoints that is supported, with its range; fields that
OpenAI documents and this server does not support stand in `REFUSED` and are refused by name.
Read next: `streamtok.api.openai.answers`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Meta, Struct

from streamtok.api.constraints.structured import StructuredFields
from streamtok.api.constraints.tools import MAX_TOOLS, Tool, ToolChoice
from streamtok.errors import InvalidRequest
from streamtok.http.request import HeaderList
from streamtok.ledger import GROUPS

MAX_CHOICES = 128
MAX_CANDIDATES = 20
MAX_IGNORED = 2048  # characters of the header that names ignored fields
MaxTokens = Annotated[int, Meta(ge=1)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Temperature = Annotated[float, Meta(ge=0, le=2)]
TopP = Annotated[float, Meta(ge=0, le=1)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Share = Annotated[float, Meta(ge=0, le=1)]
TokenId = Annotated[int, Meta(ge=0)]
StopText = Annotated[str, Meta(min_length=1)]
Kind = TypeVar("Kind", bound=Struct)


class StreamOptions(Struct, forbid_unknown_fields=True):
    """`stream_options`: what a stream carries besides text."""

    include_usage: bool = False
    include_obfuscation: bool = False
    continuous_usage_stats: bool = False


class SamplingFields(StructuredFields, kw_only=True):
    """What both endpoints take. None means "not given": the model's own default then holds."""

    model: str | None = None
    max_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    min_p: Share | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    stop: StopText | Annotated[list[StopText], Meta(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=10)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Bias] | None = None
    seed: Seed | None = None
    min_tokens: Annotated[int, Meta(ge=0)] | None = None
    stop_token_ids: list[TokenId] | None = None
    skip_special_tokens: bool | None = None
    return_token_ids: bool | None = None
    user: str | None = None


class TextPart(Struct, tag="text", tag_field="type"):
    """A part of a message's content."""

    text: str


class RefusalPart(Struct, tag="refusal", tag_field="type"):
    """What the assistant said instead of an answer."""

    refusal: str


class CalledFunction(Struct):
    """What was called; `arguments` are JSON as the model wrote it."""

    name: str
    arguments: str


class ToolCall(Struct, tag="function", tag_field="type"):
    """A call the assistant has made."""

    id: str
    function: CalledFunction


class Message(Struct):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart | RefusalPart] | None = None
    name: str | None = None
    refusal: str | None = None
    audio: Any = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: Any = None


class ChatRequest(SamplingFields, kw_only=True):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: MaxTokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: Annotated[list[Tool], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None


class CompletionRequest(SamplingFields, kw_only=True):
    """`POST /v1/completions`; a list of strings or of id lists is a batch.

    Without a prompt (None) a new text is begun.
    """

    prompt: str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1)] | None
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    echo: bool | None = None
    best_of: Annotated[int, Meta(ge=1, le=MAX_CANDIDATES)] | None = None


class EmbeddingRequest(Struct, kw_only=True):
    """`POST /v1/embeddings`; a list of strings or of id lists is a batch."""

    input: StopText | Annotated[list[StopText | TokenId | list[TokenId]], Meta(min_length=1)]
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    user: str | None = None


class TokenizeRequest(Struct):
    """`POST /tokenize`."""

    content: str
    add_special: bool = False
    with_pieces: bool = False


class DetokenizeRequest(Struct):
    """`POST /detokenize`."""

    tokens: list[TokenId]


class TemplateRequest(Struct):
    """`POST /apply-template`."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    tools: list[Tool] | None = None


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


class UsageQuery(Struct):
    """`GET /v1/usage`: times are seconds since 1970, or as ISO 8601 has them."""

    since: str | None = None
    until: str | None = None
    key: str | None = None
    group_by: Literal[*GROUPS] | None = None  # type: ignore[valid-type]


# Documented by OpenAI, without an effect on what is generated: accepted
HINTS = frozenset(
    {
        "metadata",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
    }
)
# Documented by OpenAI and not supported where no field says so: name -> the values that ask for
# nothing
REFUSED: Mapping[str, tuple[Any, ...]] = {
    "audio": (None,),
    "best_of": (None, 1),
    "echo": (None, False),
    "function_call": (None, "none", "auto"),
    "functions": (None, []),
    "modalities": (None, ["text"]),
    "moderation": (None,),
    "prediction": (None,),
    "reasoning_effort": (None, "none"),
    "service_tier": (None, "auto", "default"),
    "store": (None, False),
    "suffix": (None, ""),
    "tool_choice": (None, "none", "auto"),
    "tools": (None, []),
    "verbosity": (None, "medium"),
    "web_search_options": (None,),
}

# What msgspec's message leaves open, by the field's path
EXPECTED = {
    "messages[].role": "; expected system, developer, user, assistant or tool",
    "messages[].content[].type": (
        "; only parts of type text are supported, and refusal of the assistant"
    ),
    "messages[].tool_calls[].type": "; only functions are supported",
    "response_format.type": "; expected text, json_object or json_schema",
    "tool_choice.type": "; expected function or allowed_tools",
    "tools[].type": "; only functions are supported",
}
INSTEAD = {"functions": "; use tools", "function_call": "; use tool_choice"}


@dataclass(frozen=True, slots=True)
class Documented:
    """What an API documents besides the fields that are supported.

    `hints` have no effect on what is generated. `refused` has the values of a field that ask for
    nothing; others are not supported. `expected` completes msgspec's messages, by the field's path.
    """

    hints: frozenset[str]
    refused: Mapping[str, tuple[Any, ...]]
    expected: Mapping[str, str]


OPENAI = Documented(HINTS, REFUSED, EXPECTED)


def read_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a request's body.

    Raises:
        InvalidRequest: the body is not UTF-8, not JSON, or not an object.
    """
    try:
        value = msgspec.json.decode(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"the body is not valid UTF-8: byte 0x{body[error.start]:02x} at offset {error.start}",
            code="invalid_utf8",
        ) from error
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}", code="invalid_json") from error
    except RecursionError as error:
        raise too_deep() from error
    if not isinstance(value, dict):
        raise InvalidRequest("the body must be a JSON object", code="invalid_json")
    return value


def too_deep() -> InvalidRequest:
    """Return the error for a body with more levels than can be read."""
    return InvalidRequest("the body is nested too deeply", code="invalid_json")


def convert(
    value: dict[str, Any], kind: type[Kind], documented: Documented = OPENAI
) -> tuple[Kind, tuple[str, ...]]:
    """Return `value` as a `kind`, and the names of the fields that no one knows.

    Raises:
        InvalidRequest: a field has the wrong type or value, or is not supported; names it.
    """
    refused = documented.refused
    for name in refused.keys() - kind.__struct_fields__:
        if name in value and value[name] not in refused[name]:
            raise InvalidRequest(
                f"{name} is not supported by this server{INSTEAD.get(name, '')}",
                param=name,
                code="unsupported_parameter",
            )
    request = _checked(value, kind, documented)
    known = {*kind.__struct_fields__, *refused, *documented.hints}
    return request, tuple(sorted(value.keys() - known))


def ignored_header(names: tuple[str, ...]) -> HeaderList:
    """Return the header that names the fields no one knows, if there are any.

    A name can be any text, a header cannot: what is more than a word is percent-encoded.
    """
    told = ", ".join(quote(name, safe="[]") for name in names)
    if len(told) > MAX_IGNORED:
        told = told[:MAX_IGNORED] + "..."
    return (("x-ignored-fields", told),) if names else ()


def read_query(query: Mapping[str, str]) -> LinkQuery:
    """Return a query's fields, with numbers and truth values read from their text.

    Raises:
        InvalidRequest: a field is unknown or has a wrong value; names it.
    """
    return _checked(query, LinkQuery, OPENAI, strict=False)


def _checked(
    value: Mapping[str, Any], kind: type[Kind], documented: Documented, *, strict: bool = True
) -> Kind:
    try:
        return msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        place = path.rstrip("`").lstrip(".").replace("[...]", "")  # where msgspec names no key
        param = place or _named_field(message)
        hint = documented.expected.get(re.sub(r"\[\d+\]", "[]", param or ""), "")
        raise InvalidRequest(
            f"{param}: {message}{hint}", param=param, code="invalid_value"
        ) from error


def _named_field(message: str) -> str | None:
    """Return the field that msgspec names in the message itself: a missing or an unknown one."""
    parts = message.split("`")
    return parts[1] if " field " in message and len(parts) > 1 else None
