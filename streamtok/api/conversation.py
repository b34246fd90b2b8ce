"""The neutral conversation type: messages, tools, and constraints on the answer.

Each API's JSON is parsed into these values; no other code reads an API's request types.
Where a value can turn out to be wrong later, it carries the path of the field it came from, so that
the error can name it. Read next: `streamtok.api.openai.history`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from streamtok.messages import ConstraintKind


class ToolCall(Struct, frozen=True):
    """A call that the assistant has made; `arguments` are JSON as the model wrote it."""

    id: str
    name: str
    arguments: str

    def for_template(self) -> dict[str, Any]:
        """Return it as chat templates expect it, with the arguments as an object.

        What is no JSON stays text. Python's own reader would take NaN, and halves of surrogate
        pairs, which no prompt can hold.
        """
        try:
            arguments = msgspec.json.decode(self.arguments)
        except (msgspec.DecodeError, RecursionError):
            arguments = self.arguments
        function = {"name": self.name, "arguments": arguments}
        return {"id": self.id, "type": "function", "function": function}


class Message(Struct, kw_only=True):
    """One message; `parts` are the texts that its content came in, where it came in parts.

    A message that calls tools may have no content. `extra` is what else it carries that a chat
    template may read.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = ""
    parts: tuple[str, ...] = ()
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    extra: dict[str, Any] = {}

    def for_template(self) -> dict[str, Any]:
        """Return it as chat templates expect it."""
        made = {**self.extra, "role": self.role, "content": self.content}
        if self.parts:
            made["content"] = [{"type": "text", "text": text} for text in self.parts]
        if self.name:
            made["name"] = self.name
        if self.tool_call_id is not None:
            made["tool_call_id"] = self.tool_call_id
        if self.tool_calls:
            made["tool_calls"] = [call.for_template() for call in self.tool_calls]
        return made


class Form(Struct, frozen=True):
    """What a text must be: JSON of a schema (a dict), or what a grammar or a regex matches.

    Of a schema that is not `strict`, what cannot be enforced is ignored.
    """

    kind: ConstraintKind
    value: Any
    field: str
    strict: bool = True


class Tool(Struct, frozen=True):
    """A function that may be called; `field` is where the schema of its `parameters` was.

    Its name was beside that.
    """

    name: str
    description: str | None
    parameters: Mapping[str, Any] | None
    strict: bool | None
    field: str

    @property
    def name_field(self) -> str:
        """Where its name was."""
        return f"{self.field.rpartition('.')[0]}.name"

    def for_template(self) -> dict[str, Any]:
        """Return it as chat templates expect it."""
        parts = {
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
            "strict": self.strict,
        }
        given = {key: value for key, value in parts.items() if value is not None}
        return {"type": "function", "function": given}


class ToolChoice(Struct, frozen=True):
    """Which tools may be called (None: all), whether one must be, and whether more than one may."""

    names: tuple[str, ...] | None = None
    required: bool = False
    several: bool = True
    field: str = "tool_choice"


class Wanted(Struct, frozen=True, kw_only=True):
    """What an answer must be: of a form, and with calls of tools; its text ends by itself.

    With `endless` (`ignore_eos`) it does not, which no form allows.
    """

    forms: Sequence[Form] = ()
    tools: Sequence[Tool] = ()
    choice: ToolChoice = field(default_factory=ToolChoice)
    endless: bool = False

    def __bool__(self) -> bool:
        """Whether anything is wanted but text."""
        return bool(self.forms or self.tools or self.choice.required)


class Conversation(Struct, frozen=True, kw_only=True):
    """The messages that are to be answered.

    `begun` is text that the answer continues: it is part of the prompt. With `continues` the last
    message itself is continued; without `answers` the prompt does not say that an answer begins.
    `variables` are the client's, for the chat template. With `parse_special`, special tokens in the
    messages are tokens; otherwise they are text.
    """

    messages: Sequence[Message]
    tools: Sequence[Tool] = ()
    begun: str = ""
    continues: bool = False
    answers: bool = True
    variables: Mapping[str, Any] = field(default_factory=dict)
    parse_special: bool = False
