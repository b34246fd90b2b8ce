"""Turns and tools of Anthropic's format, as the messages and tools of a chat.

Read next: `streamtok.api.openai.history`, which has them become a prompt.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

from streamtok.api.anthropic.types import (
    AnyChoice,
    AutoChoice,
    Choice,
    CountRequest,
    NoChoice,
    OneChoice,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
    Turn,
)
from streamtok.api.constraints.tools import Function, FunctionName, NamedTool, Tool, ToolChoice
from streamtok.api.openai import answers
from streamtok.api.openai.types import CalledFunction, Message, ToolCall
from streamtok.errors import InvalidRequest

Blocks = Sequence[TextBlock | ToolUseBlock | ToolResultBlock]


def conversation(fields: CountRequest) -> tuple[list[Message], str]:
    """Return the messages of a chat, and what its answer begins with: an assistant's last turn.

    Turns of one side that follow each other are one message, but for results of calls, which are
    messages of their own.

    Raises:
        InvalidRequest: a block is not its side's; or that beginning holds a call, or ends with
            white space, which no token would continue.
    """
    turns = list(fields.messages)
    for index, turn in enumerate(turns):
        _check(turn, f"messages[{index}]")
    begun = ""
    if turns[-1].role == "assistant":
        place, last = f"messages[{len(turns) - 1}].content", _blocks(turns.pop())
        begun = _text(last)
        if any(isinstance(block, ToolUseBlock) for block in last):
            raise _wrong(place, "a call is followed by its result")
        if begun != begun.rstrip():
            raise _wrong(place, "what the answer is to begin with cannot end with white space")
    system = fields.system or ""
    told = system if isinstance(system, str) else _text(system)
    messages = [Message(role="system", content=told)] if told else []
    for role, side in groupby(turns, key=lambda turn: turn.role):
        blocks = [block for turn in side for block in _blocks(turn)]
        messages += [_spoken(blocks)] if role == "assistant" else _heard(blocks)
    return messages, begun


def offered(fields: CountRequest) -> list[Tool]:
    """Return the tools of a request."""
    return [
        Tool(Function(tool.name, tool.description, tool.input_schema, tool.strict))
        for tool in fields.tools or ()
    ]


def chosen(choice: Choice | None) -> ToolChoice | None:
    """Return what is to be called, in OpenAI's words."""
    if isinstance(choice, OneChoice):
        return NamedTool(FunctionName(choice.name))
    if isinstance(choice, AnyChoice):
        return "required"
    if isinstance(choice, NoChoice):
        return "none"
    return "auto" if isinstance(choice, AutoChoice) else None


def _spoken(blocks: Blocks) -> Message:
    """Return what the assistant said and called."""
    calls = [
        ToolCall(block.id, CalledFunction(block.name, answers.encode(block.input).decode()))
        for block in blocks
        if isinstance(block, ToolUseBlock)
    ]
    return Message(role="assistant", content=_text(blocks), tool_calls=calls or None)


def _heard(blocks: Blocks) -> Iterator[Message]:
    """Yield the results that a user gives, and what is said between them."""
    for is_result, group in groupby(blocks, key=lambda b: isinstance(b, ToolResultBlock)):
        if not is_result:
            yield Message(role="user", content=_text(list(group)))
            continue
        for block in group:
            assert isinstance(block, ToolResultBlock)
            content = block.content if isinstance(block.content, str) else _text(block.content)
            yield Message(role="tool", content=content, tool_call_id=block.tool_use_id)


def _blocks(turn: Turn) -> Blocks:
    return [TextBlock(turn.content)] if isinstance(turn.content, str) else turn.content


def _text(blocks: Blocks) -> str:
    """Return the text of `blocks`, each of which begins a line."""
    return "\n".join(block.text for block in blocks if isinstance(block, TextBlock))


def _check(turn: Turn, place: str) -> None:
    """Check that only the assistant calls, and only the user gives results."""
    wrong = ToolResultBlock if turn.role == "assistant" else ToolUseBlock
    for number, block in enumerate(_blocks(turn)):
        if isinstance(block, wrong):
            raise _wrong(f"{place}.content[{number}].type", f"not of the {turn.role}")


def _wrong(place: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"{place}: {problem}", param=place, code="invalid_value")
