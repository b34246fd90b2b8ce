"""Compares chat templates with transformers, and makes `prompts.json` of those in `tests/golden`.

The templates in `tests/golden/templates` were written for this purpose, and use what templates of
real models use. `prompts.json` has the conversations below, and what transformers makes of each by
each template, with content as it can read it; null where it fails. Any folder of templates
(`*.jinja`) can be compared:

    python scripts/golden/templates.py make tests/golden/templates
    python scripts/golden/templates.py compare FOLDER [-v]

Needs transformers, which the tests do without; no torch.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from streamtok.errors import InvalidRequest
from streamtok.testing import byte_tokenizer
from streamtok.text.template import PromptOptions
from streamtok.text.templates.chat import JinjaTemplate
from streamtok.text.tokenizer import Tokenizer

TOKENS = {"bos_token": "<|endoftext|>", "eos_token": "<|end|>", "pad_token": "<|pad|>"}
SYSTEM = {"role": "system", "content": "  Be brief.\n"}
USER = {"role": "user", "content": 'What is 2 < 3 & "ü" in Zürich? 你好 \U0001f600'}
ANSWER = {"role": "assistant", "content": "It is\n\ntrue. "}
AGAIN = {"role": "user", "content": " And then?\n"}
CITY = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "Where, as in <Zürich>"},
        "days": {"type": "integer", "default": 1},
        "units": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        "near": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["city"],
}
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather.", "parameters": CITY},
}
CLOCK = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The time.",
        "parameters": {"type": "object", "properties": {}},
    },
}


def call(name: str, arguments: dict[str, Any], number: int = 1) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": f"call{number:05}", "type": "function", "function": function}


def result(content: str, name: str = "get_weather", number: int = 1) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"call{number:05}", "name": name, "content": content}


ASKED = call("get_weather", {"city": "Zürich", "days": 2, "near": ["a", "b"]})
CALLED = {"role": "assistant", "content": "", "tool_calls": [ASKED]}
BOTH = {"role": "assistant", "tool_calls": [ASKED, call("get_time", {}, 2)]}
RESULTS = [result('{"sky": "<blue>", "ü": 1.5}'), result("12:00", "get_time", 2)]
PARTS = {
    "role": "user",
    "content": [{"type": "text", "text": "Hi "}, {"type": "text", "text": "x"}],
}
THOUGHT = {"role": "assistant", "content": "Yes.", "reasoning_content": "Let me\nthink."}

# name -> messages, tools, arguments of apply_chat_template
CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]] = {
    "user": ([USER], [], {}),
    "no prompt": ([USER, ANSWER], [], {"add_generation_prompt": False}),
    "system": ([SYSTEM, USER], [], {}),
    "turns": ([USER, ANSWER, AGAIN], [], {}),
    "system turns": ([SYSTEM, USER, ANSWER, AGAIN, ANSWER, USER], [], {}),
    "no alternation": ([USER, AGAIN], [], {}),
    "system later": ([USER, ANSWER, SYSTEM, AGAIN], [], {}),
    "thinking off": ([SYSTEM, USER], [], {"enable_thinking": False, "thinking": False}),
    "thinking on": ([USER], [], {"enable_thinking": True, "reasoning_effort": "high"}),
    "reasoning": ([USER, THOUGHT, AGAIN], [], {}),
    "reasoning name": ([USER, {**ANSWER, "reasoning": "Hm."}, AGAIN], [], {}),
    "reasoning text": ([USER, {**ANSWER, "content": "<think>\na\n</think>\n\nb"}, AGAIN], [], {}),
    "name": ([{**USER, "name": "Ann"}, ANSWER, AGAIN], [], {}),
    "null": ([USER, {"role": "assistant", "content": None}, AGAIN], [], {}),
    "nulls": ([{**USER, "name": None}, {**ANSWER, "tool_calls": None}, AGAIN], [], {}),
    "empty": ([{"role": "system", "content": ""}, {"role": "user", "content": ""}], [], {}),
    "parts": ([PARTS], [], {}),
    "documents": ([USER], [], {"documents": [{"title": "T", "text": "Text <b>"}]}),
    "own tokens": ([USER], [], {"bos_token": "[BOS]"}),
    "continue": ([USER, ANSWER], [], {"continue_final_message": True}),
    "continue system": (
        [SYSTEM, USER, {**ANSWER, "content": "  So"}],
        [],
        {"continue_final_message": True},
    ),
    "continue thought": ([USER, THOUGHT], [], {"continue_final_message": "reasoning_content"}),
    "tools": ([USER], [WEATHER, CLOCK], {}),
    "system tools": ([SYSTEM, USER], [WEATHER], {}),
    "call": ([USER, CALLED, RESULTS[0]], [WEATHER], {}),
    "calls": ([SYSTEM, USER, BOTH, *RESULTS], [WEATHER, CLOCK], {}),
    "call and answer": ([USER, CALLED, RESULTS[0], ANSWER, AGAIN], [WEATHER], {}),
    "call null": ([USER, {**CALLED, "content": None}, RESULTS[0]], [WEATHER], {}),
    "call and text": ([USER, {**CALLED, "content": "Let me see."}, RESULTS[0]], [WEATHER], {}),
    "call without tools": ([USER, CALLED, RESULTS[0]], [], {}),
}


class Peer:
    """transformers, with a tokenizer whose special tokens have the names of `TOKENS`."""

    def __init__(self) -> None:
        backend = byte_tokenizer()
        self._tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **TOKENS)

    def render(
        self, source: str, messages: Any, tools: Any, arguments: dict[str, Any]
    ) -> str | Exception:
        arguments = dict(arguments)
        continued = bool(arguments.get("continue_final_message"))
        arguments.setdefault("add_generation_prompt", not continued)
        try:
            return self._tokenizer.apply_chat_template(
                messages, tools=tools or None, chat_template=source, tokenize=False, **arguments
            )
        except Exception as error:  # a template may raise anything
            return error


def ours(template: JinjaTemplate, messages: Any, tools: Any, arguments: dict[str, Any]) -> Any:
    """Return the prompt that this package renders, or the error."""
    names = ("add_generation_prompt", "continue_final_message")
    fields = {name: arguments[name] for name in names if name in arguments}
    others = {name: value for name, value in arguments.items() if name not in names}
    try:
        return template.render(messages, tools, PromptOptions(**fields, variables=others))
    except InvalidRequest as error:
        return error


def load(source: str) -> JinjaTemplate:
    """Return our template of a model that has this one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        byte_tokenizer().save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(json.dumps(TOKENS))
        (folder / "chat_template.jinja").write_text(source, "utf-8", newline="")
        return JinjaTemplate(Tokenizer(folder))


def compare(folder: Path, verbose: bool) -> None:
    """Print how many renderings are the same, and which are not."""
    counts: Counter[str] = Counter()
    peer = Peer()
    for path in sorted(folder.glob("*.jinja")):
        source = path.read_bytes().decode("utf-8")
        try:
            template = load(source)
        except Exception as error:
            counts["does not load"] += 1
            print(f"{path.name}: does not load: {error}")
            continue
        for name, (messages, tools, arguments) in CONVERSATIONS.items():
            theirs = peer.render(source, messages, tools, arguments)
            mine = ours(template, messages, tools, arguments)
            kind = verdict(theirs, mine)
            for form in (joined, parted):  # where a template cannot read content as it was sent
                if kind not in ("equal", "both fail"):
                    read = peer.render(source, [form(m) for m in messages], tools, arguments)
                    kind = f"equal, {form.__name__}" if read == mine else kind
            counts[kind] += 1
            if not kind.startswith(("equal", "both fail")):
                print(f"{path.name}: {name}: {kind}")
                if verbose:
                    print(f"  theirs {str(theirs)!r}\n  ours   {str(mine)!r}")
    print(dict(counts))


def joined(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message whose content is text."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    return {**message, "content": "".join(part["text"] for part in content)}


def parted(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message whose content is a list of parts."""
    content = message.get("content")
    if not isinstance(content, str):
        return message
    return {**message, "content": [{"type": "text", "text": content}]}


def verdict(theirs: str | Exception, mine: str | Exception) -> str:
    if isinstance(theirs, Exception):
        return "both fail" if isinstance(mine, Exception) else "only transformers fails"
    if isinstance(mine, Exception):
        return "only ours fails"
    return "equal" if theirs == mine else "different"


FORMS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {  # of content, if not text
    "parts_only": parted,
    "text_or_parts": lambda message: message,
}


def make(folder: Path) -> None:
    """Write what transformers renders by the templates in `folder`."""
    peer = Peer()
    prompts: dict[str, dict[str, str | None]] = {}
    for path in sorted(folder.glob("*.jinja")):
        source = path.read_bytes().decode("utf-8")
        form = FORMS.get(path.stem, joined)
        made = {
            name: peer.render(source, [form(m) for m in messages], *others)
            for name, (messages, *others) in CONVERSATIONS.items()
        }
        prompts[path.stem] = {
            name: None if isinstance(prompt, Exception) else prompt for name, prompt in made.items()
        }
    conversations = {
        name: {"messages": messages, "tools": tools, "arguments": arguments}
        for name, (messages, tools, arguments) in CONVERSATIONS.items()
    }
    content = {"tokens": TOKENS, "conversations": conversations, "prompts": prompts}
    text = json.dumps(content, ensure_ascii=False, indent=1)
    (folder / "prompts.json").write_text(f"{text}\n", "utf-8")


if __name__ == "__main__":
    logging.set_verbosity_error()
    command, folder = sys.argv[1], Path(sys.argv[2])
    make(folder) if command == "make" else compare(folder, "-v" in sys.argv)
