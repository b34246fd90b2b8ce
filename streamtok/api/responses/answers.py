"""The JSON of OpenAI's Responses API that goes out, as types: a response, and its events.

Read next: `streamtok.api.responses.events`.
"""

from typing import Any

from msgspec import UNSET, Struct, UnsetType, field

from streamtok.api.responses.types import (
    FunctionTool,
    InputText,
    OutputText,
    ResponseChoice,
    TextConfig,
)


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


class InputMessage(Struct, tag="message", tag_field="type"):
    """A message, an item of the input."""

    id: str
    role: str
    content: list[InputText | OutputText]
    status: str


class FunctionOutput(Struct, tag="function_call_output", tag_field="type"):
    """What a call has returned, an item of the input."""

    id: str
    call_id: str
    output: str
    status: str


InputEntry = InputMessage | FunctionCall | FunctionOutput


class InputItemList(Struct, kw_only=True):
    """What `GET /v1/responses/{id}/input_items` answers."""

    data: list[InputEntry]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: str = "list"


class InputTokens(Struct):
    """What `POST /v1/responses/input_tokens` answers."""

    input_tokens: int
    object: str = "response.input_tokens"


class ResponseDeleted(Struct):
    """What `DELETE /v1/responses/{id}` answers."""

    id: str
    object: str = "response"
    deleted: bool = True


class ResponseCreated(Struct, tag="response.created", tag_field="type"):
    """The first event."""

    sequence_number: int
    response: ResponseBody


class ResponseQueued(Struct, tag="response.queued", tag_field="type"):
    """The response is in the background, and may wait for its turn."""

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
    | ResponseQueued
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
