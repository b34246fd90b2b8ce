"""Exercise 6: make the doctor happy."""

import json
import random
import time
from collections.abc import Iterator, Mapping
from typing import Any

from streamtok.teach.build.openai_kit import PROMPT_TOKENS, serve_openai

FIELDS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}


def events(asked: Mapping[str, Any], texts: Iterator[str]) -> Iterator[str]:
    """Yield the data of each event in the answer to `asked`; `texts` is what the model says."""
    counts = bool((asked.get("stream_options") or {}).get("include_usage"))
    shared = {
        "id": f"chatcmpl-{random.getrandbits(64):x}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": "fox",
        **({"usage": None} if counts else {}),
    }

    def event(delta: Mapping[str, str], reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return json.dumps({**shared, "choices": [choice]})

    yield event({"role": "assistant", "content": ""})
    made = 0
    for text in texts:
        made += 1
        yield event({"content": text})
    yield event({}, "length" if made == asked.get("max_tokens") else "stop")
    if counts:
        usage = {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": made,
            "total_tokens": PROMPT_TOKENS + made,
        }
        yield json.dumps({**shared, "choices": [], "usage": usage})
    yield "[DONE]"


def refusal(status: int, message: str) -> tuple[int, Mapping[str, Any]]:
    """Return status and JSON for a request that `status` and `message` are the answer to."""
    code = "model_not_found" if status == 404 else None
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return status, {"error": error}


if __name__ == "__main__":
    serve_openai(FIELDS, events, refusal)
