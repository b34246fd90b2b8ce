"""The JSON of OpenAI's Responses API that comes in, as types.

Requests hold every field of it that is supported; what it documents besides is in `DOCUMENTED`, as
a hint or refused by name. Read next: `streamtok.api.responses.answers`.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from streamtok.api.input.documented import Documented
from streamtok.api.openai.types import (
    CONSTRAINTS,
    MAX_TOOLS,
    JsonSchema,
    Name,
    NamedSchema,
    ObjectFormat,
    RefusalPart,
    TextFormat,
)
from streamtok.api.parameters import MaxTokens, Seed, Share, Temperature, TopK, TopP

LOGPROBS = "message.output_text.logprobs"
# What of the output may be asked for besides; what there is none of here is no harm
Includable = Literal[
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
]

DOCUMENTED = Documented(
    hints=frozenset(
        {
            "access_programs",
            "background_options",
            "max_tool_calls",  # of tools that the server calls, of which it has none
            "prompt_cache_key",
            "prompt_cache_options",
            "prompt_cache_retention",
            "reasoning",  # the model does not think before it answers
            "resumable",  # see `streamtok.api.resume`
            "safety_identifier",
            "service_tier",
        }
    ),
    refused={
        **dict.fromkeys(CONSTRAINTS, ()),
        "context_management": ([],),
        "conversation": (),
        "image": (),
        "moderation": (),
        "prompt": (),
    },
    instead=dict.fromkeys(CONSTRAINTS, "use text.format"),
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
    """One item of the input: a message, a call that was made, its result, or earlier reasoning.

    A message need not say that it is one, so that all four are one type; each has its own fields.
    """

    type: Literal["message", "function_call", "function_call_output", "reasoning"] = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[InputText | OutputText | RefusalPart] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[InputText] | None = None


class FunctionTool(Struct, tag="function", tag_field="type"):
    """A function that may be called; `strict` unless it says otherwise."""

    name: Name
    parameters: JsonSchema | None = None
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
    """What the answer's text must be; how verbose it is to be has no effect."""

    format: TextFormat | ObjectFormat | FlatSchemaFormat = field(default_factory=TextFormat)
    verbosity: Literal["low", "medium", "high"] | None = None


class StreamConfig(Struct, forbid_unknown_fields=True):
    """`stream_options`."""

    include_obfuscation: bool = False


class InputFields(Struct, kw_only=True):
    """What the input of a response is made of."""

    model: str | None = None
    instructions: str | None = None
    parallel_tool_calls: bool | None = None
    previous_response_id: str | None = None
    text: TextConfig | None = None
    tool_choice: ResponseChoice | None = None
    tools: Annotated[list[FunctionTool], Meta(max_length=MAX_TOOLS)] | None = None
    truncation: Literal["auto", "disabled"] | None = None


Input = str | Annotated[list[InputItem], Meta(min_length=1)]


class InputTokensRequest(InputFields, kw_only=True):
    """`POST /v1/responses/input_tokens`."""

    input: Input | None = None


class ResponseRequest(InputFields, kw_only=True):
    """`POST /v1/responses`; `seed`, `top_k` and `min_p` are extensions."""

    input: Input
    background: bool | None = None
    include: list[Includable] | None = None
    max_output_tokens: MaxTokens | None = None
    metadata: Annotated[dict[str, str], Meta(max_length=16)] | None = None
    min_p: Share | None = None
    seed: Seed | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: StreamConfig | None = None
    temperature: Temperature | None = None
    top_k: TopK | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    top_p: TopP | None = None
    user: str | None = None


class InputItemsQuery(Struct, forbid_unknown_fields=True):
    """`GET /v1/responses/{id}/input_items`: what a query can say."""

    after: str | None = None
    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    order: Literal["asc", "desc"] = "desc"
