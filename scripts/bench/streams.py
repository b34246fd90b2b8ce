"""Thirty-two requests of all dialects, and how their answers are compared: for scripts that kill.

Read next: `survive.py` kills the engine, `survive_server.py` the server.
"""

import argparse
import re
import sys
from collections.abc import Callable
from itertools import count
from typing import Any

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 40}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
TOOL = {"name": "look_up", "description": "Look a word up.", "parameters": SCHEMA}
FORMAT = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}
SSE, NDJSON, TEXT = "text/event-stream", "application/x-ndjson", "text/plain"
HELLO = [{"role": "user", "content": "Tell me a story about a fox."}]
RARE = ("2", "\x18", "\x1a")  # a tiny model of random bytes says these here, and no other
Stream = tuple[str, str, dict[str, Any]]  # path, media type, body


def streams(tokens: int, model: str) -> list[Stream]:
    """Return thirty-two requests."""
    chat = {"messages": HELLO, "max_tokens": tokens, "stream": True}
    plain = {"prompt": "Once upon a time", "max_tokens": tokens, "stream": True}
    usage = {"stream_options": {"include_usage": True}}
    penalties = {"presence_penalty": 0.6, "frequency_penalty": 0.4, "repetition_penalty": 1.1}
    chats: list[dict[str, Any]] = [
        {"temperature": 0, "ignore_eos": True},
        {"n": 3, **usage},
        {"logprobs": True, "top_logprobs": 3},
        {"response_format": FORMAT},
        {"tools": [{"type": "function", "function": TOOL}], "tool_choice": "required"},
        {"tools": [{"type": "function", "function": TOOL}]},
        {**penalties, "ignore_eos": True},
        {"stop": ["the", "and", RARE[0]]},
        {"logit_bias": {"40": 5}, "min_p": 0.05},
    ]
    completions: list[dict[str, Any]] = [
        {"temperature": 0, "ignore_eos": True, **usage},
        {"echo": True, "logprobs": 2},
        {"n": 2, "logprobs": 1, "ignore_eos": True},
        {"prompt": ["One", "Two", "Three"], "top_k": 20},
        {"prompt": "a b a b a b a b a b", "temperature": 0, "ignore_eos": True},  # can be guessed
        {"min_tokens": 10, **penalties},
        {"stop": [".", RARE[1]]},
        {"echo": True, "prompt": "A long prompt. " * 10},
    ]
    # without a seed, as Anthropic's API has none
    message = {"max_tokens": tokens, "stream": True, "model": model, "temperature": 0}
    said = [[{"role": "user", "content": text}] for text in ("Hello!", "A story.", "Who?")]
    response = {"input": "Tell me a story.", "max_output_tokens": tokens, "stream": True}
    function = {"type": "function", **TOOL}
    any_tool = {"tool_choice": {"type": "any"}}
    anthropic = {"name": "look_up", "input_schema": SCHEMA}
    found: list[Stream] = [
        *(("/v1/chat/completions", SSE, chat | extra) for extra in chats),
        *(("/v1/completions", SSE, plain | extra) for extra in completions),
        ("/v1/chat/completions", NDJSON, chat | {"ignore_eos": True}),
        ("/v1/chat/completions", TEXT, chat | {"ignore_eos": True}),
        ("/v1/completions", NDJSON, plain | {"logprobs": 1}),
        ("/v1/completions", TEXT, plain | {"ignore_eos": True}),
        *(("/v1/responses", SSE, response | {"temperature": t}) for t in (0, 0.7, 1)),
        ("/v1/responses", SSE, response | {"tools": [function], "tool_choice": "required"}),
        *(("/v1/messages", SSE, message | {"messages": turns}) for turns in said),
        ("/v1/messages", SSE, message | {"messages": HELLO, "stop_sequences": ["the", RARE[2]]}),
        ("/v1/messages", SSE, message | {"messages": HELLO, "tools": [anthropic], **any_tool}),
        ("/v1/chat/completions", SSE, chat | {"ignore_eos": True, "n": 2, "temperature": 1}),
        ("/v1/completions", SSE, plain | {"ignore_eos": True, "temperature": 1.2}),
    ]
    return [
        (path, media, body if path == "/v1/messages" else body | {"seed": number})
        for number, (path, media, body) in enumerate(found)
    ]


def choice_of(line: str) -> int:
    """Return the number of the choice that an event is for; those for all come last."""
    match = re.search(r'"choices": ?\[\{.*?"index": ?(\d+)', line)
    return int(match[1]) if match else sys.maxsize


def comparable(data: bytes) -> str:
    """Return a body without what differs from run to run."""
    # The choices of one request share the steps as the load allows; each is in order.
    text = "\n".join(sorted(data.decode().splitlines(), key=choice_of))
    names: dict[str, str] = {}
    numbers = count()

    def rename(match: re.Match[str]) -> str:
        if match[0] not in names:
            names[match[0]] = f"id{next(numbers)}"
        return names[match[0]]

    text = re.sub(r"\b(?:chatcmpl|cmpl|resp|msg|call|fc|toolu|rs)[-_][A-Za-z0-9]{6,}", rename, text)
    return re.sub(
        r'("(?:cached_tokens|cache_read_input_tokens|input_tokens)": ?)\d+', r"\g<1>0", text
    )


def parser_of(doc: str, kills: int) -> argparse.ArgumentParser:
    """Return a parser of what all scripts take that kill something."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument("--model", default="", help="folder of a model")
    parser.add_argument("--kills", type=int, default=kills, help="in each round")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=60, help="that a stream may have")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    return parser


def differences(
    wanted: list[Stream], whole: list[bytes], again: list[bytes], shown: Callable[[bytes], str]
) -> int:
    """Print the streams that are not the same again, as they are `shown`; return how many."""
    pairs = zip(wanted, whole, again, strict=True)
    bad = [(one, before, after) for one, before, after in pairs if shown(before) != shown(after)]
    for (path, media, body), before, after in bad:
        print(f"different: {path} {media} {body}\n{before.decode()}\n{after.decode()}")
    return len(bad)
