"""The input of a response as a conversation, and a conversation as input; its output too.

Read next: `streamtok.api.conversation`.
"""

from collections.abc import Iterable, Iterator, Sequence

from streamtok.api.conversation import Form, Message, Tool, ToolCall, ToolChoice, Wanted
from streamtok.api.openai.history import ANY_OBJECT
from streamtok.api.openai.types import ObjectFormat, RefusalPart
from streamtok.api.responses.answers import (
    FunctionCall,
    FunctionOutput,
    InputEntry,
    InputMessage,
    OutputItem,
)
from streamtok.api.responses.types import (
    FlatSchemaFormat,
    FunctionChoice,
    Input,
    InputFields,
    InputItem,
    InputText,
    OutputText,
    SomeTools,
    TextConfig,
)
from streamtok.errors import InvalidRequest

NEEDED = {
    "message": ("role", "content"),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
    "reasoning": (),
}


def conversation(given: Input) -> list[Message]:
    """Return the input as the messages of a chat, without earlier reasoning.

    Raises:
        InvalidRequest: an item lacks what it must have.
    """
    if isinstance(given, str):
        return [Message(role="user", content=given)]
    for index, item in enumerate(given):
        for name in NEEDED[item.type]:
            if getattr(item, name) is None:
                place = f"input[{index}].{name}"
                raise InvalidRequest(
                    f"{place}: a {item.type} needs it", param=place, code="invalid_value"
                )
    return list(_joined(_message(item) for item in given if item.type != "reasoning"))


def continued(output: Sequence[OutputItem]) -> list[Message]:
    """Return the output as messages of a chat that goes on."""
    return list(_joined(map(_answered, output))) or [Message(role="assistant")]


def wanted(fields: InputFields) -> Wanted:
    """Return what the answer must be; tools are strict unless they say otherwise, as OpenAI has it.

    Raises:
        InvalidRequest: the choice among the tools cannot be met.
    """
    tools = tuple(
        Tool(
            tool.name,
            tool.description,
            tool.parameters,
            tool.strict is not False,
            field=f"tools[{index}].parameters",
        )
        for index, tool in enumerate(fields.tools or ())
    )
    choice = _choice(fields)
    if not tools and (choice.required or choice.names is not None):
        raise InvalidRequest(
            "tool_choice: there are no tools to choose from",
            param="tool_choice",
            code="invalid_value",
        )
    return Wanted(
        forms=tuple(_forms(fields.text or TextConfig())),
        tools=() if fields.tool_choice == "none" else tools,
        choice=choice,
    )


def _choice(fields: InputFields) -> ToolChoice:
    choice, several = fields.tool_choice, fields.parallel_tool_calls is not False
    if isinstance(choice, FunctionChoice):
        return ToolChoice((choice.name,), True, False, "tool_choice.name")
    if isinstance(choice, SomeTools):
        names = tuple(dict.fromkeys(tool.name for tool in choice.tools))
        return ToolChoice(names, choice.mode == "required", several, "tool_choice.tools")
    return ToolChoice(required=choice == "required", several=several)


def _forms(text: TextConfig) -> Iterator[Form]:
    form = text.format
    if isinstance(form, FlatSchemaFormat):
        yield Form("json_schema", form.schema, "text.format.schema", strict=bool(form.strict))
    elif isinstance(form, ObjectFormat):
        field = "text.format" if form.schema is None else "text.format.schema"
        yield Form("json_schema", form.schema or ANY_OBJECT, field, strict=form.schema is None)


def _message(item: InputItem) -> Message:
    if item.type == "function_call_output":
        return Message(role="tool", content=_text(item.output), tool_call_id=item.call_id)
    if item.type == "function_call":
        call = ToolCall(str(item.call_id), str(item.name), str(item.arguments))
        return Message(role="assistant", tool_calls=(call,))
    assert item.role is not None
    role = "system" if item.role == "developer" else item.role
    return Message(role=role, content=_text(item.content))


def _answered(item: OutputItem) -> Message:
    if isinstance(item, FunctionCall):
        call = ToolCall(item.call_id, item.name, item.arguments)
        return Message(role="assistant", tool_calls=(call,))
    return Message(role="assistant", content=_text(item.content))


def _joined(messages: Iterable[Message]) -> Iterator[Message]:
    """Yield `messages`, with calls in the assistant's message before them."""
    last: Message | None = None
    for message in messages:
        if last and message.tool_calls and last.role == "assistant":
            last.tool_calls += message.tool_calls
            continue
        if last:
            yield last
        last = message
    if last:
        yield last


def _text(content: str | Sequence[InputText | OutputText | RefusalPart] | None) -> str:
    if isinstance(content, str):
        return content
    parts = content or ()
    return "".join(p.refusal if isinstance(p, RefusalPart) else p.text for p in parts)


def input_items(messages: Sequence[Message], response_id: str) -> Iterator[InputEntry]:
    """Yield the items that are the input of a response, from the first to the last."""
    for number, message in enumerate(messages):
        end = f"{response_id.removeprefix('resp_')}_{number}"
        text = message.content or ""
        if message.role == "tool":
            call_id = message.tool_call_id or ""
            yield FunctionOutput(f"fco_{end}", call_id, text, "completed")
            continue
        if text or not message.tool_calls:
            said = message.role == "assistant"
            part = OutputText(text) if said else InputText(text)
            yield InputMessage(f"msg_{end}", message.role, [part], "completed")
        for place, call in enumerate(message.tool_calls):
            yield FunctionCall(f"fc_{end}_{place}", call.id, call.name, call.arguments, "completed")
