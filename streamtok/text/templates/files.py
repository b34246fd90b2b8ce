"""The chat templates of a model's folder, and the special tokens that they know by name.

A folder has one template in `chat_template.jinja`, or in `tokenizer_config.json` if it is older.
Some have more, by names, of which "tool_use" is the one for chats with tools.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from streamtok.errors import ModelError

PLAIN = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


class Source(NamedTuple):
    """The text of a template, and where it was."""

    text: str
    place: str


def read_templates(folder: Path, settings: Mapping[str, Any]) -> dict[str, Source]:
    """Return the templates of a model by their names; files come before the `settings`.

    A model without templates gets a plain one.

    Raises:
        ModelError: a file cannot be read, or there are templates, but none is the default.
    """
    found = _in_files(folder) or _in_settings(folder, settings)
    if found and "default" not in found:
        raise ModelError(f"{folder}: of the chat templates {', '.join(found)} none is the default")
    return found or {"default": Source(PLAIN, "the plain template")}


def _in_files(folder: Path) -> dict[str, Source]:
    paths = {"default": folder / "chat_template.jinja"}
    paths |= {path.stem: path for path in (folder / "additional_chat_templates").glob("*.jinja")}
    try:
        return {
            name: Source(path.read_bytes().decode("utf-8"), str(path))
            for name, path in paths.items()
            if path.exists()
        }
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{folder}: a chat template cannot be read: {error}") from error


def _in_settings(folder: Path, settings: Mapping[str, Any]) -> dict[str, Source]:
    place = f"{folder / 'tokenizer_config.json'}: chat_template"
    template = settings.get("chat_template")
    if template is None:
        return {}
    if isinstance(template, str):
        return {"default": Source(template, place)}
    try:
        return {entry["name"]: Source(entry["template"], place) for entry in template}
    except (TypeError, KeyError) as error:
        raise ModelError(f"{place}: expected text, or a list of names and templates") from error


def named_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the special tokens that have names, such as `bos_token`, as templates know them.

    Besides those that any model may have, `tokenizer_config.json` can name others: by keys that
    end in `_token`, or in an object `extra_special_tokens`.
    """
    extra = settings.get("extra_special_tokens")
    extra = extra if isinstance(extra, dict) else {}
    named = {key: value for key, value in settings.items() if key.endswith("_token")} | extra
    tokens = {}
    for name, value in named.items():
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            tokens[name] = text
    return tokens
