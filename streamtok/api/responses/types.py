"""The JSON of OpenAI's Responses API that comes in, as types.

Requests hold every field of it that is supported; what it documents besides stands in `DOCUMENTED`,
as a hint or refused by name. Read next: `streamtok.api.responses.answers`.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from streamtok.api.constraints.structured import Name, NamedSchema, ObjectFormat, TextFormat
from streamtok.api.constraints.tools import MAX_TOOLS
from streamtok.api.openai.types import (
    Documented,
    MaxTokens,
    RefusalPart,
    Seed,
    Share,
    Temperature,
    TopP,
)

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
