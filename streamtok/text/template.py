"""Chat messages to prompt text, by the model's own Jinja template, in a sandbox.

Templates come with models and are not trusted: they run in Jinja's immutable sandbox, which keeps
them from the interpreter and from changing what they are given. The names a template may use are
those Hugging Face documents for `chat_template`.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, meta
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from streamtok.errors import InvalidRequest, ModelError
from streamtok.text.tokenizer import Tokenizer
from streamtok.text.tool_calls.prompt import as_text
from streamtok.text.tool_calls.reader import OPEN

PLAIN = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


class GenerationTag(Extension):
    """`{% generation %}` marks what an assistant said, for training; here it shows its contents."""

    tags = {"generation"}  # noqa: RUF012  the library declares it so

    def parse(self, parser: Parser) -> list[Node]:
        """Return what stands between the tag and its end."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """The chat template of a model; a plain one for models that have none.

    Raises:
        ModelError: the template is not valid Jinja.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, GenerationTag]
        )
        environment.filters["tojson"] = _to_json
        environment.globals.update(raise_exception=_refuse, strftime_now=_now)
        self._tokens = {
            name: tokenizer.special_text(name) for name in ("bos_token", "eos_token", "unk_token")
        }
        self.source = _source(tokenizer.settings)
        try:
            self._template = environment.from_string(self.source)
            names = meta.find_undeclared_variables(environment.parse(self.source))
        except TemplateError as error:
            raise ModelError(f"tokenizer_config.json: chat_template: {error}") from error
        # One that tells of calls in another form than the grammar has would mislead the model
        self._knows_tools = "tools" in names and OPEN in self.source

    def render(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
    ) -> str:
        """Return the prompt for `messages`, up to where the assistant's answer begins.

        A template that does not know `tools`, or not calls in the form they have here, is given
        all of that as text.

        Raises:
            InvalidRequest: the template refuses the messages, or fails on them.
        """
        try:
            return self._template.render(
                messages=messages if self._knows_tools else as_text(messages, tools),
                tools=(list(tools) or None) if self._knows_tools else None,
                add_generation_prompt=True,
                **self._tokens,
            )
        except Exception as error:  # a template is a program and may raise anything
            raise InvalidRequest(
                f"the model's chat template cannot render these messages: {error}",
                param="messages",
            ) from error


def _source(settings: Mapping[str, Any]) -> str:
    """Return the template's text; of several named ones the one called "default"."""
    template = settings.get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template}
        template = named.get("default")
    return template if isinstance(template, str) else PLAIN


def _to_json(value: Any, indent: int | None = None) -> str:
    # Unlike Jinja's own filter it does not escape for HTML, which would change the prompt.
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
