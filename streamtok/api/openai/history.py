"""The messages of a chat, as chat templates know them.

Read next: `streamtok.text.template`.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from streamtok.api.openai.types import Message, RefusalPart
from streamtok.errors import InvalidRequest


def for_template(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return `messages` as chat templates know them.

    Raises:
        InvalidRequest: one lacks what it must have, or has what it cannot have.
    """
    return [_message(message, index) for index, message in enumerate(messages)]


def _message(message: Message, index: int) -> dict[str, Any]:
    place = f"messages[{index}]"
    _check(message, place)
    told: dict[str, Any] = {"role": _role(message), "content": _content(message, place)}
    if message.name:
        told["name"] = message.name
    if message.tool_call_id is not None:
        told["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        told["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": call.function.name,
                    "arguments": _arguments(call.function.arguments),
                },
            }
            for call in message.tool_calls
        ]
    return told


def _arguments(text: str) -> Any:
    """Return arguments as the object that templates expect; what is no JSON stays text.

    Python's own reader would take NaN, and halves of surrogate pairs, which no prompt can hold.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text


def _role(message: Message) -> str:
    # What OpenAI now calls the developer is what templates know as the system.
    return "system" if message.role == "developer" else message.role


def _check(message: Message, place: str) -> None:
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


def _content(message: Message, place: str) -> str:
    content = message.content if message.content is not None else message.refusal
    if content is None and message.tool_calls:
        return ""
    if content is None:
        raise _wrong(f"{place}.content", f"a {message.role} message needs content")
    if isinstance(content, str):
        return content
    for number, part in enumerate(content):
        if isinstance(part, RefusalPart) and message.role != "assistant":
            raise _wrong(f"{place}.content[{number}].type", "only the assistant refuses")
    return "".join(p.refusal if isinstance(p, RefusalPart) else p.text for p in content)


def _wrong(place: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"{place}: {problem}", param=place, code="invalid_value")
