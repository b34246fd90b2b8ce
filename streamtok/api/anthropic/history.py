"""Anthropic's turns and tools, as the conversation and the wishes that they are.

Read next: `streamtok.api.conversation`.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

import msgspec

from streamtok.api.anthropic.types import (
    AnyChoice,
    Block,
    CountRequest,
    DocumentBlock,
    NoChoice,
    OneChoice,
    SearchResultBlock,
    TextBlock,
    TextSource,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    Turn,
)
from streamtok.api.conversation import (
    Conversation,
    Form,
    Message,
    Tool,
    ToolCall,
    ToolChoice,
    Wanted,
)
from streamtok.errors import InvalidRequest

Blocks = Sequence[Block]


def conversation(fields: CountRequest) -> Conversation:
    """Return the chat of a request; a last turn of the assistant's is what its answer begins with.

    Turns of one side that follow each other are one message, but for results of calls, which are
    messages of their own.

    Raises:
        InvalidRequest: a block is not its side's; or that beginning holds a call, or ends with
            white space, which no token would continue.
    """
    for index, turn in enumerate(fields.messages):
        _check(turn, f"messages[{index}]")
    turns = [turn for turn in fields.messages if not _is_cleared(turn, fields.messages)]
    begun = ""
    if turns and turns[-1].role == "assistant":
        place, last = f"messages[{len(fields.messages) - 1}].content", _blocks(turns.pop())
        begun = _text(last)
        if any(isinstance(block, ToolUseBlock) for block in last):
            raise _wrong(place, "a call is followed by its result")
        if begun != begun.rstrip():
            raise _wrong(place, "what the answer is to begin with cannot end with white space")
    instructions = _text(fields.system or "")
    messages = [Message(role="system", content=instructions)] if instructions else []
    for role, side in groupby(turns, key=lambda turn: turn.role):
        blocks = [block for turn in side for block in _blocks(turn)]
        if role == "user":
            messages += _heard(blocks)
        else:
            messages.append(
                _spoken(blocks)
                if role == "assistant"
                else Message(role="system", content=_text(blocks))
            )
    return Conversation(messages=messages, begun=begun)


def wanted(fields: CountRequest) -> Wanted:
    """Return what the answer must be.

    Raises:
        InvalidRequest: the choice among the tools cannot be met.
    """
    choice = fields.tool_choice
    tools = tuple(
        Tool(
            tool.name, tool.description, tool.input_schema, tool.strict, f"tools[{i}].input_schema"
        )
        for i, tool in enumerate(fields.tools or ())
    )
    several = not getattr(choice, "disable_parallel_tool_use", False)
    names = (choice.name,) if isinstance(choice, OneChoice) else None
    required = isinstance(choice, AnyChoice | OneChoice)
    if required and not tools:
        raise _wrong("tool_choice", "there are no tools to choose from")
    return Wanted(
        forms=tuple(_forms(fields)),
        tools=() if isinstance(choice, NoChoice) else tools,
        choice=ToolChoice(names, required, several and names is None, "tool_choice.name"),
    )


def _forms(fields: CountRequest) -> Iterator[Form]:
    """Yield the form that is asked for: in today's field, or as it was in the beta."""
    config = fields.output_config
    if config is not None and config.format is not None:
        yield Form("json_schema", config.format.schema, "output_config.format.schema", strict=False)
    if fields.output_format is not None:
        yield Form("json_schema", fields.output_format.schema, "output_format.schema", strict=False)


def _spoken(blocks: Blocks) -> Message:
    """Return what the assistant said and called; what it thought is for templates that show it."""
    calls = tuple(
        ToolCall(block.id, block.name, msgspec.json.encode(block.input).decode())
        for block in blocks
        if isinstance(block, ToolUseBlock)
    )
    thoughts = "\n".join(b.thinking for b in blocks if isinstance(b, ThinkingBlock))
    extra = {"reasoning_content": thoughts} if thoughts else {}
    return Message(role="assistant", content=_text(blocks), tool_calls=calls, extra=extra)


def _heard(blocks: Blocks) -> Iterator[Message]:
    """Yield the results that a user gives, and what is said between them."""
    for is_result, group in groupby(blocks, key=lambda b: isinstance(b, ToolResultBlock)):
        if not is_result:
            yield Message(role="user", content=_text(list(group)))
            continue
        for block in group:
            assert isinstance(block, ToolResultBlock)
            content = _text(block.content)
            yield Message(role="tool", content=content, tool_call_id=block.tool_use_id)


def _blocks(turn: Turn) -> Blocks:
    return [TextBlock(turn.content)] if isinstance(turn.content, str) else turn.content


def _text(content: str | Blocks) -> str:
    """Return a text, or that of blocks, each of which begins a line."""
    if isinstance(content, str):
        return content
    return "\n".join(text for block in content for text in _lines(block))


def _lines(block: Block) -> Iterator[str]:
    """Yield the texts of a block that are for the model."""
    if isinstance(block, TextBlock):
        yield block.text
    elif isinstance(block, SearchResultBlock):
        yield from (block.title, block.source, _text(block.content))
    elif isinstance(block, DocumentBlock):
        yield from filter(None, (block.title, block.context))
        source = block.source
        yield source.data if isinstance(source, TextSource) else _text(source.content)


def _is_cleared(turn: Turn, turns: Sequence[Turn]) -> bool:
    """Whether a system turn held only until the user's next turn, which has come."""
    if turn.clear_at != "next_user_message":
        return False
    place = next(number for number, other in enumerate(turns) if other is turn)
    return any(other.role == "user" for other in turns[place + 1 :])


def _check(turn: Turn, place: str) -> None:
    """Check that only the assistant thinks and calls, and only the user gives results."""
    wrong = {
        "assistant": (ToolResultBlock, DocumentBlock, SearchResultBlock),
        "user": (ToolUseBlock, ThinkingBlock),
        "system": (ToolResultBlock, DocumentBlock, SearchResultBlock, ToolUseBlock, ThinkingBlock),
    }[turn.role]
    for number, block in enumerate(_blocks(turn)):
        if isinstance(block, wrong):
            raise _wrong(f"{place}.content[{number}].type", f"not of the {turn.role}")
    if turn.clear_at is not None and turn.role != "system":
        raise _wrong(f"{place}.clear_at", "only a system turn is cleared")


def _wrong(place: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"{place}: {problem}", param=place, code="invalid_value")
