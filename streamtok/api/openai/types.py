"""OpenAI's request bodies as msgspec types.

Requests hold every field of OpenAI's endpoints that is supported, with its range, and the fields
of other servers that frameworks send; what is documented elsewhere and not supported here is in
`streamtok.api.input.documented`, and refused by name.

Read next: `streamtok.api.openai.chat`.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from streamtok.api.parameters import MaxTokens, Parameters, StopText, TokenId

MAX_CANDIDATES = 20
MAX_TOOLS = 128
# Python's `$` is before a last line break too
Name = Annotated[
    str,
    Meta(
        pattern=r"^[a-zA-Z0-9_-]{1,64}$(?!\n)",
        description="1 to 64 letters, digits, underscores or hyphens",
    ),
]
JsonSchema = dict[str, Any]


class StreamOptions(Struct, forbid_unknown_fields=True):
    """`stream_options`: what a stream carries besides text."""

    include_usage: bool = False
    include_obfuscation: bool = False
    continuous_usage_stats: bool = False


# What an answer must be


class TextFormat(Struct, tag="text", tag_field="type"):
    """Any text, which is the default."""


class ObjectFormat(
    Struct,
    tag="json_object",
    tag_field="type",
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """A JSON object; one that `schema` describes where llama.cpp's clients send that."""

    schema: JsonSchema | None = None


class NamedSchema(Struct, forbid_unknown_fields=True):
    """A JSON schema; without `strict`, what cannot be enforced of it is passed over."""

    name: Name
    schema: JsonSchema = {}
    strict: bool | None = None
    description: str | None = None


class SchemaFormat(Struct, tag="json_schema", tag_field="type"):
    """JSON that a schema describes."""

    json_schema: NamedSchema


ResponseFormat = TextFormat | ObjectFormat | SchemaFormat


class Grammar(Struct, forbid_unknown_fields=True):
    """What matches a grammar or a regular expression, from end to end."""

    syntax: Literal["lark", "regex", "gbnf"]
    definition: Annotated[str, Meta(min_length=1)]


class StructuredOutputs(Struct, forbid_unknown_fields=True):
    """`structured_outputs`, as vLLM has it: one of these."""

    json: JsonSchema | str | None = None
    regex: StopText | None = None
    choice: Annotated[list[str], Meta(min_length=1)] | None = None
    grammar: StopText | None = None
    json_object: bool | None = None


class StructuredFields(Parameters, kw_only=True):
    """What chats and completions have in common, and what says what their answers must be.

    `grammar` is an extension in the form of OpenAI's grammars for custom tools, or GBNF as
    llama.cpp has it, which has `json_schema` too. The others are vLLM's.
    """

    response_format: ResponseFormat | None = None
    grammar: Grammar | StopText | None = None
    json_schema: JsonSchema | None = None
    guided_json: JsonSchema | str | None = None
    guided_regex: StopText | None = None
    guided_choice: Annotated[list[str], Meta(min_length=1)] | None = None
    guided_grammar: StopText | None = None
    structured_outputs: StructuredOutputs | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None


# Functions


class Function(Struct, omit_defaults=True):
    """A function; without `strict`, what cannot be enforced of its parameters is passed over."""

    name: Name
    description: str | None = None
    parameters: JsonSchema | None = None
    strict: bool | None = None


class Tool(Struct, tag="function", tag_field="type"):
    """A function that may be called."""

    function: Function


class FunctionName(Struct):
    """Which function."""

    name: str


class NamedTool(Struct, tag="function", tag_field="type"):
    """The function that is to be called."""

    function: FunctionName


class AllowedTools(Struct):
    """The functions that may be called, or of which one must be."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Meta(min_length=1)]


class AllowedChoice(Struct, tag="allowed_tools", tag_field="type"):
    """A choice among some of the functions."""

    allowed_tools: AllowedTools


ToolChoice = Literal["none", "auto", "required"] | NamedTool | AllowedChoice


# Messages


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
    """One message of a chat; what it has besides is in `extra`, for templates that know it."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart | RefusalPart] | None = None
    name: str | None = None
    refusal: str | None = None
    audio: Any = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: Any = None
    extra: dict[str, Any] = {}


# Requests


class ChatRequest(StructuredFields, kw_only=True):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: MaxTokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: Annotated[list[Tool], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    parse_special: bool | None = None


class CompletionRequest(StructuredFields, kw_only=True):
    """`POST /v1/completions`; a list of strings or of id lists is a batch.

    Without a prompt (None) a new text is begun.
    """

    prompt: str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1)] | None
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    echo: bool | None = None
    best_of: Annotated[int, Meta(ge=1, le=MAX_CANDIDATES)] | None = None


# What says what an answer must be, by the name that it has in one server or another
CONSTRAINTS = (
    "ebnf",
    "format",
    "grammar",
    "guided_choice",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "json_schema",
    "regex",
    "response_format",
    "structural_tag",
    "structured_outputs",
)
