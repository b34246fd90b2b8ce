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
from streamtok.text.template import Message, PromptOptions
from streamtok.text.templates.chat import JinjaTemplate
from streamtok.text.tokenizer import Tokenizer
from streamtok.text.tool_calls.arguments_reader import Tags
from streamtok.text.tool_calls.forms import ArgumentsForm, CallForm, JsonForm
from streamtok.text.tool_calls.prompt import as_text
from streamtok.text.tool_calls.reader import CLOSE, OPEN

FUNCTION, RESULT, SYSTEM = "probed_function", "probed_result", "probed_system"
KEYS, VALUES = ("probed_first", "probed_second"), ("probed_text", 765)
TEXT = {"type": "string", "description": "The first."}
NUMBER = {"type": "integer", "description": "The second."}
PARAMETERS = {
    "type": "object",
    "properties": dict(zip(KEYS, (TEXT, NUMBER), strict=True)),
    "required": list(KEYS),
}
TOOL = {
    "type": "function",
    "function": {"name": FUNCTION, "description": "A function.", "parameters": PARAMETERS},
}
JSON_CALL = re.compile(
    rf'{OPEN}\s*\{{"name": "{FUNCTION}", "arguments": \{{"{KEYS[0]}".*?\}}\}}\s*{CLOSE}'
)
USER = {"role": "user", "content": "Hi"}
JSON = JsonForm()


class ToolChatTemplate(JinjaTemplate):
    """A chat template that is given tools in the way that suits it.

    Raises:
        ModelError: the template is not valid Jinja.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self._has_system = SYSTEM in self._try([{"role": "system", "content": SYSTEM}, USER])
        self._needs_content = False
        self._arguments_are_text = False
        self._own = self._find_form()

    def form(self, tools: Sequence[Message]) -> CallForm:
        """Return the form that calls of `tools` have: the template's own, if they fit into it."""
        own = self._own
        parameters = [tool["function"].get("parameters") or {} for tool in tools]
        return own if own is not None and all(map(own.fits, parameters)) else JSON

    def prepared(
        self, messages: Sequence[Message], tools: Sequence[Message]
    ) -> tuple[Sequence[Message], Sequence[Message]]:
        """Return the messages and tools that the template is given for these."""
        if self.form(tools) is not self._own:
            return as_text(messages, tools, has_system=self._has_system), ()
        return [self._with_calls(message) for message in messages], tools

    def _find_form(self) -> CallForm | None:
        """Return the form of the template's calls, and find out how it reads messages with some."""
        for self._needs_content in (False, True):
            for self._arguments_are_text in (False, True):
                if FUNCTION in self._try([USER], [TOOL]) and (form := self._form_of_calls()):
                    return form
        return None

    def _form_of_calls(self) -> CallForm | None:
        prompt = self._with_call(dict(zip(KEYS, VALUES, strict=True)))
        if RESULT not in prompt:
            return None
        if JSON_CALL.search(prompt):
            return JSON
        form = found_form(prompt)
        if form is None or not self._is_text(form):
            return None
        # What was found in one call must be how every call is written; but lists and objects are
        # not JSON in all templates: Qwen3-Coder's first writes them as Python does
        for arguments in ({}, {KEYS[1]: VALUES[1]}, {KEYS[0]: "<a>\nb"}):
            if form.write(FUNCTION, arguments) not in self._with_call(arguments):
                return None
        return form

    def _is_text(self, form: ArgumentsForm) -> bool:
        """Whether the form's tags are text in answers too, which have no special tokens in them."""
        ids = self._tokenizer.encode(form.write(FUNCTION, {KEYS[0]: ""}), special=False)
        return self._tokenizer.special_ids.isdisjoint(ids)

    def _with_call(self, arguments: Mapping[str, Any]) -> str:
        """Return the prompt of a chat with a call and its result."""
        call = {"name": FUNCTION, "arguments": arguments}
        calls = [{"id": "call00000", "type": "function", "function": call}]
        called = self._with_calls({"role": "assistant", "tool_calls": calls})
        result = {"role": "tool", "tool_call_id": "call00000", "name": FUNCTION, "content": RESULT}
        return self._try([USER, called, result], [TOOL])

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


def found_form(prompt: str) -> ArgumentsForm | None:
    """Return the form of the call with the probed arguments in `prompt`, if it has tags for them.

    The tags of a call are what stands between its name, the keys and the values, each beginning
    with a `<`; the call ends with the tag that closes the one it begins with.
    """
    names = (FUNCTION, KEYS[0], VALUES[0], KEYS[1], str(VALUES[1]))
    call = re.search("(.*?)".join(map(re.escape, names)), prompt[prompt.rfind(FUNCTION) :], re.S)
    begin = re.search(r"<([^<>/]+)>(\s*(?:<[^<>]*)?)$", prompt[: prompt.rfind(FUNCTION)])
    if call is None or begin is None:
        return None
    named, value, between, same = call.groups()
    key = between[between.rfind("<") :] if "<" in between else ""
    end = between.removesuffix(key)
    rest = prompt[prompt.rfind(FUNCTION) + call.end() :]
    close, closing, _ = rest.removeprefix(end).partition(f"</{begin[1]}>")
    if not (key and end and closing and value == same and named.endswith(key)):
        return None
    tags = Tags(
        f"<{begin[1]}>", begin[2], named.removesuffix(key), key, value, end, close + closing
    )
    return ArgumentsForm(tags)


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
