"""Reads a script; an error in one names the file, the rule, the key, and what was expected.

Read next: `streamtok.script.rules`, the keys there are.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from msgspec import UNSET, Struct

from streamtok.api.input.validation import checked
from streamtok.errors import ConfigError, InvalidRequest
from streamtok.faults.catalogue import parse
from streamtok.script.rules import Answer, Call, Match, Rule, Script, Usage

Kind = TypeVar("Kind", bound=Struct)
UNKNOWN = re.compile(r"unknown field `(?P<name>.*)`$")
ERROR_KEYS = ("message", "code", "retry_after_s")
CONTENT_KEYS = ("text", "tool_calls", "usage", "first_token_s", "tokens_per_s", "fault")
KINDS = (Script, Rule, Match, Answer, Call, Usage)
KEYS = sorted({key for kind in KINDS for key in kind.__struct_fields__})


def read(path: Path) -> Script:
    """Return the script in a file, which is TOML or, if its name ends in `.json`, JSON.

    Raises:
        ConfigError: it cannot be read, or something in it is wrong.
    """
    import tomllib  # few servers have a script, and none waits for what reads one

    try:
        text = path.read_text("utf-8")
        value = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # of UTF-8, of JSON, of TOML
        raise ConfigError(f"{path}: {error}") from error
    return make(value, str(path))


def make(value: Any, source: str) -> Script:
    """Return the script that a value of a file is; `source` is what errors begin with.

    Raises:
        ConfigError: something in it is wrong.
    """
    if not isinstance(value, Mapping) or not isinstance(value.get("rules"), list):
        raise ConfigError(f"{source}: expected a list of rules under the key rules")
    script = _checked({**value, "rules": []}, Script, source)
    for number, rule in enumerate(value["rules"], 1):
        script.rules.append(_rule(rule, f"{source}: rule {number}"))
    return script


def _rule(value: Any, place: str) -> Rule:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{place} must be a table, with answer and match")
    if isinstance(name := value.get("name"), str):
        place = f"{place} ({name})"
    rule = _checked(value, Rule, place)
    if (rule.answer is None) == (rule.answers is None):
        raise ConfigError(f"{place}: expected one of answer and answers")
    if rule.answers is None and "after" in value:
        raise ConfigError(f"{place}: after: only for answers, of which there are several")
    for problem in _match_problems(rule.match):
        raise ConfigError(f"{place}: match.{problem}")
    embeds = "embeddings" in (rule.match.endpoint or ())
    for number, answer in enumerate(rule.sequence):
        key = "answer" if rule.answers is None else f"answers[{number}]"
        if embeds and answer.status is None:
            raise ConfigError(f"{place}: {key}: embeddings can only be answered with a status")
        for problem in _answer_problems(answer):
            raise ConfigError(f"{place}: {key}.{problem}")
    return rule


def _match_problems(match: Match) -> Iterator[str]:
    if match.regex is not None:
        try:
            re.compile(match.regex)
        except re.error as error:
            yield f"regex: {error}"


def _answer_problems(answer: Answer) -> Iterator[str]:
    given = {key for key in (*ERROR_KEYS, *CONTENT_KEYS) if getattr(answer, key) is not None}
    given |= {"json"} - ({"json"} if answer.json is UNSET else set())
    if answer.status is not None:
        other = given - {*ERROR_KEYS, "first_token_s"}
        yield from (f"{key}: an error, which has a status, has none" for key in sorted(other))
        return
    yield from (
        f"{key}: only an error, which has a status, has one" for key in ERROR_KEYS if key in given
    )
    if not given & {"text", "json", "tool_calls"}:
        yield "text: expected text, json, tool_calls or status"
    if {"text", "json"} <= given:
        yield "json: there is a text already"
    if answer.fault is not None:
        try:
            wanted = parse(answer.fault)
        except InvalidRequest as error:
            yield error.message
        else:
            if any(one.is_death for one in wanted):
                yield "fault: engine-death needs an answer of the model's"


def _checked(value: Mapping[str, Any], kind: type[Kind], place: str) -> Kind:
    """Return `value` as a `kind`. Raises ConfigError."""
    try:
        return checked(value, kind)
    except InvalidRequest as error:
        import difflib

        unknown = UNKNOWN.search(error.message)
        near = difflib.get_close_matches(unknown["name"], KEYS, 1, 0.7) if unknown else ()
        hint = "".join(f"; did you mean `{key}`?" for key in near)
        raise ConfigError(f"{place}: {error.message}{hint}") from error
