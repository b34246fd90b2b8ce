"""Chats with functions, for templates that know nothing of them: all as text, in one form.

The functions become part of the system message, or of the first user's where a template has no
system role. Calls are part of what the assistant said, and results are what the user says next.
Pure. Read next: `streamtok.text.tool_calls.reader`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from streamtok.text.tool_calls.reader import CLOSE, OPEN, write_call

Messages = Sequence[Mapping[str, Any]]

HOW = f"""\
You can call functions. These are the functions, one a line, as JSON:
<tools>
{{tools}}
</tools>
To call one, answer with its name and its arguments as JSON, like this:
{OPEN}
{{{{"name": "the function's name", "arguments": {{{{"its": "arguments"}}}}}}}}
{CLOSE}"""


def as_text(
    messages: Messages, tools: Sequence[Mapping[str, Any]], *, has_system: bool = True
) -> list[dict[str, Any]]:
    """Return `messages` with `tools`, calls and results as text.

    Results, and what the user says after them, are one turn, for templates may allow no two.
    """
    turns: list[dict[str, Any]] = []
    results = False  # whether the last turn is one of results
    for message in messages:
        turn = _said(message)
        if results and turn["role"] == "user":
            turns[-1]["content"] += f"\n{_text(turn)}"
        else:
            turns.append(turn)
        results = message["role"] == "tool" or (results and turn["role"] == "user")
    return _taught(turns, tools, has_system=has_system) if tools else turns


def _said(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message without a call or a result that is not text."""
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{_text(message)}\n</tool_response>"}
    turn = {key: value for key, value in message.items() if key != "tool_calls"}
    if calls := message.get("tool_calls"):
        written = [_call(call["function"]) for call in calls]
        turn["content"] = "\n".join(filter(None, (_text(message), *written)))
    return turn


def _call(function: Mapping[str, Any]) -> str:
    arguments = function["arguments"]
    return write_call(
        function["name"], arguments if isinstance(arguments, str) else _json(arguments)
    )


def _taught(
    turns: list[dict[str, Any]], tools: Sequence[Mapping[str, Any]], *, has_system: bool
) -> list[dict[str, Any]]:
    """Return `turns` with the tools after the system's text, or before the user's."""
    text = HOW.format(tools="\n".join(_json(tool) for tool in tools))
    if turns and turns[0]["role"] == "system":
        text = f"{_text(turns[0])}\n\n{text}".lstrip()
        turns = turns[1:]
    if has_system:
        return [{"role": "system", "content": text}, *turns]
    if turns and turns[0]["role"] == "user":
        first = turns[0] | {"content": f"{text}\n\n{_text(turns[0])}".rstrip()}
        return [first, *turns[1:]]
    return [{"role": "user", "content": text}, *turns]


def _text(message: Mapping[str, Any]) -> str:
    """Return the content of a message, which may be a list of parts, or nothing."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content)
    return content or ""


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
