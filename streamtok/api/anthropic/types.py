"""The JSON of Anthropic's Messages API, in and out, as types.

Requests hold every field of it that is supported; what it documents besides stands in `DOCUMENTED`,
as a hint or refused by name. Read next: `streamtok.api.anthropic.messages`.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from streamtok.api.input.documented import Documented
from streamtok.api.openai.types import CONSTRAINTS, MAX_TOOLS, JsonSchema, Name
from streamtok.api.parameters import MaxTokens, Seed, Share, StopText, TopK, TopP

MAX_STOPS = 16

DOCUMENTED = Documented(
    hints=frozenset(
        {
            "billing_policy",
            "cache_control",  # of a block too: what was computed is kept anyway
            "diagnostics",
            "inference_geo",
            "metadata",
            "resumable",  # see `streamtok.api.resume`
            "service_tier",
            "speed",
            "thinking",  # the model does not think before it answers
            "user_profile_id",
            "workspace_id",
        }
    ),
    refused={
        **dict.fromkeys(CONSTRAINTS, ()),
        "compaction": (),
        "container": (),
        "context_management": ({}, {"edits": []}),
        "fallbacks": ([],),
        "mcp_servers": ([],),
        "thread": (),
    },
    instead=dict.fromkeys(CONSTRAINTS, "use output_config.format"),
)


class TextBlock(Struct, tag="text", tag_field="type"):
    """A block of text."""

    text: str


class ToolUseBlock(Struct, tag="tool_use", tag_field="type"):
    """A call of a tool."""

    id: str
    name: str
    input: dict[str, Any]


class ThinkingBlock(Struct, tag="thinking", tag_field="type"):
    """What a model has thought before it answered."""

    thinking: str
    signature: str = ""


class RedactedBlock(Struct, tag="redacted_thinking", tag_field="type"):
    """What a model has thought, encrypted; nobody here can read it."""

    data: str = ""


class TextSource(Struct, tag="text", tag_field="type"):
    """A document that is a text."""

    data: str
    media_type: Literal["text/plain"] = "text/plain"


class BlocksSource(Struct, tag="content", tag_field="type"):
    """A document that is made of blocks."""

    content: str | list[TextBlock]


class DocumentBlock(Struct, tag="document", tag_field="type"):
    """A document; only what is text can be read."""

    source: TextSource | BlocksSource
    title: str | None = None
    context: str | None = None


class SearchResultBlock(Struct, tag="search_result", tag_field="type"):
    """A text that a search has found."""

    source: str
    title: str
    content: list[TextBlock]


class ToolResultBlock(Struct, tag="tool_result", tag_field="type"):
    """What a call has returned; that it is an error must be said in its text."""

    tool_use_id: str
    content: str | list[TextBlock | DocumentBlock | SearchResultBlock] = ""
    is_error: bool | None = None


Block = (
    TextBlock
    | DocumentBlock
    | SearchResultBlock
    | ThinkingBlock
    | RedactedBlock
    | ToolUseBlock
    | ToolResultBlock
)


class Turn(Struct):
    """What one side says, or the system in between: that may be cleared by the user's next turn."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]
    clear_at: Literal["next_user_message", "never"] | None = None


class SchemaConfig(Struct, tag="json_schema", tag_field="type"):
    """JSON that a schema describes."""

    schema: JsonSchema


class OutputConfig(Struct, forbid_unknown_fields=True):
    """What the answer must be; the effort that it is to cost has no effect."""

    format: SchemaConfig | None = None
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None


class CustomTool(Struct):
    """A tool of the client's own; without `strict`, what cannot be enforced is passed over."""

    name: Name
    input_schema: JsonSchema
    description: str | None = None
    strict: bool | None = None
    type: Literal["custom"] | None = None


class AutoChoice(Struct, tag="auto", tag_field="type"):
    """Tools may be called."""

    disable_parallel_tool_use: bool = False


class AnyChoice(Struct, tag="any", tag_field="type"):
    """A tool must be called."""

    disable_parallel_tool_use: bool = False


class OneChoice(Struct, tag="tool", tag_field="type"):
    """This tool must be called."""

    name: str
    disable_parallel_tool_use: bool = False


class NoChoice(Struct, tag="none", tag_field="type"):
    """No tool may be called."""


Choice = AutoChoice | AnyChoice | OneChoice | NoChoice


class CountRequest(Struct, kw_only=True):
    """`POST /v1/messages/count_tokens`, and what a message has in common with it."""

    messages: Annotated[list[Turn], Meta(min_length=1)]
    model: str | None = None
    system: str | list[TextBlock] | None = None
    tools: Annotated[list[CustomTool], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: Choice | None = None
    output_config: OutputConfig | None = None
    output_format: SchemaConfig | None = None


class MessageRequest(CountRequest, kw_only=True):
    """`POST /v1/messages`; `seed` and `min_p` are extensions."""

    max_tokens: MaxTokens
    stop_sequences: Annotated[list[StopText], Meta(max_length=MAX_STOPS)] | None = None
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    min_p: Share | None = None
    seed: Seed | None = None


class ModelInfo(Struct):
    """A model, where Anthropic's clients list them; limits are in tokens."""

    id: str
    display_name: str
    created_at: str
    max_input_tokens: int
    max_tokens: int
    lifecycle: str = "active"
    type: str = "model"


class ModelInfoList(Struct):
    """What `GET /v1/models` answers to Anthropic's clients."""

    data: list[ModelInfo]
    first_id: str
    last_id: str
    has_more: bool = False


class TokenCount(Struct):
    """What `POST /v1/messages/count_tokens` answers."""

    input_tokens: int


class MessageUsage(Struct):
    """What a message cost; tokens read from what was computed before are not in `input_tokens`."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int = 0


class MessageBody(Struct, tag="message", tag_field="type", kw_only=True):
    """A whole message, and what a stream begins with."""

    id: str
    model: str
    usage: MessageUsage
    role: str = "assistant"
    content: list[TextBlock | ToolUseBlock] = []
    stop_reason: str | None = None
    stop_sequence: str | None = None


class MessageStart(Struct, tag="message_start", tag_field="type"):
    """The first event."""

    message: MessageBody


class BlockStart(Struct, tag="content_block_start", tag_field="type"):
    """The event before a block."""

    index: int
    content_block: TextBlock | ToolUseBlock


class Ping(Struct, tag="ping", tag_field="type"):
    """An event without a meaning, which Anthropic's servers send once at least."""


class TextDelta(Struct, tag="text_delta", tag_field="type"):
    """More text."""

    text: str


class InputDelta(Struct, tag="input_json_delta", tag_field="type"):
    """More of a call's input, which is JSON."""

    partial_json: str


class BlockDelta(Struct, tag="content_block_delta", tag_field="type"):
    """The event for more of a block."""

    index: int
    delta: TextDelta | InputDelta


class BlockStop(Struct, tag="content_block_stop", tag_field="type"):
    """The event behind a block."""

    index: int


class Ending(Struct):
    """Why a message ended."""

    stop_reason: str | None
    stop_sequence: str | None


class MessageDelta(Struct, tag="message_delta", tag_field="type"):
    """The event that tells why the message ended, and what it cost."""

    delta: Ending
    usage: MessageUsage


class MessageStop(Struct, tag="message_stop", tag_field="type"):
    """The last event."""


class ErrorDetail(Struct):
    """What went wrong."""

    type: str
    message: str


class ErrorEvent(Struct, tag="error", tag_field="type"):
    """The body of every answer that is an error, and the last event of a stream that failed."""

    error: ErrorDetail


Event = MessageStart | BlockStart | Ping | BlockDelta | BlockStop | MessageDelta | MessageStop
