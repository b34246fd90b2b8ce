"""Chats with functions, for templates that know nothing of them: all as text, in the same form.

The functions there are become part of the system message, calls part of what the assistant said,
and what a function returned is told by the user. Pure. Read next:
`streamtok.text.tool_calls.reader`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from streamtok.text.tool_calls.reader import CLOSE, OPEN, written

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


def as_text(messages: Messages, tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return `messages` with `tools`, calls and results as text."""
    told: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] == "tool":
            said = f"<tool_response>\n{message['content']}\n</tool_response>"
            if told and told[-1].get("results"):
                told[-1]["content"] += f"\n{said}"
            else:
                told.append({"role": "user", "content": said, "results": True})
        else:
            calls = [call["function"] for call in message.get("tool_calls", ())]
            texts = [message["content"], *(_call(call) for call in calls)]
            plain = {key: value for key, value in message.items() if key != "tool_calls"}
            told.append(plain | {"content": "\n".join(filter(None, texts))})
    for message in told:
        message.pop("results", None)
    return _described(told, tools) if tools else told


def _call(function: Mapping[str, Any]) -> str:
    arguments = function["arguments"]
    known = isinstance(arguments, str)
    return written(function["name"], arguments if known else _json(arguments))


def _described(
    messages: list[dict[str, Any]], tools: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return `messages` with the tools in the system message, which is the first."""
    text = HOW.format(tools="\n".join(_json(tool) for tool in tools))
    if not messages or messages[0]["role"] != "system":
        return [{"role": "system", "content": text}, *messages]
    first = messages[0] | {"content": f"{messages[0]['content']}\n\n{text}".lstrip()}
    return [first, *messages[1:]]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
