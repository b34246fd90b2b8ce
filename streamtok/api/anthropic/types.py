"""The JSON of Anthropic's Messages API, in and out, as types.

Requests hold every field of it that is supported; what it documents besides stands in `DOCUMENTED`,
as a hint or refused by name. Read next: `streamtok.api.anthropic.messages`.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from streamtok.api.constraints.structured import Name
from streamtok.api.constraints.tools import MAX_TOOLS
from streamtok.api.openai.types import Documented, MaxTokens, Seed, Share, StopText, TopP

MAX_STOPS = 16

DOCUMENTED = Documented(
    hints=frozenset(
        {
            "cache_control",  # of a block too: what was computed is kept anyway
            "diagnostics",
            "inference_geo",
            "metadata",
            "user_profile_id",
            "workspace_id",
        }
    ),
    refused={
        "container": (None,),
        "context_management": (None,),
        "mcp_servers": (None, []),
        "output_config": (None, {}),
        "output_format": (None,),
        "service_tier": (None, "auto", "standard_only"),
        "speed": (None, "standard"),
        "thinking": (None, {"type": "disabled"}),
    },
    expected={
        "messages[].role": "; expected user or assistant, and the field system for what is before",
        "messages[].content[].type": "; only text, tool_use and tool_result are supported",
        "messages[].content[].content[].type": "; only blocks of type text are supported",
        "system[].type": "; only blocks of type text are supported",
        "tools[].type": "; only custom tools are supported",
        "tool_choice.type": "; expected auto, any, tool or none",
    },
)


class TextBlock(Struct, tag="text", tag_field="type"):
    """A block of text."""

    text: str


class ToolUseBlock(Struct, tag="tool_use", tag_field="type"):
    """A call of a tool."""

    id: str
    name: str
    input: dict[str, Any]


class ToolResultBlock(Struct, tag="tool_result", tag_field="type"):
    """What a call has given; that it is an error must be said in its text."""

    tool_use_id: str
    content: str | list[TextBlock] = ""
    is_error: bool | None = None


class Turn(Struct):
    """What one side says."""

    role: Literal["user", "assistant"]
    content: str | list[TextBlock | ToolUseBlock | ToolResultBlock]


class CustomTool(Struct):
    """A tool of the client's own; without `strict`, what cannot be enforced is passed over."""

    name: Name
    input_schema: dict[str, Any]
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


class MessageRequest(CountRequest, kw_only=True):
    """`POST /v1/messages`; `seed` and `min_p` are extensions."""

    max_tokens: MaxTokens
    stop_sequences: Annotated[list[StopText], Meta(max_length=MAX_STOPS)] | None = None
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: TopP | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    min_p: Share | None = None
    seed: Seed | None = None


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
