"""The JSON of OpenAI's Responses API, in and out, as types.

Requests hold every field of it that is supported; what it documents besides stands in `DOCUMENTED`,
as a hint or refused by name. Read next: `streamtok.api.responses`.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from streamtok.api.requests import (
    Documented,
    MaxTokens,
    RefusalPart,
    Seed,
    Share,
    Temperature,
    TopP,
)
from streamtok.api.structured import Name, NamedSchema, ObjectFormat, TextFormat
from streamtok.api.tools import MAX_TOOLS

DOCUMENTED = Documented(
    hints=frozenset(
        {
            "prompt_cache_key",
            "prompt_cache_options",
            "prompt_cache_retention",
            "safety_identifier",
        }
    ),
    refused={
        "access_programs": (None,),
        "background": (None, False),
        "background_options": (None,),
        "context_management": (None, []),
        "conversation": (None,),
        "image": (None,),
        "include": (None, []),
        "max_tool_calls": (None,),
        "moderation": (None,),
        "prompt": (None,),
        "reasoning": (None, {}, {"effort": None}, {"effort": "none"}),
        "service_tier": (None, "auto", "default"),
        "top_logprobs": (None, 0),
        "truncation": (None, "disabled"),
    },
    expected={
        "input[].role": "; expected system, developer, user or assistant",
        "input[].type": "; only message, function_call and function_call_output are supported",
        "tools[].type": "; only functions are supported",
        "tool_choice.type": "; expected function or allowed_tools",
        "input[].content[].type": "; only input_text, output_text and refusal are supported",
        "text.format.type": "; expected text, json_object or json_schema",
    },
)


class InputText(Struct, tag="input_text", tag_field="type"):
    """Text for the model."""

    text: str


class OutputText(Struct, tag="output_text", tag_field="type"):
    """Text of the model."""

    text: str
    annotations: list[Any] = []
    logprobs: list[Any] = []


class InputItem(Struct):
    """One item of the input: a message, a call that was made, or what a call has given.

    A message need not say that it is one, so that all three are one type; each has its own fields.
    """

    type: Literal["message", "function_call", "function_call_output"] = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[InputText | OutputText | RefusalPart] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[InputText] | None = None


class FunctionTool(Struct, tag="function", tag_field="type"):
    """A function that may be called; `strict` unless it says otherwise."""

    name: Name
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class FunctionChoice(Struct, tag="function", tag_field="type"):
    """The function that is to be called."""

    name: str


class SomeTools(Struct, tag="allowed_tools", tag_field="type"):
    """The functions that may be called, or of which one must be."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[FunctionChoice], Meta(min_length=1)]


ResponseChoice = Literal["none", "auto", "required"] | FunctionChoice | SomeTools


class FlatSchemaFormat(NamedSchema, tag="json_schema", tag_field="type"):
    """JSON that a schema describes."""


class TextConfig(Struct):
    """What the answer's text must be."""

    format: TextFormat | ObjectFormat | FlatSchemaFormat = field(default_factory=TextFormat)
    verbosity: Literal["medium"] | None = None


class StreamConfig(Struct, forbid_unknown_fields=True):
    """`stream_options`."""

    include_obfuscation: bool = False


class ResponseRequest(Struct, kw_only=True):
    """`POST /v1/responses`; `seed`, `top_k` and `min_p` are extensions."""

    input: str | Annotated[list[InputItem], Meta(min_length=1)]
    model: str | None = None
    instructions: str | None = None
    max_output_tokens: MaxTokens | None = None
    metadata: Annotated[dict[str, str], Meta(max_length=16)] | None = None
    min_p: Share | None = None
    parallel_tool_calls: bool | None = None
    previous_response_id: str | None = None
    seed: Seed | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: StreamConfig | None = None
    temperature: Temperature | None = None
    text: TextConfig | None = None
    tool_choice: ResponseChoice | None = None
    tools: Annotated[list[FunctionTool], Meta(max_length=MAX_TOOLS)] | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    top_p: TopP | None = None
    user: str | None = None


class InputDetails(Struct):
    """What of the input did not have to be computed again."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(Struct):
    """What of the output nobody sees: nothing."""

    reasoning_tokens: int = 0


class ResponseUsage(Struct):
    """What a response cost, in tokens."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class OutputMessage(Struct, tag="message", tag_field="type"):
    """The answer, an item of the output."""

    id: str
    status: str
    content: list[OutputText]
    role: str = "assistant"


class FunctionCall(Struct, tag="function_call", tag_field="type"):
    """A call, an item of the output; its `arguments` are JSON."""

    id: str
    call_id: str
    name: str
    arguments: str
    status: str


OutputItem = OutputMessage | FunctionCall


class ResponseError(Struct):
    """Why a response failed."""

    code: str
    message: str


class IncompleteDetails(Struct):
    """Why a response is not complete."""

    reason: str


class Reasoning(Struct):
    """How the model thinks before it answers: it does not."""

    effort: None = None
    summary: None = None


class ResponseBody(Struct, kw_only=True):
    """A response, at any time of its life."""

    id: str
    object: str = "response"
    created_at: int
    status: str = "in_progress"
    completed_at: int | None = None
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    model: str
    output: list[OutputItem] = []
    parallel_tool_calls: bool
    previous_response_id: str | None
    reasoning: Reasoning = field(default_factory=Reasoning)
    store: bool
    temperature: float
    text: TextConfig
    tool_choice: ResponseChoice
    tools: list[FunctionTool]
    top_logprobs: int = 0
    top_p: float
    truncation: str = "disabled"
    usage: ResponseUsage | None = None
    user: str | None
    metadata: dict[str, str]
    background: bool = False
    service_tier: str = "default"


class ResponseDeleted(Struct):
    """What `DELETE /v1/responses/{id}` answers."""

    id: str
    object: str = "response"
    deleted: bool = True


class ResponseCreated(Struct, tag="response.created", tag_field="type"):
    """The first event."""

    sequence_number: int
    response: ResponseBody


class ResponseInProgress(Struct, tag="response.in_progress", tag_field="type"):
    """The model has begun."""

    sequence_number: int
    response: ResponseBody


class ItemAdded(Struct, tag="response.output_item.added", tag_field="type"):
    """The event before an item of the output."""

    sequence_number: int
    output_index: int
    item: OutputItem


class PartAdded(Struct, tag="response.content_part.added", tag_field="type"):
    """The event before a part of a message."""

    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    part: OutputText


class OutputTextDelta(Struct, tag="response.output_text.delta", tag_field="type"):
    """More text."""

    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    delta: str
    logprobs: list[Any] = []
    obfuscation: str | UnsetType = UNSET


class OutputTextDone(Struct, tag="response.output_text.done", tag_field="type"):
    """All of the text."""

    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    text: str
    logprobs: list[Any] = []


class PartDone(Struct, tag="response.content_part.done", tag_field="type"):
    """The event behind a part."""

    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    part: OutputText


class ItemDone(Struct, tag="response.output_item.done", tag_field="type"):
    """The event behind an item."""

    sequence_number: int
    output_index: int
    item: OutputItem


class ArgumentsDelta(Struct, tag="response.function_call_arguments.delta", tag_field="type"):
    """More of a call's arguments."""

    sequence_number: int
    item_id: str
    output_index: int
    delta: str
    obfuscation: str | UnsetType = UNSET


class ArgumentsDone(Struct, tag="response.function_call_arguments.done", tag_field="type"):
    """All of a call's arguments."""

    sequence_number: int
    item_id: str
    output_index: int
    name: str
    arguments: str


class ResponseCompleted(Struct, tag="response.completed", tag_field="type"):
    """The last event of a response that ended by itself."""

    sequence_number: int
    response: ResponseBody


class ResponseIncomplete(Struct, tag="response.incomplete", tag_field="type"):
    """The last event of a response that was cut."""

    sequence_number: int
    response: ResponseBody


class ResponseFailed(Struct, tag="response.failed", tag_field="type"):
    """The last event of a response that failed."""

    sequence_number: int
    response: ResponseBody


Event = (
    ResponseCreated
    | ResponseInProgress
    | ItemAdded
    | PartAdded
    | OutputTextDelta
    | OutputTextDone
    | PartDone
    | ItemDone
    | ArgumentsDelta
    | ArgumentsDone
    | ResponseCompleted
    | ResponseIncomplete
    | ResponseFailed
)
