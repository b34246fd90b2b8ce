"""The Jinja environment of chat templates, as transformers documents and builds it.

Templates come with models and are not trusted: they run in Jinja's immutable sandbox, which keeps
them from the interpreter and from changing what they are given. What they may use is the same as
in transformers (`utils/chat_template_utils.py`, version 5), so that a template renders the same
text here: `tojson` with its arguments and without HTML escapes, `raise_exception`, `strftime_now`,
`dict` and `namespace` without their way to the interpreter, `break` and `continue`, `generation`.
"""

import json
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, pass_eval_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import CallBlock, EvalContext, Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace


def compile_template(source: str) -> Template:
    """Return the template in `source`.

    Raises:
        jinja2.TemplateError: it is not valid Jinja.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals.update(
        raise_exception=_raise_exception,
        strftime_now=_strftime_now,
        dict=TemplateDict(),
        namespace=TemplateNamespace,
    )
    return environment.from_string(source)


class GenerationTag(Extension):
    """`{% generation %}` marks what an assistant said, for training; here it shows its contents.

    As in transformers it is a call block, so that names set within it are not known outside.
    """

    tags = {"generation"}  # noqa: RUF012  the library declares it so

    def parse(self, parser: Parser) -> Node:
        """Return what stands between the tag and its end."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return CallBlock(self.call_method("_contents"), [], [], body).set_lineno(line)

    @pass_eval_context
    def _contents(self, _: EvalContext, caller: Callable[[], str]) -> str:
        return caller()


class TemplateDict:
    """`dict`, without the attributes of Python's type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """Return a new dictionary."""
        return dict(*args, **kwargs)

    def fromkeys(self, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
        """Return a dictionary of `keys`, each with `value`."""
        return dict.fromkeys(keys, value)


class TemplateNamespace(Namespace):
    """`namespace`, without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, names = args[0], dict(*args[1:], **kwargs)
        for name in names:
            _check_name(name)
        Namespace.__init__(self, names)

    def __setitem__(self, name: str, value: Any) -> None:
        """Set an attribute, as `{% set ns.name = value %}` does."""
        _check_name(name)
        super().__setitem__(name, value)


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return `value` as JSON, without the escapes for HTML that Jinja's own filter has."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace has no names with an underscore first, as {name!r} has")


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(format: str) -> str:  # noqa: A002  templates may name it
    return datetime.now().strftime(format)
