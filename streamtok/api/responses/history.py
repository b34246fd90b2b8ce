"""The input and the tools of a response, as the messages and tools of a chat; and its output too.

Read next: `streamtok.api.openai.history`, which has them become a prompt.
"""

from collections.abc import Iterator, Sequence

from streamtok.api.constraints.tools import (
    AllowedChoice,
    AllowedTools,
    Function,
    FunctionName,
    NamedTool,
    Tool,
    ToolChoice,
)
from streamtok.api.openai.types import CalledFunction, Message, RefusalPart, ToolCall
from streamtok.api.responses.answers import FunctionCall, OutputItem
from streamtok.api.responses.types import (
    FunctionChoice,
    FunctionTool,
    InputItem,
    InputText,
    OutputText,
    ResponseChoice,
    ResponseRequest,
    SomeTools,
)
from streamtok.errors import InvalidRequest

NEEDED = {
    "message": ("role", "content"),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
}


def conversation(fields: ResponseRequest) -> list[Message]:
    """Return the input as the messages of a chat.

    Raises:
        InvalidRequest: an item lacks what it must have.
    """
    if isinstance(fields.input, str):
        return [Message(role="user", content=fields.input)]
    for index, item in enumerate(fields.input):
        for name in NEEDED[item.type]:
            if getattr(item, name) is None:
                place = f"input[{index}].{name}"
                raise InvalidRequest(f"{place}: a {item.type} needs it", param=place)
    return list(_joined(map(_message, fields.input)))


def continued(output: Sequence[OutputItem]) -> list[Message]:
    """Return the output as messages of a chat that goes on."""
    return list(_joined(_told(item) for item in output)) or [_said("")]


def offered(tools: Sequence[FunctionTool]) -> list[Tool]:
    """Return tools; as OpenAI has it here, they are strict unless they say otherwise."""
    return [
        Tool(Function(tool.name, tool.description, tool.parameters, tool.strict is not False))
        for tool in tools
    ]


def chosen(choice: ResponseChoice | None) -> ToolChoice | None:
    """Return what is to be called, as a chat has it."""
    if isinstance(choice, FunctionChoice):
        return _named(choice)
    if isinstance(choice, SomeTools):
        return AllowedChoice(AllowedTools(choice.mode, [_named(tool) for tool in choice.tools]))
    return choice


def _named(choice: FunctionChoice) -> NamedTool:
    return NamedTool(FunctionName(choice.name))


def _message(item: InputItem) -> Message:
    if item.type == "message":
        assert item.role is not None
        return Message(role=item.role, content=_text(item.content))
    if item.type == "function_call_output":
        return Message(role="tool", content=_text(item.output), tool_call_id=item.call_id)
    return _called(str(item.call_id), str(item.name), str(item.arguments))


def _told(item: OutputItem) -> Message:
    if isinstance(item, FunctionCall):
        return _called(item.call_id, item.name, item.arguments)
    return _said("".join(part.text for part in item.content))


def _said(text: str) -> Message:
    return Message(role="assistant", content=text)


def _called(call_id: str, name: str, arguments: str) -> Message:
    calls = [ToolCall(call_id, CalledFunction(name, arguments))]
    return Message(role="assistant", tool_calls=calls)


def _joined(messages: Iterator[Message]) -> Iterator[Message]:
    """Yield `messages`, with calls in the assistant's message before them."""
    last: Message | None = None
    for message in messages:
        if last and message.tool_calls and last.role == "assistant":
            last.tool_calls = [*(last.tool_calls or ()), *message.tool_calls]
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
