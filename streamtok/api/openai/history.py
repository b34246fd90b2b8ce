"""OpenAI's messages, tools and response formats, parsed into the neutral conversation.

Read next: `streamtok.text.template`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from streamtok.api.conversation import (
    Conversation,
    Form,
    Message,
    Tool,
    ToolCall,
    ToolChoice,
    Wanted,
)
from streamtok.api.openai import types
from streamtok.api.openai.types import (
    AllowedChoice,
    ChatRequest,
    NamedTool,
    ObjectFormat,
    RefusalPart,
    SchemaFormat,
    StructuredFields,
    StructuredOutputs,
)
from streamtok.errors import InvalidRequest

ANY_OBJECT = {"type": "object"}


def conversation(fields: ChatRequest) -> Conversation:
    """Return the chat of a request.

    Raises:
        InvalidRequest: a message lacks what it must have, or has what it cannot have; or the last
            one cannot be continued as it is asked for.
    """
    messages = read_messages(fields.messages)
    continues = _continues(fields, messages[-1])
    return Conversation(
        messages=messages,
        tools=tools(fields.tools or ()),
        continues=continues,
        answers=not continues and fields.add_generation_prompt is not False,
        variables=fields.chat_template_kwargs or {},
        parse_special=bool(fields.parse_special),
    )


def wanted(fields: ChatRequest) -> Wanted:
    """Return what the answer to a chat must be.

    Raises:
        InvalidRequest: the choice among the tools cannot be met.
    """
    offered = tools(fields.tools or ())
    choice = _choice(fields)
    if not offered and (choice.required or choice.names is not None):
        raise _wrong("tool_choice", "there are no tools to choose from")
    return Wanted(
        forms=tuple(forms(fields)),
        tools=() if fields.tool_choice == "none" else offered,
        choice=choice,
        endless=bool(fields.ignore_eos),
    )


def tools(given: Sequence[types.Tool]) -> Sequence[Tool]:
    """Return `given` tools."""
    return tuple(
        Tool(
            tool.function.name,
            tool.function.description,
            tool.function.parameters,
            tool.function.strict,
            field=f"tools[{index}].function.parameters",
        )
        for index, tool in enumerate(given)
    )


def _choice(fields: ChatRequest) -> ToolChoice:
    choice, several = fields.tool_choice, fields.parallel_tool_calls is not False
    if isinstance(choice, NamedTool):
        return ToolChoice((choice.function.name,), True, False, "tool_choice.function.name")
    if isinstance(choice, AllowedChoice):
        allowed = choice.allowed_tools
        names = tuple(dict.fromkeys(tool.function.name for tool in allowed.tools))
        required = allowed.mode == "required"
        return ToolChoice(names, required, several, "tool_choice.allowed_tools.tools")
    return ToolChoice(required=choice == "required", several=several)


# Forms


def forms(fields: StructuredFields) -> Iterator[Form]:
    """Yield each form that the answer is to have: OpenAI's fields, ours and other servers'."""
    yield from _format(fields)
    if isinstance(fields.grammar, str):
        yield Form("gbnf", fields.grammar, "grammar")
    elif fields.grammar is not None:
        yield Form(fields.grammar.syntax, fields.grammar.definition, "grammar")
    if fields.json_schema is not None:
        yield Form("json_schema", fields.json_schema, "json_schema", strict=False)
    yield from _guided(fields, "guided_{}")
    if (outputs := fields.structured_outputs) is not None:
        yield from _guided(outputs, "structured_outputs.{}")


def _format(fields: StructuredFields) -> Iterator[Form]:
    form = fields.response_format
    if isinstance(form, ObjectFormat):
        field = "response_format" if form.schema is None else "response_format.schema"
        yield Form("json_schema", form.schema or ANY_OBJECT, field, strict=form.schema is None)
    elif isinstance(form, SchemaFormat):
        named = form.json_schema
        field = "response_format.json_schema.schema"
        yield Form("json_schema", named.schema, field, strict=bool(named.strict))


def _guided(fields: StructuredFields | StructuredOutputs, names: str) -> Iterator[Form]:
    """Yield the forms that vLLM's fields ask for, which are those of `names`."""

    def given(name: str) -> tuple[Any, str]:
        field = names.format(name)
        return getattr(fields, field.rpartition(".")[2]), field

    schema, field = given("json")
    if schema is not None:
        yield Form("json_schema", _read_schema(schema, field), field, strict=False)
    regex, field = given("regex")
    if regex is not None:
        yield Form("regex", regex, field)
    choice, field = given("choice")
    if choice is not None:
        yield Form("lark", "start: " + " | ".join(map(_quoted, choice)), field)
    grammar, field = given("grammar")
    if grammar is not None:
        yield Form("gbnf", grammar, field)
    if isinstance(fields, StructuredOutputs) and fields.json_object:
        yield Form("json_schema", ANY_OBJECT, names.format("json_object"))


def _read_schema(schema: Mapping[str, Any] | str, field: str) -> Mapping[str, Any]:
    """Return a schema that may be JSON text."""
    if isinstance(schema, str):
        try:
            schema = msgspec.json.decode(schema, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError) as error:
            raise _wrong(field, f"expected a JSON schema, or one as text: {error}") from error
    return schema


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()


# Messages


def read_messages(messages: Sequence[types.Message]) -> list[Message]:
    """Return `messages`.

    Raises:
        InvalidRequest: one lacks what it must have, or has what it cannot have.
    """
    return [_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _message(message: types.Message, place: str) -> Message:
    _check(message, place)
    return Message(
        # What OpenAI now calls the developer is what templates know as the system
        role="system" if message.role == "developer" else message.role,
        content=_content(message, place),
        parts=_parts(message),
        name=message.name or None,
        tool_calls=tuple(
            ToolCall(call.id, call.function.name, call.function.arguments)
            for call in message.tool_calls or ()
        ),
        tool_call_id=message.tool_call_id,
        extra=message.extra,
    )


def _check(message: types.Message, place: str) -> None:
    """Check that a message has the fields of its role, and none of another's."""
    if message.audio is not None:
        raise _wrong(f"{place}.audio", "audio is not supported by this server")
    if message.function_call is not None:
        raise _wrong(f"{place}.function_call", "not supported by this server; use tool_calls")
    spoken = message.role == "assistant"
    if message.refusal and not spoken:
        raise _wrong(f"{place}.refusal", "only the assistant refuses")
    if message.tool_calls and not spoken:
        raise _wrong(f"{place}.tool_calls", "only the assistant calls tools")
    if message.role == "tool" and message.tool_call_id is None:
        raise _wrong(f"{place}.tool_call_id", "a tool message says which call it answers")
    if message.role != "tool" and message.tool_call_id is not None:
        raise _wrong(f"{place}.tool_call_id", "only a tool message answers a call")


def _parts(message: types.Message) -> tuple[str, ...]:
    """Return the texts of content in parts, if all of them are that."""
    content = message.content if isinstance(message.content, list) else []
    texts = tuple(part.text for part in content if isinstance(part, types.TextPart))
    return texts if len(texts) == len(content) else ()


def _content(message: types.Message, place: str) -> str | None:
    content = message.content if message.content is not None else message.refusal
    if content is None and message.tool_calls:
        return None
    if content is None:
        raise _wrong(f"{place}.content", f"a {message.role} message needs content")
    if isinstance(content, str):
        return content
    for number, part in enumerate(content):
        if isinstance(part, RefusalPart) and message.role != "assistant":
            raise _wrong(f"{place}.content[{number}].type", "only the assistant refuses")
    return "".join(p.refusal if isinstance(p, RefusalPart) else p.text for p in content)


def _continues(fields: ChatRequest, last: Message) -> bool:
    """Return whether the last message is to be continued: where the client says so.

    Hugging Face's `apply_chat_template`, and vLLM, call it `continue_final_message`; to add no
    generation prompt after a message of the assistant means the same.
    """
    asked = fields.continue_final_message
    if asked and fields.add_generation_prompt:
        raise _wrong("continue_final_message", "add_generation_prompt excludes it")
    if asked is None:
        asked = fields.add_generation_prompt is False and last.role == "assistant"
    if asked and (last.tool_calls or not (last.content or "").strip()):
        raise _wrong("continue_final_message", "the last message has no text to continue")
    return asked


def _wrong(place: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"{place}: {problem}", param=place, code="invalid_value")
