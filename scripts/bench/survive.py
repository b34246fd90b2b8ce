"""Whether streams survive the death of the engine's process, with the same bytes.

usage: survive.py [--model FOLDER] [--kills 5] [--rounds 1] [--tokens 60] [--seed 0]

Thirty-two streams of all dialects run once undisturbed. Then they run again at once, and the
engine's process is killed at random moments, counted in bytes that have arrived. Every stream must
end with the bytes it had; ids and how much of a prompt was cached are left out of the comparison.
Exits with 1 if one does not.
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import sys
from collections.abc import Callable
from itertools import count
from typing import Any
from urllib.parse import urlsplit

from streamtok.config import ServeConfig
from streamtok.serve.background import RunningServer, running_server

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
        {"stop": ["the", "and"]},
        {"logit_bias": {"40": 5}, "min_p": 0.05},
    ]
    completions: list[dict[str, Any]] = [
        {"temperature": 0, "ignore_eos": True, **usage},
        {"echo": True, "logprobs": 2},
        {"n": 2, "logprobs": 1, "ignore_eos": True},
        {"prompt": ["One", "Two", "Three"], "top_k": 20},
        {"prompt": "a b a b a b a b a b", "temperature": 0, "ignore_eos": True},  # can be guessed
        {"min_tokens": 10, **penalties},
        {"stop": "."},
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
        ("/v1/messages", SSE, message | {"messages": HELLO, "stop_sequences": ["the"]}),
        ("/v1/messages", SSE, message | {"messages": HELLO, "tools": [anthropic], **any_tool}),
        ("/v1/chat/completions", SSE, chat | {"ignore_eos": True, "n": 2, "temperature": 1}),
        ("/v1/completions", SSE, plain | {"ignore_eos": True, "temperature": 1.2}),
    ]
    return [
        (path, media, body if path == "/v1/messages" else body | {"seed": number})
        for number, (path, media, body) in enumerate(found)
    ]


async def read(url: str, stream: Stream, arrived: Callable[[int], None]) -> tuple[int, bytes]:
    """Return the status and the body of an answer, without the framing of chunks."""
    path, media, body = stream
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    text = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: {media}\r\n"
    writer.write(f"{head}Content-Length: {len(text)}\r\nConnection: close\r\n\r\n".encode() + text)
    answer = await reader.readuntil(b"\r\n\r\n")
    data = b""
    if b"transfer-encoding: chunked" in answer.lower():
        while size := int(await reader.readline(), 16):
            data += (await reader.readexactly(size + 2))[:-2]
            arrived(size)
    else:
        data = await reader.read()
    writer.close()
    return int(answer.split()[1]), data


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


class Killer:
    """Kills the engine's process when so many bytes have arrived."""

    def __init__(self, server: RunningServer, moments: list[int]) -> None:
        self._engine: Any = server.app.engine
        self._moments = sorted(moments)
        self._bytes = 0
        self._killed: int | None = None
        self.kills = 0

    def arrived(self, size: int) -> None:
        self._bytes += size
        pid = self._engine.pid
        if pid != self._killed and pid and self._moments and self._bytes >= self._moments[0]:
            self._moments.pop(0)
            os.kill(pid, signal.SIGKILL)
            self._killed = pid
            self.kills += 1


async def run(server: RunningServer, wanted: list[Stream], moments: list[int]) -> tuple[Any, int]:
    killer = Killer(server, moments)
    answers = await asyncio.gather(*(read(server.url, one, killer.arrived) for one in wanted))
    return answers, killer.kills


def main() -> int:
    """Run it; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="", help="folder of a model")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    chance = random.Random(given.seed)
    different = 0
    config = ServeConfig(
        port=0, ledger=":memory:", model=given.model, frozen_clock=True, log_level="error"
    )
    wanted = streams(given.tokens, config.model_folder.resolve().name)
    with running_server(config) as server:
        whole, _ = asyncio.run(run(server, wanted, []))
        total = sum(len(data) for _, data in whole)
        for stream, (status, data) in zip(wanted, whole, strict=True):
            if status != 200:
                print(f"not answered: {stream}: {data.decode()}")
                return 1
        for number in range(given.rounds):
            moments = [chance.randrange(total) for _ in range(given.kills)]
            again, kills = asyncio.run(run(server, wanted, moments))
            bad = [
                (stream, before, after)
                for stream, (_, before), (_, after) in zip(wanted, whole, again, strict=True)
                if comparable(before) != comparable(after)
            ]
            for (path, media, body), before, after in bad:
                print(f"different: {path} {media} {body}\n{before.decode()}\n{after.decode()}")
            different += len(bad)
            print(f"round {number}: {len(wanted)} streams, {kills} kills, {len(bad)} different")
        stats = server.app.engine.stats()
    print(f"{stats.restarts} restarts, {stats.resumed} sequences resumed, {different} different")
    return bool(different)


if __name__ == "__main__":
    sys.exit(main())
