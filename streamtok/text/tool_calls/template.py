"""Chat templates with tools: the template's own way, or ours where it has none that is known here.

What a template makes of tools is found out by rendering a chat that has some, when it is loaded.
If it shows the functions, and the result of a call, and writes calls in a form that the grammar
and the reader of answers know too, it is given tools as they are. All else would mislead the
model: a template that passes over tools, or one that teaches a form which no answer may have. Then
tools, calls and results are written into the messages as text, in the form of this package.

Read next: `streamtok.text.tool_calls.prompt`, our own way.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from streamtok.errors import InvalidRequest
from streamtok.text.template import ChatTemplate, Message, PromptOptions
from streamtok.text.tokenizer import Tokenizer
from streamtok.text.tool_calls.prompt import as_text
from streamtok.text.tool_calls.reader import CLOSE, OPEN

FUNCTION, RESULT, SYSTEM = "probed_function", "probed_result", "probed_system"
PARAMETERS = {
    "type": "object",
    "properties": {"first": {"type": "string", "description": "The first."}},
    "required": ["first"],
}
TOOL = {
    "type": "function",
    "function": {"name": FUNCTION, "description": "A function.", "parameters": PARAMETERS},
}
ARGUMENTS = {"first": "value"}
HERMES = re.compile(rf'{OPEN}\s*\{{"name": "{FUNCTION}", "arguments": \{{.*?\}}\}}\s*{CLOSE}')
USER = {"role": "user", "content": "Hi"}


class ToolChatTemplate(ChatTemplate):
    """A chat template that is given tools in the way that suits it.

    Raises:
        ModelError: the template is not valid Jinja.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self._has_system = SYSTEM in self._try([{"role": "system", "content": SYSTEM}, USER])
        self._needs_content = False
        self._arguments_are_text = False
        self._knows_tools = self._find_way()

    def prepared(
        self, messages: Sequence[Message], tools: Sequence[Message]
    ) -> tuple[Sequence[Message], Sequence[Message]]:
        """Return the messages and tools that the template is given for these."""
        if not self._knows_tools:
            return as_text(messages, tools, has_system=self._has_system), ()
        return [self._with_calls(message) for message in messages], tools

    def _find_way(self) -> bool:
        """Find out how the template wants calls, if it has a way; return whether it has."""
        for self._needs_content in (False, True):
            for self._arguments_are_text in (False, True):
                call = {"name": FUNCTION, "arguments": ARGUMENTS}
                calls = [{"id": "call00000", "type": "function", "function": call}]
                result = {"role": "tool", "tool_call_id": "call00000", "name": FUNCTION}
                called = {"role": "assistant", "tool_calls": calls}
                chat = [USER, self._with_calls(called), result | {"content": RESULT}]
                asked, answered = self._try([USER], [TOOL]), self._try(chat, [TOOL])
                if FUNCTION in asked and RESULT in answered and HERMES.search(answered):
                    return True
        return False

    def _try(self, messages: Sequence[Message], tools: Sequence[Message] = ()) -> str:
        """Return what the template makes of this, which is nothing where it fails."""
        try:
            return self._prompt(messages, tools, PromptOptions())
        except InvalidRequest:
            return ""

    def _with_calls(self, message: Message) -> Message:
        """Return a message with its calls as the template reads them."""
        if not message.get("tool_calls"):
            return message
        calls = [
            call | {"function": self._function(call["function"])} for call in message["tool_calls"]
        ]
        made = {**message, "tool_calls": calls}
        if self._needs_content and made.get("content") is None:
            made["content"] = ""
        return made

    def _function(self, function: Mapping[str, Any]) -> dict[str, Any]:
        """Return a function's call with its arguments as an object, or as JSON text."""
        arguments = function["arguments"]
        if isinstance(arguments, str) == self._arguments_are_text:
            return dict(function)
        convert = _text_of if self._arguments_are_text else _object_in
        return {**function, "arguments": convert(arguments)}


def _text_of(arguments: Any) -> str:
    return json.dumps(arguments, ensure_ascii=False)


def _object_in(arguments: str) -> Any:
    """Return the object that JSON has; what has none stays text.

    Python's own reader would take NaN, and halves of surrogate pairs, which no prompt can hold.
    """
    try:
        return msgspec.json.decode(arguments, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return arguments
